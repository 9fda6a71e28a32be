"""`polymodal predict | score | evaluate | export | remeasure | card`: what a finished bundle can do, beside being served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.command import BAD_ROWS, AsJson, Roots, command, print_json, say, show
from app.cpus import available_cpus

if TYPE_CHECKING:
    from model import Predictor

CPUS = available_cpus()
EMBEDDED = "illustrations"

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or illustrations: the embedded one.")
]
ManifestArgument = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="Manifest (CSV, JSONL, Parquet) or a folder with one.")
]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode pictures.")]

commands = typer.Typer()


def bundle_folder(bundle: str) -> Path:
    """A bundle's folder, or where there is none that of the embedded one of this name."""
    from app.settings import embedded_bundle

    path = Path(bundle).expanduser()
    embedded = embedded_bundle(bundle).path
    return embedded if not path.exists() and embedded.is_dir() else path


def open_bundle(bundle: str) -> "Predictor":
    """A bundle that is warmed up. Raises BundleError."""
    from model import load_bundle

    predictor = load_bundle(bundle_folder(bundle), threads=CPUS)
    predictor.warm_up()
    return predictor


@command(
    commands,
    "polymodal predict --image examples/boat.png --text 'a sailing dinghy'",
    "polymodal predict illustrations --text 'a sailing dinghy' --top-k 3",
    "polymodal predict bundles/things --image lamp.jpg --json",
)
def predict(
    bundle: BundleArgument = EMBEDDED,
    image: Annotated[Path | None, typer.Option(help="A picture's file.", exists=True, dir_okay=False)] = None,
    text: Annotated[str | None, typer.Option(help="Its text.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Only the best labels, at most this many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify one item, as the service would; the image or the text may be missing.

    With --json it prints what POST /v1/classify answers.
    """
    from app.schemas import Classification, Options
    from app.service import Outcome
    from app.terminal import show_answer
    from model import ModelError

    if image is None and text is None:
        raise typer.BadParameter("neither --image nor --text; allowed: at least one of image, text")
    parts: dict[str, bytes | str] = {}
    if image is not None:
        parts["image"] = image.read_bytes()
    if text is not None:
        parts["text"] = text
    predictor = open_bundle(bundle)
    if top_k is not None and not predictor.description.labels:
        raise ModelError(f"top-k: {top_k}; allowed: nothing, as this model answers with a number and not with labels")
    (prediction,) = predictor.predict([predictor.prepare(parts)])
    answer = Classification.of(Outcome(prediction, predictor.description), Options(top_k=top_k))
    if as_json:
        show(answer.model_dump_json(exclude_none=True))
    else:
        show_answer(answer)


@command(
    commands,
    "polymodal score bundles/things new.csv --out scores.parquet",
    "polymodal score illustrations examples/manifest.csv --out scores.csv --strict --json",
)
def score(
    bundle: BundleArgument,
    manifest: ManifestArgument,
    out: Annotated[
        Path, typer.Option(help="File to write: .csv, .jsonl or .parquet; OUT.part holds what is in progress.")
    ],
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew: drop OUT.part, and replace OUT if it is there.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help=f"Exit with code {BAD_ROWS} when a row is bad.")] = False,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Score every row of a manifest; labels are not needed. The same command goes on from where it was interrupted.

    Columns: id, label (the best), score, score_LABEL for every label, error; a multi-label model has its selected labels with |
    between them and no score, a regression value, low and high. A row that can't be read has nothing but an error.
    """
    from app.terminal import show_bad_rows, show_warnings, watched
    from model.evaluation import score as run

    predictor = open_bundle(bundle)
    scored = run(
        predictor,
        manifest,
        out,
        restart=restart,
        workers=workers,
        watch=watched,
        warn=show_warnings,
        roots=root or (),
    )
    if as_json:
        errors = [{"id": identifier, "problem": problem} for identifier, problem in scored.errors]
        counts = {"rows": scored.rows, "resumed": scored.resumed, "failed": scored.failed}
        print_json({"out": str(out), **counts, "errors": errors, "warnings": list(scored.warnings)})
    resumed = f", {scored.resumed:,} of them earlier" if scored.resumed else ""
    say(f"{out}: {scored.rows:,} rows{resumed}, {scored.failed:,} with an error")
    show_bad_rows(scored.faults, scored.failed)
    if strict and scored.failed:
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
    """Measure a bundle on a manifest, given each set of modalities: the whole, each label, and the worst mistakes.

    Rows that can't be read, or whose label the bundle doesn't know, are listed and left out.
    """
    from app.terminal import show_bad_rows, show_evaluation, show_warnings, watched
    from model.evaluation import evaluate as run

    if out:
        from model.evaluation.folder import write_folder  # before the work: it needs a package that may be missing
    predictor = open_bundle(bundle)
    evaluation = run(
        predictor,
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
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; BUNDLE itself replaces it.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="What the bundle was trained on; without it there are no graphs in 8 bits.", exists=True),
    ] = None,
    test: Annotated[bool, typer.Option(help="Measure 8 bits on the test part too.")] = True,
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Export a bundle's graphs anew: in float32 and, where hardly anything is lost by it, in 8 bits.

    Encoders are quantised as far as no set of inputs loses more than 0.005 of accuracy (several labels: of mean average precision;
    a number: of R²) 0.01 of calibration or 0.02 nats of likelihood on the validation part. What was tried stands in report.json.
    """
    from model.training import export as run

    work = out.with_name(out.name + ".run") / "examples"
    predictor = run(
        bundle_folder(bundle),
        out,
        source=manifest,
        work=work,
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
    say(f"{out}: bundle {description.digest}, runtime {description.runtime}")


@command(
    commands,
    "polymodal remeasure bundles/things --manifest things.csv --out bundles/things",
    "polymodal remeasure bundles/things --manifest things.csv --out bundles/things-2 --json",
)
def remeasure(
    bundle: BundleArgument,
    manifest: Annotated[Path, typer.Option(help="What the bundle was trained on.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; BUNDLE itself replaces it.")],
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    as_json: AsJson = False,
    workers: Workers = CPUS,
    root: Roots = None,
) -> None:
    """Add to a bundle's report what an older release did not measure, such as the confusion matrix.

    Figures that the report has stay as they are, and so do weights, graphs and calibration.
    """
    from model.training import remeasure as run

    work = out.with_name(out.name + ".run") / "examples"
    added = run(
        bundle_folder(bundle), out, source=manifest, work=work, split_seed=split_seed, workers=workers, roots=root or ()
    )
    if as_json:
        print_json({"bundle": str(out), "added": list(added)})
    say(f"{out}: added {', '.join(added) or 'nothing'}")


@command(
    commands,
    "polymodal card",
    "polymodal card bundles/things > card.md",
    "polymodal card bundles/things --json",
)
def card(bundle: BundleArgument = EMBEDDED, as_json: AsJson = False) -> None:
    """Print a bundle's model card: what it does, how well, and on what it was trained.

    With --json it prints what GET /v1/models/NAME answers, with the service's default limits.
    """
    from app.schemas import ModelDetail
    from app.settings import load_settings
    from app.terminal import show_card

    description = open_bundle(bundle).description
    if as_json:
        show(ModelDetail.of(description, load_settings({})).model_dump_json(exclude_none=True))
    else:
        show_card(description.card)
