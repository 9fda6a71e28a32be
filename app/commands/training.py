"""`polymodal train | check`: from a manifest to a bundle, and what is wrong with a manifest."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.commands.command import FAILED, AsJson, Roots, command, print_json, say, show
from app.cpus import available_cpus

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]

CORES = available_cpus()
CACHE = Path.home() / ".cache" / "polymodal"

commands = typer.Typer()


@command(
    commands,
    "polymodal train things.csv --out bundles/things",
    "polymodal train things.csv --out bundles/things --task multi-label --epochs 5",
    "polymodal train things.csv --out bundles/things --resume",
    "polymodal data shapes --out data/shapes && polymodal train data/shapes --preset cnn-rnn --out bundles/shapes",
)
def train(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="Manifest (CSV, JSONL, Parquet) or a folder with one.", exists=True),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; OUT.run holds what is in progress.")],
    preset: Annotated[str, typer.Option(help="cnn-rnn (from scratch) or pretrained (fine-tuned).")] = "pretrained",
    task: Annotated[
        str, typer.Option(help="What labels are: single-label, multi-label (several, with | between) or regression.")
    ] = "single-label",
    class_weights: Annotated[
        str, typer.Option(help="What labels count in the loss: none, balanced, or LABEL=WEIGHT,…")
    ] = "none",
    fusion: Annotated[
        str | None,
        typer.Option(help="sum, product, concat, gated, low-rank-bilinear or cross-attention instead of the preset's."),
    ] = None,
    image_encoder: Annotated[
        str | None,
        typer.Option(
            help="cnn, efficientnet-lite0 … lite4, a model's folder as ./folder, or hf://owner/name, instead of the preset's."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="static, lstm, gru, transformer, a model's folder as ./folder, or hf://owner/name, instead of the preset's."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            help="image or text (or both, given twice): that encoder's trained weights stay as they are. "
            "none: fine-tune all, also the token embeddings that the preset freezes."
        ),
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="image or text (or both, given twice): its training examples are changed by chance (pictures moved and "
            "recoloured, words left out), instead of the preset's. none: nothing is, for example where the size is the answer."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many, instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentations; not of the parts.")] = 0,
    name: Annotated[str | None, typer.Option(help="The model's name in the service (default: OUT's).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from where an interrupted training stopped.")] = False,
    test: Annotated[
        bool, typer.Option(help="Measure on the test part; leave it unread while you still choose.")
    ] = True,
    device: Annotated[Device, typer.Option(help="Where to compute; auto is the fastest one that is here.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="What to multiply matrices in; fp16 needs a GPU.")] = "fp32",
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to OUT.run/tensorboard.")] = False,
    int8: Annotated[
        bool, typer.Option(help="Also in 8 bits, for CPUs, what loses next to nothing on the validation part.")
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode pictures and make batches.")] = CORES,
    cache: Annotated[Path, typer.Option(help="Where downloaded weights are kept.")] = CACHE,
    root: Roots = None,
    as_json: AsJson = False,
) -> None:
    """Train on a manifest of (image, text, label) and write a bundle that `polymodal serve` serves.

    Prints its model card; with --json the bundle's name, version and measures.
    """
    from model.training import train as run

    encoders = {key: name for key, name in {"image": image_encoder, "text": text_encoder}.items() if name}
    options: dict[str, Any] = {
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
        task=task,
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
    )
    description = predictor.description
    if as_json:
        told = {"name": description.name, "digest": description.digest, "task": description.task}
        print_json({"bundle": str(out), **told, "metrics": description.report["metrics"]})
    else:
        show(description.card)
    say(f"{out}: bundle {description.digest}")


@command(commands, "polymodal check things.csv", "polymodal check things.csv --task multi-label --json")
def check(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="Manifest (CSV, JSONL, Parquet) or a folder with one.", exists=True),
    ],
    task: Annotated[
        str, typer.Option(help="What labels are: single-label, multi-label (several, with | between) or regression.")
    ] = "single-label",
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    as_json: AsJson = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode pictures.")] = CORES,
    root: Roots = None,
) -> None:
    """Say what is wrong or suspicious with a manifest, without training; exit code 1 if something is wrong."""
    from model.manifest import task_name
    from model.training.checks import inspect

    inspection = inspect(manifest, task_name(task), split_seed, workers, root or ())
    if as_json:
        print_json(inspection.as_json())
    else:
        show(inspection.summary())
    if inspection.result.errors:
        raise typer.Exit(FAILED)
