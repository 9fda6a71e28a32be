"""`polymodal predict | score | embed | evaluate | export | remeasure | card`: commands about a bundle, besides serving."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polymodal.app.commands.command import (
    BAD_ROWS,
    CPUS,
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

if TYPE_CHECKING:
    from polymodal.model import Modality, Model, Network

EMBEDDED = "illustrations"

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or illustrations: the embedded one.")
]
ManifestArgument = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="Manifest (CSV, JSONL, Parquet) or a folder with one.")
]
BundleFolder = Annotated[Path, typer.Option(help="Folder to write the bundle to; BUNDLE itself replaces it.")]
Output = Annotated[
    Path, typer.Option(help="File to write: .csv, .jsonl or .parquet; OUT.part holds what is in progress.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Start again: delete OUT.part, and replace OUT if it exists.")]
Strict = Annotated[bool, typer.Option("--strict", help=f"Exit with code {BAD_ROWS} when a row is bad.")]

commands = typer.Typer()


def _input_option(modality: "Modality") -> Any:  # noqa: ANN401 — an annotation
    """Return the option of `predict` for a modality: a file, or words."""
    if modality.textual:
        return Annotated[str | None, typer.Option(metavar="WORDS", help=f"Words of {modality.noun}.")]
    return Annotated[Path | None, typer.Option(help=f"File of {modality.noun}.", exists=True, dir_okay=False)]


_INPUTS = {name: _input_option(modality) for name, modality in MODALITIES.items()}


def bundle_folder(bundle: str) -> Path:
    """Return the folder of a bundle; a name that is no path may be that of the embedded bundle."""
    from polymodal.app.settings import embedded_bundle

    path = Path(bundle).expanduser()
    embedded = embedded_bundle(bundle).path
    return embedded if not path.exists() and embedded.is_dir() else path


def open_model(bundle: str) -> "Model":
    """Load a model of any kind and warm it up. Raises BundleError."""
    from polymodal.model import load_bundle

    model = load_bundle(bundle_folder(bundle), threads=CPUS)
    model.warm_up()
    return model


def open_bundle(bundle: str) -> "Network":
    """Load a network and warm it up. Raises BundleError, and ModelError for a model of another kind."""
    from polymodal.model import ModelError, Network, tasks_of

    model = open_model(bundle)
    if not isinstance(model, Network):
        kind, tasks = model.description.kind, ", ".join(tasks_of(model.description))
        raise ModelError(
            f"{bundle}: a model of kind {kind}, for {tasks} alone; allowed: a network, which predicts a target"
        )
    return model


@command(
    commands,
    "polymodal predict --image examples/boat.png --text 'a sailing dinghy'",
    "polymodal predict illustrations --text 'a sailing dinghy' --top-k 3",
    "polymodal predict bundles/things --input image=lamp.jpg --json",
)
@for_each_modality("named", _INPUTS)
def predict(
    named: Mapping[str, Path | str],
    bundle: BundleArgument = EMBEDDED,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=VALUE",
            help=f"An input by its modality ({', '.join(MODALITIES)}): a file, or words; several by giving it again.",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Only the best labels, at most this many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify one item, as the service would; all inputs but one may be missing.

    With --json it prints the response of POST /v1/classify.
    """
    from polymodal.app.commands.terminal import show_answer
    from polymodal.model import TASKS, answer_one

    contents = _read_inputs(named, inputs or ())
    task = TASKS["classify"]
    model = open_bundle(bundle)
    if top_k is not None and model.description.labels:
        top_k = min(top_k, len(model.description.labels))
    answer: Any = answer_one(model, task, contents, task.Options.model_validate({"top_k": top_k}))
    if as_json:
        show(answer.model_dump_json(exclude_none=True))
    else:
        show_answer(answer)


def _read_inputs(named: Mapping[str, Path | str], inputs: Sequence[str]) -> dict[str, bytes | str]:
    """Return an item's inputs in the order of MODALITIES, files as bytes. `inputs`: NAME=VALUE of --input."""
    values = dict(named)
    for pair in inputs:
        name, equals, value = pair.partition("=")
        if not equals or name not in MODALITIES:
            allowed = ", ".join(
                f"{name}={'WORDS' if modality.textual else 'FILE'}" for name, modality in MODALITIES.items()
            )
            raise typer.BadParameter(f"--input {pair!r}; allowed: {allowed}")
        if name in values:
            raise typer.BadParameter(f"{name} is given twice; allowed: once")
        values[name] = value if MODALITIES[name].textual else Path(value)
    if not values:
        options = " nor ".join(f"--{name}" for name in MODALITIES)
        raise typer.BadParameter(f"neither {options}; allowed: at least one of {', '.join(MODALITIES)}")
    ordered = ((name, values[name]) for name in MODALITIES if name in values)
    return {name: value.read_bytes() if isinstance(value, Path) else value for name, value in ordered}


