"""Several processes behind one port: each is a whole service of its own, and this one starts them, and starts them again.

Python computes with one thread at a time, whatever the cores; processes don't share that. The kernel hands each
connection to one of them. The parent loads no model and answers nothing.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NoReturn

import structlog

UNUSABLE: Final = 78
"""Exit code of a worker that starting again would not help: its bundle must not be served (EX_CONFIG of sysexits.h)."""
BACKLOG: Final = 2048
RESTART_PAUSE_S: Final = 1.0
"""Between a worker's death and its next life, so that one that dies at once costs little."""

log = structlog.get_logger(__name__)


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the address for all workers; port 0 takes a free one. Raises OSError."""
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as alone:  # refused where anybody listens, as sharing would not be
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)
        address = alone.getsockname()
    return _bound(socket.socket(family, kind, protocol), address)


def listen(reserved: socket.socket) -> socket.socket:
    """A worker's own socket at that address; the kernel spreads connections evenly over all of them.

    From one that all of them share, whoever wakes first would take every connection that waits.
    """
    listening = _bound(socket.socket(reserved.family, reserved.type, reserved.proto), reserved.getsockname())
    listening.listen(BACKLOG)
    return listening


def _bound(unbound: socket.socket, address: Any) -> socket.socket:  # noqa: ANN401 — as many kinds as families
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    unbound.bind(address)
    return unbound


class Once:
    """Tells the first of several processes that asks from the others; make it before they are forked."""

    def __init__(self) -> None:
        self._token, put = os.pipe()
        os.write(put, b"1")
        os.close(put)

    def first(self) -> bool:
        """Whether nobody has asked before."""
        return os.read(self._token, 1) == b"1"


@dataclass(frozen=True, slots=True)
class Life:
    """What a worker is told when it begins."""

    number: int
    restarts: int
    """Earlier lives of this worker."""
    parent: int
    """A descriptor that can be read when the parent is gone: nobody would stop the worker any more."""


def supervise(count: int, work: Callable[[Life], int]) -> int:
    """Keep `count` workers alive until a signal ends them all; the exit code.

    A worker runs `work` and exits with what that returns. SIGTERM and SIGINT go on to all of them; 0 when every worker then ended
    with 0. Must be called before any thread is started, as workers are forked.
    """
    return _Supervisor(count, work).run()


class _Supervisor:
    def __init__(self, count: int, work: Callable[[Life], int]) -> None:
        self._work = work
        self._dies_with_us, self._held_by_us = os.pipe()
        self._restarts = dict.fromkeys(range(count), 0)
        self._alive: dict[int, int] = {}  # worker's number by process id
        self._stopping = False

    def run(self) -> int:
        before = {each: signal.signal(each, self._forward) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in self._restarts:
                self._start(number)
            return self._watch()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            os.close(self._dies_with_us)
            os.close(self._held_by_us)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self._stopping = True
        _tell(self._alive, number)

    def _start(self, number: int) -> None:
        # Signals wait until the worker is known, so that each is told; and in it until it has handlers of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            if self._stopping:
                return
            pid = os.fork()
            if pid == 0:
                self._live(number)
            self._alive[pid] = number
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _live(self, number: int) -> NoReturn:
        code = 1
        try:
            os.setpgid(0, 0)  # a terminal's Ctrl-C comes through the parent alone, once
            os.close(self._held_by_us)
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            code = self._work(Life(number, self._restarts[number], self._dies_with_us))
        except BaseException:
            log.exception("worker_failed", worker=number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # nothing of the parent's is undone here

    def _watch(self) -> int:
        worst = 0
        while self._alive:
            pid, status = os.waitpid(-1, 0)
            number, code = self._alive.pop(pid, None), os.waitstatus_to_exitcode(status)
            if number is None:
                continue  # a child of somebody else's
            if self._stopping or code == UNUSABLE:
                worst = worst or abs(code)
                if not self._stopping:
                    self._forward(signal.SIGTERM, None)
                continue
            self._restarts[number] += 1
            log.error("worker_died", worker=number, exit_code=code, restarts=self._restarts[number])
            time.sleep(RESTART_PAUSE_S)
            self._start(number)
        return 1 if worst == UNUSABLE else worst


def _tell(pids: Iterable[int], number: int) -> None:
    for pid in list(pids):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it has just ended
