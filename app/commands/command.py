"""What all commands have in common: examples in the help, errors as one message, exit codes, and --debug.

code   means
0      done
1      rejected or failed, with a message; without one when the reader of standard output has closed it
2      wrong usage: an unknown option, a number out of bounds (typer's own)
3      done, but some rows are bad (`score --strict`)
70     an error of polymodal itself
130    ended by Ctrl-C
"""

import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TextIO

import typer

from polymodal.cores import available_cpus
from polymodal.model import MODALITIES

Parameters = ParamSpec("Parameters")

FAILED: Final = 1
BAD_ROWS: Final = 3
BUG: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # what a shell reports of a program ended by Ctrl-C

CPUS: Final = available_cpus()
SUFFIXES: Final = {suffix: modality.name for modality in MODALITIES.values() for suffix in modality.suffixes}
"""Modalities of files by suffix."""
WORDS: Final = next((modality.name for modality in MODALITIES.values() if modality.textual), None)
"""The modality of an argument that is no file."""

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of text.")]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        help="Files may be below this folder too, also by absolute paths and paths with ..; several times for several folders.",
        exists=True,
        file_okay=False,
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode files.")]
SplitSeed = Annotated[int, typer.Option(help="Of the splits, if the manifest has no column split.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the program an error came from.")]

debugging: Final[ContextVar[bool]] = ContextVar("debugging", default=False)
"""Whether --debug is set, before or after the command's name."""


def group(name: str, sentence: str) -> typer.Typer:
    """Return a group of commands, which shows its help when it is called without a command."""
    return typer.Typer(name=name, help=sentence, no_args_is_help=True)


def command(
    commands: typer.Typer, *examples: str, name: str | None = None
) -> Callable[[Callable[Parameters, None]], Callable[Parameters, None]]:
    """Register a command, with example lines for its help."""

    def register(run: Callable[Parameters, None]) -> Callable[Parameters, None]:
        commands.command(name, epilog=listed(examples))(_with_messages(run))
        return run

    return register


def for_each_modality(
    parameter: str, options: Mapping[str, Any], suffix: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a parameter of a command, a mapping by modality, by one option for each modality.

    `options` has their annotations; an option's name is its modality's with `suffix`. The command gets the options that are set.
    """
    names = {modality: f"{modality}{suffix}" for modality in options}

    def replace(run: Callable[..., None]) -> Callable[..., None]:
        @wraps(run)
        def collect(**values: Any) -> None:  # noqa: ANN401 — the command's own
            by_modality = {modality: values.pop(name) for modality, name in names.items()}
            run(**values, **{parameter: {name: value for name, value in by_modality.items() if value is not None}})

        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(names[modality], keyword, default=None, annotation=annotation)
            for modality, annotation in options.items()
        ]
        signature = inspect.signature(run)
        parameters: list[inspect.Parameter] = []
        for own in signature.parameters.values():
            parameters += added if own.name == parameter else [own.replace(kind=keyword)]
        collect.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        collect.__annotations__ = {option.name: option.annotation for option in parameters}
        return collect

    return replace


def listed(examples: tuple[str, ...]) -> str:
    """Return examples as the end of a help page."""
    return "\n".join(["Examples:", *(f"  {example}" for example in examples)])


# Not with typer.echo, which writes UTF-8 to a stream whose encoding is ASCII.
def show(result: str) -> None:
    """Print a result on standard output."""
    _write(result, sys.stdout)


def report(message: str) -> None:
    """Print a line about progress or a problem on standard error: standard output is for results."""
    _write(message, sys.stderr)


def _write(line: str, stream: TextIO | None) -> None:
    if stream is not None:  # None: closed before the start
        stream.write(f"{line}\n")
        stream.flush()


def print_json(result: object) -> None:
    """Print a result as JSON, on one line of standard output."""
    show(json.dumps(result, ensure_ascii=False))


def _with_messages(run: Callable[Parameters, None]) -> Callable[..., None]:
    """Return a command that turns errors into a message and an exit code, with the option --debug."""

    @wraps(run)
    def guarded(*args: Any, debug: bool = False, **kwargs: Any) -> None:  # noqa: ANN401 — the command's own
        before = debugging.set(debug or debugging.get())
        try:
            run(*args, **kwargs)
        except (KeyboardInterrupt, Exception) as error:
            code, message = _failure(error)
            if code is None:
                raise
            if debugging.get():
                traceback.print_exception(error, file=sys.stderr)
            if message:
                report(f"polymodal: {message}")
            raise typer.Exit(code) from error
        finally:
            debugging.reset(before)

    signature = inspect.signature(run)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    guarded.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    guarded.__annotations__ = {**run.__annotations__, "debug": Debug}
    return guarded


def _failure(error: BaseException) -> tuple[int | None, str]:
    """Return the exit code and the message of an error; None for an error that typer reports itself."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error)  # how far the work is
    if isinstance(error, BrokenPipeError | typer.Abort) or hasattr(error, "exit_code"):  # no reader; wrong usage
        return None, ""
    if isinstance(error, ModuleNotFoundError):  # an installation that can only serve
        return FAILED, (
            f"the package {error.name} is not installed; `make setup`, or pip install 'polymodal[train]', brings it"
        )
    if isinstance(error, OSError) and error.strerror:
        return FAILED, error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"

    from polymodal.app.access.keys import KeysError
    from polymodal.model import ModelError

    if isinstance(error, KeysError | ModelError):
        return FAILED, str(error)
    where = "above" if debugging.get() else "shown by --debug"
    return BUG, f"an error of polymodal itself ({type(error).__name__}: {error}); where it happened is {where}"