@command(
    commands,
    "polymodal score bundles/things new.csv --out scores.parquet",
    "polymodal score illustrations examples/manifest.csv --out scores.csv --strict --json",
)
def score(
    bundle: BundleArgument,
    manifest: ManifestArgument,
    out: Output,
    restart: Restart = False,
    strict: Strict = False,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Score every row of a manifest; labels are not needed. The same command resumes an interrupted run.

    Columns: id, label (the best), score, score_LABEL for every label, error; a multi-label model has its selected labels with |
    between them and no score, a regression value, low and high. A row that can't be read has nothing but an error.
    """
    from polymodal.model.evaluation import score as write

    options = {"restart": restart, "workers": workers, "roots": root or ()}
    _write_rows(write, open_bundle(bundle), manifest, out, strict=strict, as_json=as_json, options=options)


@command(
    commands,
    "polymodal embed bundles/things new.csv --out vectors.parquet",
    "polymodal embed illustrations examples/manifest.csv --out vectors.jsonl --strict --json",
)
def embed(
    bundle: BundleArgument,
    manifest: ManifestArgument,
    out: Output,
    restart: Restart = False,
    strict: Strict = False,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Write a vector for each input of every row of a manifest. The same command resumes an interrupted run.

    Columns: id, one for each input with a vector of length 1 (a list; in CSV as JSON), error. Vectors of one input may be compared
    by their dot product, the cosine similarity. A row that can't be read has nothing but an error.
    """
    from polymodal.model.evaluation import embed as write

    options = {"restart": restart, "workers": workers, "roots": root or ()}
    _write_rows(write, open_model(bundle), manifest, out, strict=strict, as_json=as_json, options=options)


def _write_rows(
    write: Callable[..., Any],
    model: "Model",
    manifest: Path,
    out: Path,
    *,
    strict: bool,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Write a row of `out` for each row of a manifest, and print how many; exit with BAD_ROWS if `strict` and one is bad."""
    from polymodal.app.commands.terminal import show_warnings, show_written, watched

    written = write(model, manifest, out, watch=watched, warn=show_warnings, **options)
    show_written(written, as_json)
    if strict and written.failed:
        raise typer.Exit(BAD_ROWS)


@command(
    commands,
    "polymodal evaluate illustrations examples/manifest.csv",
    "polymodal evaluate bundles/things things.csv --split validation --out report",
    "polymodal evaluate bundles/things things.csv --json",
)
def evaluate(
    bundle: BundleArgument,
    manifest: ManifestArgument,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation, test, unseen or all (default: test; all where no row names a split)."),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            help="split.csv of the training's .run folder, for a manifest without splits.", exists=True, dir_okay=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, the figures and index.html, which a browser shows.")
    ] = None,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Measure a bundle on a manifest, for each set of modalities: all rows, each label, and the worst mistakes.

    Rows that can't be read, or whose label the bundle doesn't have, are listed and left out.
    """
    from polymodal.app.commands.terminal import show_bad_rows, show_evaluation, show_warnings, watched
    from polymodal.model.evaluation import evaluate as run

    if out:  # imported before the work, as a package may be missing
        from polymodal.model.evaluation.folder import write_folder
    evaluation = run(
        open_bundle(bundle),
        manifest,
        split=split,
        splits=splits,
        workers=workers,
        watch=watched,
        warn=show_warnings,
        roots=root or (),
    )
    show_bad_rows(evaluation.faults(), len(evaluation.skipped))
    if out:
        write_folder(evaluation, out)
    if as_json:
        print_json(evaluation.as_json())
    else:
        show_evaluation(evaluation)


@command(
    commands,
    "polymodal export bundles/things --manifest things.csv --out bundles/things-int8",
    "polymodal export bundles/things --out bundles/things-fp32 --json",
)
def export(
    bundle: BundleArgument,
    out: BundleFolder,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Manifest of its training; without it there are no graphs in 8 bits.", exists=True),
    ] = None,
    test: Annotated[bool, typer.Option(help="Measure 8 bits on the test split too.")] = True,
    split_seed: SplitSeed = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Export a bundle's graphs again: in float32 and, for encoders that hardly lose accuracy by it, in 8 bits.

    An encoder is quantised if no set of inputs loses more than 0.005 of accuracy (several labels: of mean average precision; a
    number: of R²), 0.01 of calibration or 0.02 nats of likelihood on the validation split. report.json has all trials.
    """
    from polymodal.model.training import export as run

    predictor = run(
        bundle_folder(bundle),
        out,
        source=manifest,
        work=_examples_folder(out),
        split_seed=split_seed,
        measure_test=test,
        workers=workers,
        roots=root or (),
    )
    description = predictor.description
    if as_json:
        print_json({"bundle": str(out), "digest": description.digest, "runtime": description.runtime})
    else:
        for line in (line for line in description.card.splitlines() if line.startswith("On a CPU, encoders")):
            show(line)
    report(f"{out}: bundle {description.digest}, runtime {description.runtime}")


@command(
    commands,
    "polymodal remeasure bundles/things --manifest things.csv --out bundles/things",
    "polymodal remeasure bundles/things --manifest things.csv --out bundles/things-2 --json",
)
def remeasure(
    bundle: BundleArgument,
    manifest: Annotated[Path, typer.Option(help="Manifest of its training.", exists=True)],
    out: BundleFolder,
    split_seed: SplitSeed = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Add figures to a bundle's report that an older release did not measure, such as the confusion matrix.

    Figures in the report, weights, graphs and calibration are not changed.
    """
    from polymodal.model.training import remeasure as run

    added = run(
        bundle_folder(bundle),
        out,
        source=manifest,
        work=_examples_folder(out),
        split_seed=split_seed,
        workers=workers,
        roots=root or (),
    )
    if as_json:
        print_json({"bundle": str(out), "added": list(added)})
    report(f"{out}: added {', '.join(added) or 'nothing'}")


@command(
    commands,
    "polymodal align bundles/things things.csv --out bundles/things",
    "polymodal align bundles/things pairs.csv --manifest things.csv --out bundles/things-2 --json",
)
def align(
    bundle: BundleArgument,
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Manifest; its labels are not used.", exists=True)],
    out: BundleFolder,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Manifest of its training; without it there are no graphs in 8 bits.", exists=True),
    ] = None,
    test: Annotated[bool, typer.Option(help="Measure on the test split too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the contrastive training; not of the splits.")] = 0,
    split_seed: SplitSeed = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Add alignment heads to a bundle, so that its inputs can be compared: similarity, search, labels without training.

    They are fitted to rows of PAIRS with several inputs, also to rows without a label. Encoders, labels and scores do not change.
    """
    from polymodal.model.training import align as run

    predictor = run(
        bundle_folder(bundle),
        pairs,
        out,
        manifest=manifest,
        work=_examples_folder(out),
        seed=seed,
        split_seed=split_seed,
        measure_test=test,
        workers=workers,
        roots=root or (),
    )
    description = predictor.description
    if as_json:
        print_json({"bundle": str(out), "digest": description.digest, "alignment": description.report["alignment"]})
    else:
        show(description.card)
    report(f"{out}: bundle {description.digest}")


def _examples_folder(out: Path) -> Path:
    """Return the folder of decoded examples, next to the bundle that is written."""
    return out.with_name(out.name + ".run") / "examples"


@command(
    commands,
    "polymodal card",
    "polymodal card bundles/things > card.md",
    "polymodal card bundles/things --json",
)
def card(bundle: BundleArgument = EMBEDDED, as_json: AsJson = False) -> None:
    """Print a bundle's model card: its task, its measured quality and its training data.

    With --json it prints the response of GET /v1/models/NAME, with the service's default limits.
    """
    from polymodal.app.api.schemas import BundleDetail
    from polymodal.app.commands.terminal import show_card
    from polymodal.app.settings import load_settings

    description = open_model(bundle).description
    if as_json:
        show(BundleDetail.of(description, load_settings({})).model_dump_json(exclude_none=True))
    else:
        show_card(description.card)
