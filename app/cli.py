"""The command line `polymodal`; its commands are in app/commands/, and import heavy packages when they run.

Exit codes are in app/commands/command.py, and for users in docs/commands.md.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from polymodal.app.commands import bundles, data, doctor, fetch, index, keys, serving, similarity, training, transcribe
from polymodal.app.commands.command import Debug, debugging, listed, show
from polymodal.app.commands.streams import guarded

_EXAMPLES = (
    "polymodal serve",
    "polymodal predict --image examples/boat.png --text 'a sailing dinghy'",
    "polymodal train things.csv --out bundles/things",
    "polymodal doctor",
)

app = typer.Typer(
    name="polymodal",
    help="Score and embed items with any subset of their inputs. `polymodal COMMAND --help` explains a command, with examples.",
    epilog=listed(_EXAMPLES),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _commands in (
    serving.commands,
    bundles.commands,
    similarity.commands,
    transcribe.commands,
    training.commands,
    doctor.commands,
):
    app.add_typer(_commands)
for _group in (data.commands, fetch.commands, index.commands, keys.commands):
    app.add_typer(_group)


def _print_version(requested: bool) -> None:
    if requested:
        try:
            show(f"polymodal {version('polymodal')}")
        except PackageNotFoundError:  # run from a folder that was never installed
            show("polymodal, not installed")
        raise typer.Exit


@app.callback()
def polymodal(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """Options before a command."""
    debugging.set(debug)


def main() -> None:
    """Entry point of the console command."""
    sys.exit(guarded(app))
