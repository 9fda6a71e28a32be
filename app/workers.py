"""Who computes batches: processes with their models, started again when they die; or a thread of the serving process.

A process costs the memory of its models, and gives a core without Python's lock in between, and a service that outlives whatever
kills a decoder or a runtime.
"""

import asyncio
import socket
import sys
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from app import wire
from app.batching import Interrupted, Untouched
from app.engine import Answer, Engine, Item, Model
from app.settings import Settings
from model import BundleError

FIRST_PAUSE_S: Final = 0.1
"""Before a worker that died is started again; doubled each time it dies soon after its start."""
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""A worker that lived so long died of something else than its start."""
PATIENCE_S: Final = 1.0
"""For a worker to end by itself when the service stops."""

TICK_S: Final = 0.4
"""Between two looks at a worker process: each asks for a sign of life, which also a computing one gives at once."""
SILENT_TICKS: Final = 4
"""Without that sign, after which a worker doesn't count. Ticks, not seconds: after a pause of the whole machine, one has passed.

As many more as its batch is predicted to take: some decoders, such as WebP's, keep Python's lock for a whole picture.
"""
FROZEN_TICKS: Final = 12
"""Without that sign, after which a worker is killed: a stopped process would keep what it was given."""
OVERDUE_FACTOR: Final = 8.0
"""A worker doesn't count while its batch takes so many times as long as predicted, and at least OVERDUE_S."""
OVERDUE_S: Final = 1.0

BUFFER_BYTES: Final = 2**20
_ISOLATED: Final = ("-P",)  # a folder named app where the service was started is not ours

log = structlog.get_logger(__name__)


class BatchFailed(Exception):
    """A worker could not compute a batch; it lives on, and has logged why."""


class Worker(Protocol):
    """Computes one batch at a time."""

    depth: int
    """Batches that it may be given; all but one wait for their turn with it."""

    @property
    def alive(self) -> bool:
        """Whether it can be expected to compute another one."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds of its present batch; 0 when it rests."""
        ...

    async def compute(self, model: str, items: Sequence[Item], expected_s: float) -> list[Answer]:
        """Raise app.batching.Interrupted when the worker is lost in the middle, Untouched when that is before its turn.

        `expected_s` is what this batch is predicted to take; while it takes far longer, the worker isn't alive.
        """
        ...


SomeWorker = TypeVar("SomeWorker", bound=Worker)


class Pool(Generic[SomeWorker]):
    """Workers, and how many batches each of them has. For one event loop."""

    def __init__(self) -> None:
        self._batches: dict[SomeWorker, int] = {}  # who finished something last stands last
        self._turns: dict[SomeWorker, float] = {}
        self._changed = asyncio.Event()

    def add(self, worker: SomeWorker) -> None:
        """A new one, which is idle."""
        self._batches[worker], self._turns[worker] = 0, time.perf_counter()
        self.nudge()

    def remove(self, worker: SomeWorker) -> None:
        """It is lost."""
        self._batches.pop(worker, None)
        self._turns.pop(worker, None)

    @property
    def alive(self) -> int:
        """How many there are, at work or idle."""
        return sum(each.alive for each in self._batches)

    @property
    def idle(self) -> int:
        """How many have nothing to do."""
        return sum(each.alive and not batches for each, batches in self._batches.items())

    @property
    def busy_s(self) -> float:
        """How long the longest present batch has been computed; 0 when all rest."""
        return max((each.busy_s for each in self._batches), default=0.0)

    async def take(self, ahead: Callable[[], bool] = lambda: False) -> SomeWorker:
        """Who has been idle longest, as soon as anybody is; while `ahead` says so, also who can take another batch."""
        while (worker := self._free(0) or (self._free(1) if ahead() else None)) is None:
            self._changed.clear()
            await self._changed.wait()
        self._batches[worker] += 1
        return worker

    def _free(self, batches: int) -> SomeWorker | None:
        found = (each for each, has in self._batches.items() if each.alive and has == batches < each.depth)
        return next(found, None)

    def nudge(self) -> None:
        """What `take` waits for may be there."""
        self._changed.set()

    def turn(self, worker: SomeWorker) -> float:
        """When this worker last finished a batch, or began to live, on perf_counter; 0 when it is lost."""
        return self._turns.get(worker, 0.0)

    def give_back(self, worker: SomeWorker) -> None:
        """It has finished a batch, or is lost."""
        if (batches := self._batches.pop(worker, None)) is not None:
            self._batches[worker], self._turns[worker] = batches - 1, time.perf_counter()
            self.nudge()


