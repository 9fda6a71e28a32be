"""The service's side of a worker process: requests and replies, heartbeats, and its loss."""

import asyncio
import socket
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

import structlog

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item, ItemResult, Loaded
from polymodal.app.workers.failures import BatchFailed, NotStarted, WorkerLost
from polymodal.app.workers.pool import LOADING_S, Turn, Worker
from polymodal.model import BundleError

END_S: Final = 1.0
"""Seconds that a worker gets to end by itself when the service stops."""
BUFFER_BYTES: Final = 2**20

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """Heartbeats of worker processes. Missed ones are counted, because a pause of the whole machine costs only one.

    A batch may miss the heartbeats of its predicted time in addition: some decoders, such as WebP's, keep Python's lock for a whole
    image.
    """

    interval_s: float = 0.4
    """Between two heartbeats, which a worker also answers while it computes."""
    unhealthy: int = 4
    """Missed heartbeats after which a worker is unhealthy."""
    frozen: int = 12
    """Missed heartbeats after which a worker is killed, as a stopped process would never return its batches."""


HEARTBEATS: Final = Heartbeats()


@dataclass(slots=True)
class _Sent:
    """A request that a worker process has not answered."""

    expected_s: float
    reply: asyncio.Future[bytes]
    number: int
    """Among all requests to this worker, from 1."""
    items: Sequence[Item] = ()
    """Of a batch."""
    started: bool = False
    """Whether the worker has started it; before, none of its items can be the cause of a loss."""


