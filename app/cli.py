"""The command line: what `polymodal` is, and its commands, which lie in app/commands/ and import what is heavy when they run.

Exit codes stand in app/commands/command.py, and for users in docs/commands.md.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from app.commands import bundles, data, doctor, keys, serving, training
from app.commands.command import Debug, debugging, listed, show
from app.streams import guarded

_EXAMPLES = (
    "polymodal serve",
    "polymodal predict --image examples/boat.png --text 'a sailing dinghy'",
    "polymodal train things.csv --out bundles/things",
    "polymodal doctor",
)

app = typer.Typer(
    name="polymodal",
    help="Classify an image with its text; either may be missing. `polymodal COMMAND --help` explains a command, with examples.",
    epilog=listed(_EXAMPLES),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _commands in (serving.commands, bundles.commands, training.commands, doctor.commands):
    app.add_typer(_commands)
for _group in (data.commands, keys.commands):
    app.add_typer(_group)


def _tell_version(asked: bool) -> None:
    if asked:
        try:
            show(f"polymodal {version('polymodal')}")
        except PackageNotFoundError:  # run from a folder that was never installed
            show("polymodal, not installed")
        raise typer.Exit


@app.callback()
def polymodal(
    tell_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """What stands before a command."""
    debugging.set(debug)


def main() -> None:
    """Entry point of the console command."""
    sys.exit(guarded(app))