class Workforce(Protocol):
    """Starts and ends the workers of a service."""

    @property
    def pool(self) -> Pool[Any]:
        """All workers."""
        ...

    @property
    def wanted(self) -> int:
        """As many workers as there should be."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """Of the processes that compute, beside the serving one; also those that have just died."""
        ...

    def working(self) -> AbstractAsyncContextManager[Mapping[str, Model]]:
        """Have workers until the block ends; the models that they compute, by name. Raises model.BundleError."""
        ...


@dataclass(slots=True)
class _Turn:
    """A batch while it is computed."""

    expected_s: float
    since: float = field(default_factory=time.perf_counter)

    @property
    def lasts_s(self) -> float:
        return time.perf_counter() - self.since

    @property
    def overdue(self) -> bool:
        return self.lasts_s > max(OVERDUE_S, OVERDUE_FACTOR * self.expected_s)


# --- In the serving process ---


class ThreadWorker:
    """A thread; nothing protects the service from what it computes."""

    depth = 1

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._turn: _Turn | None = None

    @property
    def alive(self) -> bool:
        """Not while a batch takes far longer than predicted; a thread can't be lost alone."""
        return self._turn is None or not self._turn.overdue

    @property
    def busy_s(self) -> float:
        """Seconds of its present batch; 0 when it rests."""
        return 0.0 if (turn := self._turn) is None else turn.lasts_s

    async def do(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Anything, on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def compute(self, model: str, items: Sequence[Item], expected_s: float) -> list[Answer]:
        """One batch."""
        answers: list[Answer] = await self.do(lambda: self._compute(model, items, expected_s))
        return answers

    def _compute(self, model: str, items: Sequence[Item], expected_s: float) -> list[Answer]:
        self._turn = _Turn(expected_s)
        try:
            if self.engine is None:
                raise RuntimeError("no models are loaded yet")
            return self.engine.compute(model, items)
        finally:
            self._turn = None  # not before the thread is done, even when nobody waits for it any more

    def end(self) -> None:
        """Take nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class OneThread:
    """A single worker inside the serving process."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self.pool: Pool[ThreadWorker] = Pool()
        self.wanted = 1
        self.pids: Sequence[int] = ()
        self._load = load

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Mapping[str, Model]]:
        """Load the models on the thread; keep it until the block ends."""
        worker = ThreadWorker()
        try:
            engine: Engine = await worker.do(self._load)
            models = await worker.do(engine.warm_up)
            worker.engine = engine
            self.pool.add(worker)
            yield models
        finally:
            worker.end()


# --- In processes of their own ---


@dataclass(slots=True)
class _Asked:
    """A batch that a worker process was given."""

    expected_s: float
    reply: asyncio.Future[bytes]
    begun: bool = False
    """The worker has said so; before, none of its items can have harmed it."""


