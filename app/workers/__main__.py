"""A worker process: `python -m polymodal.app.workers DESCRIPTOR`, started by the supervisor with its end of a socket.

It loads models and computes batches, one message after the other, until the socket is closed.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Final

import structlog

from polymodal.app.observe.logs import configure_logging
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Engine
from polymodal.app.workers.memory import Trimmer
from polymodal.model import BundleError

NICENESS: Final = 7
"""Added to the niceness of the service, which must read, queue or refuse requests in time under any load."""
OOM_SCORE: Final = "500"
"""Of 1,000: out of memory, Linux should kill a worker, which can be started again, rather than the service."""
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

log = structlog.get_logger(__name__)


def serve(channel: socket.socket) -> None:
    """Handle the service's messages until it closes the socket."""
    with channel, channel.makefile("rb") as stream:
        if not (pieces := wire.receive(stream)):
            return
        init = wire.read_init(pieces)
        configure_logging(init.settings)
        structlog.contextvars.bind_contextvars(worker=init.number)
        engine = Engine(init.settings)
        messages: SimpleQueue[list[bytes] | None] = SimpleQueue()
        stopped: set[int] = set()
        sending = threading.Lock()

        def send(buffers: Sequence[wire.Buffer]) -> None:
            with sending:
                channel.sendall(b"".join(buffers))

        # Prefetch the next batch while this one is computed: it may be larger than the socket's buffer.
        threading.Thread(target=_read, args=(stream, messages, stopped, send), name="reading", daemon=True).start()
        number = 0
        while (pieces := messages.get()) is not None:
            number += 1
            send([wire.encode_signal(wire.STARTS)])
            send(_answer(engine, pieces, partial(stopped.__contains__, number)))
            stopped.discard(number)


def _read(
    stream: BinaryIO,
    messages: "SimpleQueue[list[bytes] | None]",
    stopped: set[int],
    send: Callable[[Sequence[wire.Buffer]], None],
) -> None:
    """Queue messages, and None at the end of the stream; answer heartbeats, and return freed memory at some of them.

    Numbers of abandoned requests are added to `stopped`.

    The service bounds the number of batches.
    """
    trimmer = Trimmer()
    pieces: list[bytes] | None = []
    while pieces is not None:
        pieces = wire.receive(stream)
        if pieces != []:
            if pieces and (number := wire.read_stop(pieces)) is not None:
                stopped.add(number)
            else:
                messages.put(pieces)
            continue
        try:
            send([wire.encode_signal(wire.HEARTBEAT)])
        except OSError:  # the service is gone
            messages.put(None)
            return
        trimmer.trim()


def _answer(engine: Engine, pieces: Sequence[bytes], stopped: Callable[[], bool]) -> list[wire.Buffer]:
    """Handle one message and return the reply. A failure is logged, and reported without details."""
    encode: Callable[[wire.Failed], list[wire.Buffer]] = wire.results
    try:
        message = wire.read_request(pieces)
        match message:
            case wire.Load():
                encode = wire.loaded
                return wire.loaded(engine.load(message.ref, message.source))
            case wire.Unload():
                encode = wire.done
                engine.unload(message.ref)
                return wire.done(wire.Done())
        return wire.results(engine.compute(message.ref, message.task, message.items, stopped))
    except BundleError as problem:
        return encode(wire.Failed(str(problem)))
    except Exception as problem:
        log.warning("computing_failed", exc_info=problem)
        return encode(wire.Failed(type(problem).__name__))


def _end_with_parent() -> None:
    """End with the service, also when it is killed while a batch hangs. On other systems than Linux, after the batch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prefer_as_oom_victim() -> None:
    if sys.platform == "linux":
        try:
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
        except OSError as problem:  # a sandbox without it
            log.debug("oom_score_stays", problem=str(problem))


def main() -> None:
    """Serve at the descriptor that the command line names."""
    _end_with_parent()
    _prefer_as_oom_victim()
    os.nice(NICENESS)
    for number in (signal.SIGTERM, signal.SIGINT):  # the service drains, and then closes the socket
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except (BrokenPipeError, ConnectionResetError):
        return  # the service is gone


if __name__ == "__main__":
    main()
