"""Where log lines go and how they look; uvicorn's own lines included.

A log must not stop what it tells of: a line that can't be written now is counted and lost, whether the disk is full, the reader
gone or asleep, or standard output was never open.
"""

import io
import logging
import os
import select
import sys
from typing import Final

import structlog
from structlog.typing import Processor

from app.settings import Settings

AT_ONCE: Final = 4096
"""Bytes that a pipe takes without waiting when it takes any: PIPE_BUF of Linux, a page."""


class Output:
    """Standard output, whatever it is at the moment."""

    def __init__(self) -> None:
        self.lost = 0
        """Lines that could not be written, or not to their end."""
        self._cut = False

    def line(self, message: str) -> None:
        """One line, in one call unless it is long, so that threads don't mix theirs. Never waits, never raises."""
        try:
            self._write(f"{message}\n")
        except (OSError, ValueError):  # ValueError: closed
            self.lost += 1

    def _write(self, line: str) -> None:
        stream = sys.stdout
        if stream is None:
            raise ValueError("standard output was closed before the start")
        try:
            descriptor = stream.fileno()
        except io.UnsupportedOperation:  # in memory
            stream.write(line)
            return
        # Past the stream's buffer: what could not be written would stay in it, and be tried again at exit, which then fails.
        rest = memoryview((f"\n{line}" if self._cut else line).encode(stream.encoding, "backslashreplace"))
        while rest:
            _check_room(descriptor)
            written = os.write(descriptor, rest[:AT_ONCE])
            rest = rest[written:]
            self._cut = len(rest) > 0


def _check_room(descriptor: int) -> None:
    """Raise BlockingIOError when writing would wait for a reader."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError("nobody reads standard output")


output: Final = Output()


class _Writer:
    """Writes lines, and knows whose they are."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """One line."""
        output.line(message)

    debug = info = warning = error = critical = exception = msg


class _Handler(logging.Handler):
    """The same for the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one line."""
        output.line(self.format(record))


def configure_logging(settings: Settings) -> None:
    """Write everything to standard output, one line per event. For the process that serves, once."""
    _open_descriptors()
    terminal = sys.stdout is not None and sys.stdout.isatty()
    as_text = settings.log_format == "console" or (settings.log_format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [
            # Plain tracebacks: the decorated ones show local variables, and with them what clients sent.
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        ]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    # Straight to the stream: through the standard library's loggers a line costs twice as much, and every request writes one.
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=_Writer,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's broken form is no warning of ours


def _open_descriptors() -> None:
    """Give those of the standard streams that were closed to nothing: the next socket would get their number, and with it what a
    library prints there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