class ProcessWorker:
    """One life of a worker process, seen from the service. It reads its next batch while it computes."""

    depth = 2

    def __init__(
        self, process: Process, channel: socket.socket, stall_timeout_s: float, on_sign: Callable[[], None]
    ) -> None:
        self.process = process
        self.began = time.perf_counter()
        self._channel = channel
        self._stall_timeout_s = stall_timeout_s
        self._on_sign = on_sign
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asked: deque[_Asked] = deque()  # answered in this order; the first one is computed
        self._turn: _Turn | None = None
        self._silent_ticks = 0
        self._lost = False

    @property
    def alive(self) -> bool:
        """Whether it gives signs of life and its batch doesn't take far longer than predicted; both may pass."""
        return not (self._lost or self._silent or (self._turn and self._turn.overdue))

    @property
    def _silent(self) -> bool:
        return self._silent_ticks >= SILENT_TICKS + self._granted_ticks

    @property
    def _granted_ticks(self) -> float:
        """For its present batch; without end where nothing is predicted."""
        return self._turn.expected_s / TICK_S if self._turn else 0.0

    @property
    def busy_s(self) -> float:
        """Seconds of its present batch; 0 when it rests."""
        return 0.0 if self._turn is None else self._turn.lasts_s

    async def begin(self, settings: Settings, number: int) -> Mapping[str, Model]:
        """Wait until its models are loaded. Raises BundleError, or Interrupted when it died first."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._channel, limit=BUFFER_BYTES)
        self._say(wire.orders(settings, number))
        try:
            answer = wire.read_begun(await self._hear())
        except (OSError, EOFError, ValueError):
            self.lose("a worker died")
            raise Interrupted("a worker died") from None
        if isinstance(answer, wire.Refused):
            raise BundleError(answer.reason)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]
        return answer

    async def compute(self, model: str, items: Sequence[Item], expected_s: float) -> list[Answer]:
        """One batch. A worker that takes too long is killed, as nothing else would end its hanging."""
        if self._lost:
            raise Untouched("a worker was lost before it began")
        asked = _Asked(expected_s, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._turn is None:
            self._turn = _Turn(expected_s)
        self._say(wire.batch(model, items))
        reply = await asked.reply
        try:
            answer = wire.read_answered(reply)
        except (ValueError, LookupError) as problem:
            self.lose("a worker answers nonsense")
            raise Interrupted(f"a worker answers nonsense: {problem}") from None
        if isinstance(answer, wire.Failed):
            raise BatchFailed(answer.reason)
        return answer

    async def _listen(self) -> None:
        """Take what it says until it is lost."""
        while not self._lost:
            try:
                message = await self._hear()
            except (OSError, EOFError, ValueError):
                self.lose("a worker died")
                return
            self._sign()
            if message == wire.BEGINS and self._asked:
                self._asked[0].begun = True
            elif message != wire.SIGN_OF_LIFE:
                self._answered(message)

    def _answered(self, reply: bytes) -> None:
        if not self._asked:
            self.lose("a worker answers what it wasn't asked")
            return
        asked = self._asked.popleft()
        self._turn = _Turn(self._asked[0].expected_s) if self._asked else None
        if not asked.reply.done():  # nobody waits any more
            asked.reply.set_result(reply)

    def _sign(self) -> None:
        was_silent, self._silent_ticks = self._silent, 0
        if was_silent:
            log.info("worker_answers_again", pid=self.process.pid)
            self._on_sign()

    async def _watch(self) -> None:
        """Look for signs of life, and kill what hangs."""
        frozen_ticks = min(FROZEN_TICKS, max(1, round(self._stall_timeout_s / TICK_S)))
        while not self._lost:
            if self._silent_ticks == 0:  # what it hasn't read need not be said again
                self._say(wire.framed_sign(wire.SIGN_OF_LIFE))
            self._silent_ticks += 1
            await asyncio.sleep(TICK_S)
            granted = self._granted_ticks
            if self._silent_ticks - 1 < SILENT_TICKS + granted <= self._silent_ticks:
                log.warning("worker_silent", pid=self.process.pid)
            if self._silent_ticks > frozen_ticks + granted or self.busy_s > self._stall_timeout_s:
                log.warning("worker_hangs", pid=self.process.pid, busy_s=round(self.busy_s, 1))
                self.lose("the worker hung")

    def _say(self, message: bytes) -> None:
        """Without waiting until it is read: no worker is told more than `depth` batches and a question for a sign of life."""
        if self._writer is None:
            raise RuntimeError("a worker that was never begun was asked")
        self._writer.write(message)

    async def _hear(self) -> bytes:
        if self._reader is None:
            raise RuntimeError("a worker that was never begun was asked")
        length = wire.length(await self._reader.readexactly(wire.LENGTH.size))
        return await self._reader.readexactly(length)

    def lose(self, reason: str) -> None:
        """It is of no use any more: kill it, and tell those who wait for it."""
        self._lost, self._turn = True, None
        with suppress(ProcessLookupError):
            self.process.kill()
        while self._asked:
            asked = self._asked.popleft()
            if not asked.reply.done():
                asked.reply.set_exception(
                    Interrupted(reason) if asked.begun else Untouched(f"{reason} before it began")
                )

    def close(self) -> None:
        """Nothing more is said to it."""
        self._lost = True
        for task in self._tasks:
            task.cancel()
        (self._writer or self._channel).close()

    async def end(self) -> None:
        """Let it end by itself, as an idle one does at once; kill it when it doesn't."""
        self.close()
        try:
            await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        except TimeoutError:
            self.lose("the service stops")
            await self.process.wait()


