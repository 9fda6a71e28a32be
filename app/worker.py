"""A worker process: `python -m app.worker DESCRIPTOR`, started by app.workers, at the other end of that socket.

It loads the models, says what they are, and answers batches one after the other until the socket is closed.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Final

import structlog

from app import wire
from app.engine import Engine
from app.logs import configure_logging
from model import BundleError

NICENESS: Final = 7
"""Of a worker above that of the service: what comes in is read, queued or refused in time under any load."""
OOM_SCORE: Final = "500"
"""Of 1,000: when memory runs out, Linux ends the process that weighs most, and a worker can be started again."""
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

log = structlog.get_logger(__name__)


def serve(channel: socket.socket) -> None:
    """Answer until the other end is closed."""
    with channel, channel.makefile("rb") as stream:
        if (message := _next(stream)) is None:
            return
        orders = wire.read_orders(message)
        configure_logging(orders.settings)
        structlog.contextvars.bind_contextvars(worker=orders.number)
        try:
            engine = Engine.load(orders.settings)
            models = engine.warm_up()
        except BundleError as problem:
            channel.sendall(wire.begun(wire.Refused(str(problem))))
            return
        channel.sendall(wire.begun(models))
        messages: SimpleQueue[bytes | None] = SimpleQueue()
        speaking = threading.Lock()

        def say(message: bytes) -> None:
            with speaking:
                channel.sendall(message)

        # The next batch is read while this one is computed: it may be larger than what the socket holds.
        threading.Thread(target=_read, args=(stream, messages, say), name="reading", daemon=True).start()
        while (message := messages.get()) is not None:
            say(wire.framed_sign(wire.BEGINS))
            say(_reply(engine, message))


def _read(stream: BinaryIO, messages: "SimpleQueue[bytes | None]", say: Callable[[bytes], None]) -> None:
    """At most as many batches as the service sends before it has an answer; None at the end. Gives signs of life meanwhile."""
    message: bytes | None = b""
    while message is not None:
        message = _next(stream)
        if message != wire.SIGN_OF_LIFE:
            messages.put(message)
            continue
        try:
            say(wire.framed_sign(wire.SIGN_OF_LIFE))
        except OSError:
            message = None  # the service is gone
            messages.put(message)


def _reply(engine: Engine, message: bytes) -> bytes:
    try:
        return wire.answered(engine.compute(*wire.read_batch(message)))
    except Exception as problem:
        log.warning("computing_failed", exc_info=problem)
        return wire.answered(wire.Failed(type(problem).__name__))


def _next(stream: BinaryIO) -> bytes | None:
    """The next message; None at the end."""
    head = stream.read(wire.LENGTH.size)
    if len(head) < wire.LENGTH.size:
        return None
    (length,) = wire.LENGTH.unpack(head)
    message = stream.read(length)
    return message if len(message) == length else None


def _leave_with_parent() -> None:
    """Die with the service, also when it is killed while a batch hangs. Elsewhere than on Linux, after the batch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_the_first_to_go() -> None:
    if sys.platform == "linux":
        try:
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
        except OSError as problem:  # a sandbox without it
            log.debug("oom_score_stays", problem=str(problem))


def main() -> None:
    """Serve at the descriptor that the command line names."""
    _leave_with_parent()
    _be_the_first_to_go()
    os.nice(NICENESS)
    for each in (signal.SIGTERM, signal.SIGINT):  # the service drains, and closes the socket when it is done
        signal.signal(each, signal.SIG_IGN)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except (BrokenPipeError, ConnectionResetError):
        return  # the service is gone


if __name__ == "__main__":
    main()
