"""The command line: `polymodal serve | keys | tune | train | check | evaluate | export | remeasure | …`.

Thin; whatever is heavy is imported inside its command. Exit codes: 0 done; 1 refused or failed, with a message; 2 wrong
usage; 3 done, but some rows are bad (`score --strict`); 130 ended by Ctrl-C.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

import typer

from app.cpus import available_cpus
from app.keys import KeysError, digest, make_record, new_key, read_keys, write_keys
from app.settings import embedded_bundle
from model import ModelError, Predictor, load_bundle

Parameters = ParamSpec("Parameters")

BundleArgument = Annotated[str, typer.Argument(help="Folder of a bundle, or illustrations: the embedded one.")]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]

CORES = os.cpu_count() or 1
CACHE = Path.home() / ".cache" / "polymodal"
INTERRUPTED = 130  # what a shell reports of a program ended by Ctrl-C
BAD_ROWS = 3
CPUS = available_cpus()

app = typer.Typer(
    name="polymodal",
    help="Classify an image with its text; either may be missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Make a data set.", no_args_is_help=True)
app.add_typer(data, name="data")
keys = typer.Typer(help="Make, list and take back API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")


def bundle_folder(bundle: str) -> Path:
    """A bundle's folder, or where there is none that of the embedded one of this name."""
    path = Path(bundle).expanduser()
    embedded = embedded_bundle(bundle).path
    return embedded if not path.exists() and embedded.is_dir() else path


def explained(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Errors that a user can act on become one message and exit code 1, without a traceback."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ModelError, KeysError) as problem:
            typer.echo(f"polymodal: {problem}", err=True)
            raise typer.Exit(1) from problem
        except ModuleNotFoundError as missing:  # an installation that can only serve
            wanted = "`make setup`, or pip install 'polymodal[train]', brings it"
            typer.echo(f"polymodal: the package {missing.name} is not installed; {wanted}", err=True)
            raise typer.Exit(1) from missing
        except OSError as problem:
            if problem.filename is None:
                raise
            typer.echo(f"polymodal: {problem.filename}: {problem.strerror}", err=True)
            raise typer.Exit(1) from problem
        except KeyboardInterrupt as interrupt:
            if str(interrupt):  # where the work stands
                typer.echo(f"polymodal: {interrupt}", err=True)
            raise typer.Exit(INTERRUPTED) from interrupt

    return run


@app.command()
def serve() -> None:
    """Serve a trained bundle over HTTP; every setting is an environment variable POLYMODAL_… (see .env.example)."""
    from app.main import serve as run
    from app.settings import SettingsError, load_settings

    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(f"polymodal: {problem}", err=True)
        raise typer.Exit(1) from error
    run(settings)


@app.command(
    epilog="Example: polymodal tune bundles/things --out plan.json && POLYMODAL_PLAN=plan.json polymodal serve"
)
@explained
def tune(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="File to write the best plan to.", dir_okay=False)] = Path("plan.json"),
    runtime: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch, as it will be served.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="To measure each plan for, twice.")] = 2.0,
) -> None:
    """Measure which numbers of workers, threads and examples of a batch suit a bundle on this machine, and write down the best.

    The machine should have nothing else to do meanwhile. What is written is read by the setting POLYMODAL_PLAN.
    """
    from app import tune as tuning
    from app.cpus import plans
    from app.settings import BundleSource
    from app.terminal import show_plan

    folder = bundle_folder(bundle)
    predictor = load_bundle(folder, runtime=runtime, threads=1)
    predictor.warm_up()
    source, asked = BundleSource(predictor.description.name, folder), tuning.examples(predictor)
    found = tuning.measure(source, runtime, plans(CPUS), asked, seconds, show_plan)
    chosen = tuning.best(found)
    description = predictor.description
    tuning.write_plan(out, chosen, found, bundle=description.digest, runtime=description.runtime)
    typer.echo(f"{out}: ", nl=False, err=True)
    show_plan(chosen)


@app.command()
@explained
def train(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV, JSONL, Parquet) or a folder with one.", exists=True)],
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
) -> None:
    """Train on a manifest of (image, text, label) and write a bundle that `polymodal serve` serves."""
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
    )
    typer.echo(predictor.description.card)
    typer.echo(f"{out}: bundle {predictor.description.digest}", err=True)