class ProcessWorker(Worker):
    """One worker process, from its start to its end. It prefetches a batch while it computes."""

    depth = 2

    def __init__(
        self,
        process: Process,
        channel: socket.socket,
        stall_timeout_s: float,
        on_recovery: Callable[[], None],
        heartbeats: Heartbeats = HEARTBEATS,
    ) -> None:
        self.process = process
        self.started_at = time.perf_counter()
        self._channel = channel
        self._stall_timeout_s = stall_timeout_s
        self._on_recovery = on_recovery
        self._heartbeats = heartbeats
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sent: deque[_Sent] = deque()  # answered in this order; the worker is busy with the first one
        self._numbers = count(1)
        self._missed = 0  # heartbeats
        self._lost = False

    @property
    def alive(self) -> bool:
        """Whether its heartbeats arrive and its batch doesn't take far longer than predicted; either may recover."""
        return not (self._lost or self._unresponsive or (self._turn and self._turn.overdue))

    @property
    def _unresponsive(self) -> bool:
        return self._missed >= self._heartbeats.unhealthy + self._granted

    @property
    def _granted(self) -> float:
        """Heartbeats that its present batch may miss in addition; infinite without a limit."""
        return self._turn.expected_s / self._heartbeats.interval_s if self._turn else 0.0

    async def init(self, settings: Settings, number: int) -> None:
        """Connect to a process that has just been started."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._channel, limit=BUFFER_BYTES)
        self._write(wire.init(settings, number))
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]

    async def load(self, ref: str, source: BundleSource) -> Loaded:
        """Load a bundle under a reference. Raises BundleError, or WorkerLost when the process died over it."""
        answer = self._decoded(wire.read_loaded, await self._request(wire.Load(ref, source), LOADING_S))
        if isinstance(answer, wire.Failed):
            raise BundleError(answer.reason)
        return answer

    async def unload(self, ref: str) -> None:
        """Forget what was loaded under a reference."""
        self._decoded(wire.read_done, await self._request(wire.Unload(ref), 0.0))

    async def compute(self, ref: str, task: str, items: Sequence[Item], expected_s: float) -> list[ItemResult]:
        """Compute a batch. A worker that reaches the stall limit is killed, as nothing else would end it."""
        answer = self._decoded(wire.read_results, await self._request(wire.Compute(ref, task, items), expected_s))
        if isinstance(answer, wire.Failed):
            raise BatchFailed(answer.reason)
        return answer

    def stop(self, item: object) -> None:
        """End the abandoned batch with this item early."""
        for sent in self._sent:
            if any(item is other for other in sent.items):
                self._write(wire.stop(sent.number))

    def _decoded(self, read: Callable[[bytes], Answer], reply: bytes) -> Answer:
        """Decode a reply; a worker whose replies can't be decoded is killed."""
        try:
            return read(reply)
        except (ValueError, LookupError) as problem:
            self.lose("a worker sent an invalid message")
            raise WorkerLost(f"a worker sent an invalid message: {problem}") from None

    async def _request(self, message: wire.Load | wire.Unload | wire.Compute, expected_s: float) -> bytes:
        if self._lost:
            raise NotStarted("a worker was lost before it began")
        items = message.items if isinstance(message, wire.Compute) else ()
        sent = _Sent(expected_s, asyncio.get_running_loop().create_future(), next(self._numbers), items)
        self._sent.append(sent)
        if self._turn is None:
            self._turn = Turn(expected_s, self._stall_timeout_s)
        self._write(wire.request(message))
        return await sent.reply

    async def _listen(self) -> None:
        """Read messages until the worker is lost."""
        while not self._lost:
            try:
                message = await self._read()
            except (OSError, EOFError, ValueError):
                self.lose("a worker died")
                return
            self._note_heartbeat()
            if message == wire.STARTS and self._sent:
                self._sent[0].started = True
            elif message != wire.HEARTBEAT:
                self._answered(message)

    def _answered(self, reply: bytes) -> None:
        if not self._sent:
            self.lose("a worker sent a reply without a request")
            return
        sent = self._sent.popleft()
        self._turn = Turn(self._sent[0].expected_s, self._stall_timeout_s) if self._sent else None
        if not sent.reply.done():  # otherwise cancelled meanwhile
            sent.reply.set_result(reply)

    def _note_heartbeat(self) -> None:
        was_unresponsive, self._missed = self._unresponsive, 0
        if was_unresponsive:
            log.info("worker_answers_again", pid=self.process.pid)
            self._on_recovery()

    async def _watch(self) -> None:
        """Send heartbeats, and kill a worker that hangs."""
        interval_s, unhealthy = self._heartbeats.interval_s, self._heartbeats.unhealthy
        frozen = min(self._heartbeats.frozen, max(1, round(self._stall_timeout_s / interval_s)))
        while not self._lost:
            if self._missed == 0:  # one unread heartbeat is enough
                self._write([wire.encode_signal(wire.HEARTBEAT)])
            self._missed += 1
            await asyncio.sleep(interval_s)
            granted = self._granted
            if self._missed - 1 < unhealthy + granted <= self._missed:
                log.warning("worker_silent", pid=self.process.pid)
            if self._missed > frozen + granted or self.stalled:
                log.warning("worker_hangs", pid=self.process.pid, busy_s=round(self.busy_s, 1))
                self.lose("the worker hung")

    def _write(self, buffers: Sequence[wire.Buffer]) -> None:
        """Write without waiting for the reader: at most `depth` batches and one heartbeat are unread."""
        if self._writer is None:
            raise RuntimeError("a worker that is not connected was sent a message")
        self._writer.writelines(buffers)

    async def _read(self) -> bytes:
        if self._reader is None:
            raise RuntimeError("a worker that is not connected was read from")
        size = wire.length(await self._reader.readexactly(wire.LENGTH.size))
        return await self._reader.readexactly(size)

    def lose(self, reason: str) -> None:
        """Kill the process, and fail the requests that it has not answered."""
        self._lost, self._turn = True, None
        with suppress(ProcessLookupError):
            self.process.kill()
        while self._sent:
            sent = self._sent.popleft()
            if not sent.reply.done():
                sent.reply.set_exception(
                    WorkerLost(reason) if sent.started else NotStarted(f"{reason} before it began")
                )

    def close(self) -> None:
        """Close the connection."""
        self._lost = True
        for task in self._tasks:
            task.cancel()
        (self._writer or self._channel).close()

    async def end(self) -> None:
        """Close the connection, on which an idle process ends; kill it after END_S."""
        self.close()
        try:
            await asyncio.wait_for(self.process.wait(), END_S)
        except TimeoutError:
            self.lose("the service stops")
            await self.process.wait()
