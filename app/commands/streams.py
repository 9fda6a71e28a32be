"""Standard output and standard error of the command line: characters of any encoding, a closed pipe, a full disk.

`app.cli.main` configures them once, as rich's tables and typer's help are written to them as well.
"""

import codecs
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from polymodal.app.commands.command import FAILED, report

_ESCAPED: Final = "polymodal.escaped"


def guarded(run: Callable[[], None]) -> int:
    r"""Run a command line and return its exit code.

    Characters that a stream's encoding lacks are written as in JSON, such as \u2026, so that JSON stays JSON. If a stream cannot
    be written, the exit code is FAILED: without a message if its reader closed it, otherwise with one.
    """
    codecs.register_error(_ESCAPED, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except OSError as problem:
        code = _report(problem)
    # Flush now: at the interpreter's end a failure would print a traceback and exit with 120. These are the original streams, as
    # typer replaces them after a failure.
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError as problem:
            code = _report(problem)
            _discard(stream)
    return code


def _escape(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return json.dumps(problem.object[problem.start : problem.end])[1:-1], problem.end


def _report(problem: OSError) -> int:
    """Print a message, unless the reader closed the stream, and return the exit code."""
    if not isinstance(problem, BrokenPipeError):
        with suppress(OSError):  # standard error may be what cannot be written
            report(f"polymodal: standard output: {problem.strerror or problem}")
    return FAILED


def _discard(stream: TextIO | None) -> None:
    """Redirect a stream to /dev/null, so that the rest of its buffer is discarded."""
    if stream is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