@app.command()
@explained
def check(
    manifest: Annotated[Path, typer.Argument(help="Manifest (CSV, JSONL, Parquet) or a folder with one.", exists=True)],
    task: Annotated[
        str, typer.Option(help="What labels are: single-label, multi-label (several, with | between) or regression.")
    ] = "single-label",
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode pictures.")] = CORES,
) -> None:
    """Say what is wrong or suspicious with a manifest, without training; exit code 1 if something is wrong."""
    from model.manifest import task_name
    from model.training.checks import inspect

    inspection = inspect(manifest, task_name(task), split_seed, workers)
    typer.echo(inspection.summary())
    if inspection.findings.errors:
        raise typer.Exit(1)


ManifestArgument = Annotated[Path, typer.Argument(help="Manifest (CSV, JSONL, Parquet) or a folder with one.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode pictures.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of tables.")]


def open_bundle(bundle: str) -> Predictor:
    """A bundle that is warmed up. Raises BundleError."""
    predictor = load_bundle(bundle_folder(bundle), threads=CPUS)
    predictor.warm_up()
    return predictor


@app.command(
    epilog="Example: polymodal evaluate bundles/things things.csv --split validation --out report; then open report/index.html."
)
@explained
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
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json, the figures and index.html.")] = None,
    as_json: AsJson = False,
    workers: Workers = CPUS,
) -> None:
    """Measure a bundle on a manifest, given each set of modalities: the whole, each label, and the worst mistakes.

    Rows that can't be read, or whose label the bundle doesn't know, are listed and left out.
    """
    from app.terminal import show_bad_rows, show_evaluation, watched
    from model.evaluation import evaluate as run

    if out:
        from model.evaluation.folder import write_folder  # before the work: it needs a package that may be missing
    evaluation = run(open_bundle(bundle), manifest, split=split, splits=splits, workers=workers, watch=watched)
    show_bad_rows([(each.id, each.problem) for each in evaluation.skipped], len(evaluation.skipped))
    if out:
        write_folder(evaluation, out)
    if as_json:
        typer.echo(json.dumps(evaluation.as_json(), ensure_ascii=False))
    else:
        show_evaluation(evaluation)


@app.command(epilog="Example: polymodal export bundles/things --manifest things.csv --out bundles/things-int8")
@explained
def export(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; BUNDLE itself replaces it.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="What the bundle was trained on; without it there are no graphs in 8 bits.", exists=True),
    ] = None,
    test: Annotated[bool, typer.Option(help="Measure 8 bits on the test part too.")] = True,
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    workers: Workers = CPUS,
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
    )
    for line in (line for line in predictor.description.card.splitlines() if line.startswith("On a CPU, encoders")):
        typer.echo(line)
    typer.echo(f"{out}: bundle {predictor.description.digest}, runtime {predictor.description.runtime}", err=True)


@app.command(epilog="Example: polymodal remeasure bundles/things things.csv --out bundles/things")
@explained
def remeasure(
    bundle: BundleArgument,
    manifest: Annotated[Path, typer.Argument(help="What the bundle was trained on.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to; BUNDLE itself replaces it.")],
    split_seed: Annotated[int, typer.Option(help="Of the parts, if the manifest has no column split.")] = 0,
    workers: Workers = CPUS,
) -> None:
    """Add to a bundle's report what an older release did not measure, such as the confusion matrix.

    Figures that the report has stay as they are, and so do weights, graphs and calibration.
    """
    from model.training import remeasure as run

    work = out.with_name(out.name + ".run") / "examples"
    added = run(bundle_folder(bundle), out, source=manifest, work=work, split_seed=split_seed, workers=workers)
    typer.echo(f"{out}: added {', '.join(added) or 'nothing'}", err=True)


