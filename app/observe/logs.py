"""Destination and format of log lines, uvicorn's own lines included.

Logging never blocks or fails the service: a line that can't be written at once is counted and lost, for example when the disk is
full, the reader is slow or gone, or standard output is closed.
"""

import io
import logging
import os
import select
import sys
from typing import Final

import structlog
from structlog.typing import Processor

from polymodal.app.settings import Settings

AT_ONCE: Final = 4096
"""Bytes that a writable pipe accepts without blocking: PIPE_BUF of Linux, a page."""


class Output:
    """Standard output, looked up for each line, as `sys.stdout` may be replaced."""

    def __init__(self) -> None:
        self.lost = 0
        """Lines that were not written completely."""
        self._cut = False

    def line(self, message: str) -> None:
        """Write a line, in one call unless it is long, so that lines of threads don't mix. Never blocks, never raises."""
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
        # Without the stream's buffer, which would keep what could not be written, and fail again at exit.
        rest = memoryview((f"\n{line}" if self._cut else line).encode(stream.encoding, "backslashreplace"))
        while rest:
            _check_writable(descriptor)
            written = os.write(descriptor, rest[:AT_ONCE])
            rest = rest[written:]
            self._cut = len(rest) > 0


def _check_writable(descriptor: int) -> None:
    """Raise BlockingIOError when writing would block."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError("standard output is not read")


output: Final = Output()


class _Writer:
    """Structlog's logger: writes lines under the name of a module."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """Write one line."""
        output.line(message)

    debug = info = warning = error = critical = exception = msg


class _Handler(logging.Handler):
    """Handler of the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        output.line(self.format(record))


def configure_logging(settings: Settings) -> None:
    """Log to standard output, one line per event. To be called once in each process."""
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
    # Not through the standard library's loggers, which double the cost of a line, and every request writes one.
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
    """Open closed standard streams as /dev/null: otherwise the next socket gets their descriptor, and a library's output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
