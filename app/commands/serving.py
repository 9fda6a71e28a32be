"""`polymodal serve | tune`: run the service, and measure the best number of workers for this machine."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from polymodal.app.commands.bundles import EMBEDDED, BundleArgument, bundle_folder
from polymodal.app.commands.command import CPUS, FAILED, AsJson, command, print_json, report

PORT_NOT_OPENED: Final = 3  # uvicorn.main.STARTUP_FAILURE

_BUNDLES: Final = (
    "Folder of a bundle, NAME=FOLDER, or illustrations: the embedded one. Repeatable; the first is the default model."
)
_ADDRESS: Final = "Address to listen on; 0.0.0.0 for all networks of the machine."
_WORKERS: Final = "Number of processes that compute; 0: a thread of the service."

commands = typer.Typer()


def _setting(field: str, sentence: str, default: str, **options: Any) -> Any:  # noqa: ANN401 — typer's own
    """Return the option of `serve` for a setting."""
    return typer.Option(help=f"{sentence} Instead of POLYMODAL_{field.upper()}.", show_default=default, **options)


@command(
    commands,
    "polymodal serve",
    "polymodal serve --bundle bundles/things --port 8080",
    "polymodal serve --bundle things=bundles/things-7 --bundle illustrations",
    "POLYMODAL_API_KEYS_FILE=keys.json polymodal serve --host 0.0.0.0",
)
def serve(
    bundle: Annotated[list[str] | None, _setting("bundles", _BUNDLES, "illustrations", metavar="BUNDLE")] = None,
    host: Annotated[str | None, _setting("host", _ADDRESS, "127.0.0.1", metavar="ADDRESS")] = None,
    port: Annotated[int | None, _setting("port", "Port to listen on; 0: a free one.", "8000", min=0, max=65535)] = None,
    workers: Annotated[
        int | None, _setting("workers", _WORKERS, "one for each core, at most 8", min=0, max=256)
    ] = None,
) -> None:
    """Serve trained bundles over HTTP until Ctrl-C: a page at /, the API below /v1.

    Every setting is an environment variable POLYMODAL_… (.env.example lists them all); an option has precedence.
    """
    from polymodal.app.main import serve as run
    from polymodal.app.settings import SettingsError, load_settings, variable

    arguments = {
        "bundles": ("--bundle", ",".join(bundle) if bundle else None),
        "host": ("--host", host),
        "port": ("--port", None if port is None else str(port)),
        "workers": ("--workers", None if workers is None else str(workers)),
    }
    options = {variable(field): (option, value) for field, (option, value) in arguments.items() if value is not None}
    try:
        settings = load_settings({**os.environ, **{name: value for name, (_, value) in options.items()}})
    except SettingsError as error:
        for problem in error.problems:
            name, equals, rest = problem.partition("=")
            report(f"polymodal: {f'{options[name][0]} {rest}' if equals and name in options else problem}")
        raise typer.Exit(FAILED) from error
    try:
        run(settings)
    except SystemExit as ended:
        if ended.code != PORT_NOT_OPENED:
            raise
        from polymodal.app.doctor import port as ports

        result = ports.check(settings.host, settings.port)
        report(f"polymodal: {result.check}: {result.found}" + (f"; {result.advice}" if result.advice else ""))
        raise typer.Exit(FAILED) from ended


@command(
    commands,
    "polymodal tune bundles/things --out plan.json && POLYMODAL_PLAN=plan.json polymodal serve --bundle bundles/things",
    "polymodal tune --seconds 5 --json",
)
def tune(
    bundle: BundleArgument = EMBEDDED,
    out: Annotated[Path, typer.Option(help="File to write the best plan to.", dir_okay=False)] = Path("plan.json"),
    runtime: Annotated[str, typer.Option(help="auto, onnx-int8, onnx or torch, as for serving.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of a measurement; each plan has two.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Measure the best numbers of workers, threads and items per batch for a bundle on this machine, and write the plan.

    The machine should be idle otherwise. The setting POLYMODAL_PLAN names the file to the service. With --json it prints the file.
    """
    from polymodal.app.commands.terminal import show_plan
    from polymodal.app.cpus import plans
    from polymodal.app.serving import tune as tuning
    from polymodal.app.settings import BundleSource
    from polymodal.model import load_bundle

    folder = bundle_folder(bundle)
    model = load_bundle(folder, runtime=runtime, threads=1)
    model.warm_up()
    source, inputs = BundleSource(model.description.name, folder), tuning.examples(model)
    report_plan = (lambda _: None) if as_json else show_plan
    measured = tuning.measure(source, runtime, plans(CPUS), inputs, seconds, report_plan)
    best = tuning.best(measured)
    document = tuning.document(best, measured, bundle=model.description.digest, runtime=model.description.runtime)
    tuning.write_plan(out, document)
    report(f"{out}:")
    if as_json:
        print_json(document)
    else:
        show_plan(best)