class Processes:
    """As many worker processes as the settings say, each started again when it dies."""

    def __init__(self, settings: Settings, on_restart: Callable[[], None] = lambda: None) -> None:
        self.pool: Pool[ProcessWorker] = Pool()
        self.wanted = settings.workers
        self._settings = settings
        self._on_restart = on_restart
        self._living: dict[int, ProcessWorker] = {}
        self._models: Mapping[str, Model] = {}

    @property
    def pids(self) -> Sequence[int]:
        """Of the workers' processes."""
        return [worker.process.pid for worker in self._living.values()]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Mapping[str, Model]]:
        """Start all of them at once, and wait for all; keep them alive until the block ends."""
        keeping: list[asyncio.Task[None]] = []
        try:
            starting = [asyncio.create_task(self._start(number)) for number in range(self._settings.workers)]
            try:
                begun = await asyncio.gather(*starting)
            except Interrupted as problem:
                raise BundleError(f"{problem} while it loaded the models") from None
            finally:
                await _ended(starting)
            self._models = begun[0]
            for number, worker in self._living.items():
                self.pool.add(worker)
                keeping.append(asyncio.create_task(self._keep(number, worker)))
            yield self._models
        finally:
            await _ended(keeping)
            await asyncio.gather(*(worker.end() for worker in self._living.values()))

    async def _start(self, number: int) -> Mapping[str, Model]:
        """Its models, when a worker is ready. Raises BundleError or Interrupted."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *_ISOLATED, "-m", "app.worker", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        stall_timeout_s = self._settings.stall_timeout_ms / 1000
        worker = self._living[number] = ProcessWorker(process, ours, stall_timeout_s, self.pool.nudge)
        return await worker.begin(self._settings, number)

    async def _keep(self, number: int, worker: ProcessWorker) -> None:
        """Start a worker again whenever it has died."""
        pause_s = FIRST_PAUSE_S
        while True:
            code = await worker.process.wait()
            worker.lose("a worker died")
            worker.close()
            self.pool.remove(worker)
            log.error("worker_died", worker=number, exit_code=code)
            if time.perf_counter() - worker.began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._on_restart()
            if await self._started_again(number):
                self.pool.add(self._living[number])
            worker = self._living[number]

    async def _started_again(self, number: int) -> bool:
        try:
            models = await self._start(number)
        except (BundleError, Interrupted, OSError) as problem:
            reason = str(problem)
        else:
            if _versions(models) == _versions(self._models):
                return True
            reason = "a bundle is not the one that the service started with"
        log.error("worker_not_started", worker=number, problem=reason)
        self._living[number].lose(reason)
        return False


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _versions(models: Mapping[str, Model]) -> list[str]:
    return [each.description.digest for each in models.values()]
