"""What every command does alike: examples in its help, errors as one message, exit codes, and --debug.

code   means
0      done
1      refused or failed, with a message; without one when the reader of standard output went away
2      wrong usage: an unknown option, a number out of bounds (typer's own)
3      done, but some rows are bad (`score --strict`)
70     an error of polymodal itself
130    ended by Ctrl-C
"""

import inspect
import json
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TextIO

import typer

Parameters = ParamSpec("Parameters")

FAILED: Final = 1
BAD_ROWS: Final = 3
BUG: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # what a shell reports of a program ended by Ctrl-C

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of text.")]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        help="Images may be below this folder too, also by absolute paths and paths with ..; several times for several folders.",
        exists=True,
        file_okay=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the program an error came from.")]

debugging: Final[ContextVar[bool]] = ContextVar("debugging", default=False)
"""Whether --debug was given: before the command, or after it, since nobody remembers where it belongs."""


def group(name: str, sentence: str) -> typer.Typer:
    """Commands below a name of their own; without one of them it explains itself."""
    return typer.Typer(name=name, help=sentence, no_args_is_help=True)


def command(
    commands: typer.Typer, *examples: str, name: str | None = None
) -> Callable[[Callable[Parameters, None]], Callable[Parameters, None]]:
    """Register a command, with lines that can be copied from its help."""

    def register(run: Callable[Parameters, None]) -> Callable[Parameters, None]:
        commands.command(name, epilog=listed(examples))(_explained(run))
        return run

    return register


def listed(examples: tuple[str, ...]) -> str:
    """Examples for the end of a help page, to be copied."""
    return "\n".join(["Examples:", *(f"  {each}" for each in examples)])


# Not by typer.echo, which writes UTF-8 to a stream whose encoding is ASCII.
def show(result: str) -> None:
    """Print a result on standard output."""
    _write(result, sys.stdout)


def say(message: str) -> None:
    """Print a line about what was done, or what went wrong, on standard error: standard output is for results."""
    _write(message, sys.stderr)


def _write(line: str, stream: TextIO | None) -> None:
    if stream is not None:  # closed before the start
        stream.write(f"{line}\n")
        stream.flush()


def print_json(result: object) -> None:
    """A result for machines, on one line of standard output."""
    show(json.dumps(result, ensure_ascii=False))


def _explained(run: Callable[Parameters, None]) -> Callable[..., None]:
    @wraps(run)
    def explained(*args: Any, debug: bool = False, **kwargs: Any) -> None:  # noqa: ANN401 — the command's own
        before = debugging.set(debug or debugging.get())
        try:
            run(*args, **kwargs)
        except (KeyboardInterrupt, Exception) as error:
            code, message = _told(error)
            if code is None:
                raise
            if debugging.get():
                traceback.print_exception(error, file=sys.stderr)
            if message:
                say(f"polymodal: {message}")
            raise typer.Exit(code) from error
        finally:
            debugging.reset(before)

    signature = inspect.signature(run)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    explained.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    explained.__annotations__ = {**run.__annotations__, "debug": Debug}
    return explained


def _told(error: BaseException) -> tuple[int | None, str]:
    """An exit code, None for what typer tells itself, and one message without a word of Python where a user can act on it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error)  # where the work stands
    if isinstance(error, BrokenPipeError | typer.Abort) or hasattr(
        error, "exit_code"
    ):  # a reader that has seen enough; wrong usage
        return None, ""
    if isinstance(error, ModuleNotFoundError):  # an installation that can only serve
        return FAILED, (
            f"the package {error.name} is not installed; `make setup`, or pip install 'polymodal[train]', brings it"
        )
    if isinstance(error, OSError) and error.strerror:
        return FAILED, error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"

    from app.keys import KeysError
    from model import ModelError

    if isinstance(error, KeysError | ModelError):
        return FAILED, str(error)
    where = "above" if debugging.get() else "told by --debug"
    return BUG, f"an error of polymodal itself ({type(error).__name__}: {error}); where it happened is {where}"
