"""`polymodal train | check | import`: train a bundle on a manifest, check a manifest, and import a model trained elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from polymodal.app.commands.command import (
    CPUS,
    FAILED,
    AsJson,
    Roots,
    SplitSeed,
    Workers,
    command,
    for_each_modality,
    print_json,
    report,
    show,
)
from polymodal.model import MODALITIES

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]

CACHE = Path.home() / ".cache" / "polymodal"

Manifest = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="Manifest (CSV, JSONL, Parquet) or a folder with one.", exists=True)
]
Target = Annotated[
    str,
    typer.Option(help="What is predicted: single-label, multi-label (several labels, with | between) or regression."),
]
Task = Annotated[str | None, typer.Option("--task", hidden=True, help="Deprecated name of --target.")]

_NAMES = " or ".join(MODALITIES)
_AUGMENTATIONS = ", ".join(modality.augmentation for modality in MODALITIES.values())
_ENCODERS = {
    name: Annotated[
        str | None,
        typer.Option(
            help=f"{modality.encoders}, a model's folder as ./folder, or hf://owner/name, instead of the preset's."
        ),
    ]
    for name, modality in MODALITIES.items()
}

commands = typer.Typer()


@command(
    commands,
    "polymodal train things.csv --out bundles/things",
    "polymodal train things.csv --out bundles/things --target multi-label --epochs 5",
    "polymodal train things.csv --out bundles/things --resume",
    "polymodal data shapes --out data/shapes && polymodal train data/shapes --preset cnn-rnn --out bundles/shapes",
)
@for_each_modality("encoders", _ENCODERS, suffix="_encoder")
def train(
    manifest: Manifest,
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; OUT.run holds what is in progress.")],
    preset: Annotated[
        str,
        typer.Option(
            help="cnn-rnn (from scratch), pretrained (fine-tuned), or align (pretrained, with alignment heads)."
        ),
    ] = "pretrained",
    target: Target = "single-label",
    task: Task = None,
    class_weights: Annotated[
        str, typer.Option(help="Weights of labels in the loss: none, balanced, or LABEL=WEIGHT,…")
    ] = "none",
    fusion: Annotated[
        str | None,
        typer.Option(help="sum, product, concat, gated, low-rank-bilinear or cross-attention instead of the preset's."),
    ] = None,
    *,
    encoders: Mapping[str, str],
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_NAMES} (several by giving it again): do not train that encoder's weights further. "
            "none: fine-tune all, also the token embeddings that the preset freezes."
        ),
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_NAMES} (several by giving it again): change its training examples at random ({_AUGMENTATIONS}), "
            "instead of the preset's. none: change nothing, for example where the size is the answer."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many, instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentations; not of the splits.")] = 0,
    align: Annotated[
        bool | None,
        typer.Option(
            help="Fit alignment heads after the training, so that inputs can be compared; a row without a label serves for "
            "that alone."
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Manifest to fit them to, instead of MANIFEST; its labels are not used.", exists=True),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the service (default: OUT's).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    test: Annotated[
        bool, typer.Option(help="Measure on the test split; switch it off while you still compare options.")
    ] = True,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto is the fastest one that is available.")
    ] = "auto",
    precision: Annotated[Precision, typer.Option(help="Number format of matrix products; fp16 needs a GPU.")] = "fp32",
    split_seed: SplitSeed = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to OUT.run/tensorboard.")] = False,
    int8: Annotated[
        bool,
        typer.Option(help="Also write 8-bit encoders for CPUs, if they hardly lose accuracy on the validation split."),
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode files and make batches.")] = CPUS,
    cache: Annotated[Path, typer.Option(help="Where downloaded weights are kept.")] = CACHE,
    root: Roots = None,
    as_json: AsJson = False,
) -> None:
    """Train on a manifest and write a bundle that `polymodal serve` serves.

    Prints its model card; with --json the bundle's name, version and measures.
    """
    from polymodal.model.training import aligns
    from polymodal.model.training import train as run

    if pairs and not aligns(preset, align):
        raise typer.BadParameter("only with --align or --preset align", param_hint="--pairs")
    options: dict[str, Any] = {
        "align": align,
        "fusion": fusion,
        "encoders": encoders or None,
        "freeze": freeze,
        "augment": augment,
        "epochs": epochs,
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
        "class_weights": class_weights,
    }
    predictor = run(
        manifest,
        out,
        preset=preset,
        target=task or target,
        name=name,
        resume=resume,
        device=device,
        workers=workers,
        cache=cache,
        measure_test=test,
        split_seed=split_seed,
        tensorboard=tensorboard,
        int8=int8,
        changes={key: value for key, value in options.items() if value is not None},
        roots=root or (),
        pairs=pairs,
    )
    description = predictor.description
    if as_json:
        identity = {"name": description.name, "digest": description.digest, "target": description.target}
        print_json({"bundle": str(out), **identity, "metrics": description.report["metrics"]})
    else:
        show(description.card)
    report(f"{out}: bundle {description.digest}")


@command(commands, "polymodal check things.csv", "polymodal check things.csv --target multi-label --json")
def check(
    manifest: Manifest,
    target: Target = "single-label",
    task: Task = None,
    split_seed: SplitSeed = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Check a manifest for errors and suspicious rows, without training; exit code 1 if there are errors."""
    from polymodal.model.targets import target_name
    from polymodal.model.training.checks import inspect

    inspection = inspect(manifest, target_name(task or target), split_seed, workers, root or ())
    if as_json:
        print_json(inspection.as_json())
    else:
        show(inspection.summary())
    if inspection.result.errors:
        raise typer.Exit(FAILED)


@command(
    commands,
    "polymodal import ./clip-folder --out bundles/clip",
    "polymodal import hf://owner/name --out bundles/clip --json",
    name="import",
)
def import_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Model of Hugging Face transformers: ./folder, or hf://owner/name on the hub."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to.")],
    name: Annotated[str | None, typer.Option(help="The model's name in the service (default: OUT's).")] = None,
    cache: Annotated[Path, typer.Option(help="Where downloaded models are kept.")] = CACHE,
    as_json: AsJson = False,
) -> None:
    """Import a trained dual encoder of the family CLIP or SigLIP as a bundle, for embeddings and similarity.

    Serving it needs neither transformers nor torch. Prints its model card; with --json the bundle's name, version and origin.
    """
    from polymodal.model.training import import_encoders as run

    description = run(source, out, name=name, cache=cache).description
    if as_json:
        origin = {key: description.report[key] for key in ("source", "family", "licence")}
        print_json({"bundle": str(out), "name": description.name, "digest": description.digest, **origin})
    else:
        show(description.card)
    report(f"{out}: bundle {description.digest}")
