"""Where log lines go and how they look; uvicorn's own lines included."""

import logging
import sys

import structlog
from structlog.typing import Processor

from app.settings import Settings


class _Writer:
    """Writes lines to whatever standard output is at the moment, and knows whose they are."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """One line, in one call, so that threads don't mix theirs."""
        sys.stdout.write(message + "\n")
        sys.stdout.flush()

    debug = info = warning = error = critical = exception = msg


def configure_logging(settings: Settings) -> None:
    """Write everything to standard output, one line per event. For the process that serves, once."""
    as_text = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [
            # Plain tracebacks: the decorated ones show local variables, and with them what clients sent.
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's broken form is no warning of ours