@app.command(epilog="Example: polymodal predict illustrations --image boat.png --text 'a sailing dinghy' --top-k 3")
@explained
def predict(
    bundle: BundleArgument,
    image: Annotated[Path | None, typer.Option(help="A picture.", exists=True, dir_okay=False)] = None,
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
        typer.echo(answer.model_dump_json(exclude_none=True))
    else:
        show_answer(answer)


@app.command(epilog="Example: polymodal score bundles/things new.csv --out scores.parquet")
@explained
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
    workers: Workers = CPUS,
) -> None:
    """Score every row of a manifest; labels are not needed. The same command goes on from where it was interrupted.

    Columns: id, label (the best), score, score_LABEL for every label, error; a multi-label model has its selected labels with |
    between them and no score, a regression value, low and high. A row that can't be read has nothing but an error.
    """
    from app.terminal import show_bad_rows, watched
    from model.evaluation import score as run

    scored = run(open_bundle(bundle), manifest, out, restart=restart, workers=workers, watch=watched)
    resumed = f", {scored.resumed:,} of them earlier" if scored.resumed else ""
    typer.echo(f"{out}: {scored.rows:,} rows{resumed}, {scored.failed:,} with an error", err=True)
    show_bad_rows(scored.errors, scored.failed)
    if strict and scored.failed:
        raise typer.Exit(BAD_ROWS)


@app.command(epilog="Example: polymodal card illustrations > card.md")
@explained
def card(bundle: BundleArgument) -> None:
    """Print a bundle's model card: what it does, how well, and on what it was trained."""
    from app.terminal import show_card

    show_card(open_bundle(bundle).description.card)


@data.command()
@explained
def shapes(
    out: Annotated[Path, typer.Option(help="Folder for images/ and manifest.csv.")] = Path("data/shapes"),
    rows: Annotated[int, typer.Option(min=8, max=100_000, help="How many drawings.")] = 300,
    seed: Annotated[int, typer.Option(help="Other drawings.")] = 0,
    groups: Annotated[bool, typer.Option("--groups", help="Draw each thing twice, with a column group.")] = False,
    splits: Annotated[bool, typer.Option("--splits", help="Add a column split.")] = False,
) -> None:
    """Draw a toy data set in a moment: coloured shapes whose label takes both picture and caption."""
    from model.training.sources.shapes import build

    typer.echo(build(out, rows=rows, seed=seed, groups=groups, splits=splits))


@data.command()
@explained
def illustrations(
    out: Annotated[Path, typer.Option(help="Folder for images/ and manifest.csv.")] = Path("data/illustrations"),
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path("data/cache"),
) -> None:
    """Build the default data set: open drawings with captions, ten labels (about 350 MB of downloads)."""
    from model.training.sources.illustrations import build

    build(out, cache)


KeysPath = Annotated[
    Path, typer.Option("--file", help="File of keys; POLYMODAL_API_KEYS_FILE names it to the service.", dir_okay=False)
]


@keys.command(epilog="Example: polymodal keys add shop --file keys.json --scope classify --expires 90d")
@explained
def add(
    name: Annotated[str, typer.Argument(help="Whose it is; stands in the log beside each request made with it.")],
    file: KeysPath,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="classify, models, metrics or docs; once for each (default: classify and models)."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="In so many days (90d), or on a day (2027-01-31, UTC).")] = None,
) -> None:
    """Make a key, and print it once: the file keeps only its hash. A running service knows it within a second."""
    key = new_key()
    record = make_record(name, digest(key), scope or ["classify", "models"], expires)
    present = read_keys(file) if file.exists() else ()
    if any(each.name == name for each in present):
        raise KeysError(f"{file}: has a key named {name}; allowed: another name, or `polymodal keys remove` first")
    write_keys(file, (*present, record))
    typer.echo(key)
    typer.echo(f"{file}: {name} opens {', '.join(sorted(record.scopes))}; the key is not shown again", err=True)


@keys.command("list", epilog="Example: polymodal keys list --file keys.json")
@explained
def list_keys(file: KeysPath) -> None:
    """List names, scopes and times of the keys in a file."""
    from app.terminal import show_keys

    show_keys(read_keys(file))


@keys.command(epilog="Example: polymodal keys remove shop --file keys.json")
@explained
def remove(name: Annotated[str, typer.Argument(help="Of the key.")], file: KeysPath) -> None:
    """Take a key back: a running service refuses it within a second."""
    present = read_keys(file)
    if all(each.name != name for each in present):
        names = ", ".join(each.name for each in present) or "none, as the file has no keys"
        raise KeysError(f"{file}: no key named {name!r}; allowed: {names}")
    write_keys(file, (each for each in present if each.name != name))


def main() -> None:
    """Entry point of the console command."""
    sys.exit(app())
