"""The queue between requests and the inference threads: batches, deadlines, admission by predicted time.

It knows items, costs and forecasts, no tensors and no HTTP. Its state belongs to the event loop; only `compute` runs elsewhere.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import structlog

Item = TypeVar("Item")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Result = TypeVar("Result")

DRIFT_WEIGHT: Final = 0.1  # of the newest batch in the running mean of measured ÷ forecast
LARGEST_DRIFT: Final = 10.0  # and its inverse: what one odd measurement, such as a machine that slept, may do at most

log = structlog.get_logger(__name__)


class Overloaded(Exception):
    """No room, or no time: refused at once rather than served late."""

    def __init__(self, found: str, allowed: str, wait_s: float) -> None:
        super().__init__(f"{found}; allowed: {allowed}")
        self.retry_after_s = max(1, math.ceil(wait_s))
        """Whole seconds, as Retry-After has no others."""


class DeadlineExceeded(Exception):
    """The answer would come after the request's deadline."""


class Stopped(Exception):
    """The queue was closed before the item's turn came."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one batch may hold, and how much may wait for its turn."""

    items: int
    cost: float
    """In the unit of the items' own cost; one item may exceed it, alone."""
    waiting: int


class Forecast(Protocol[Asked_contra]):
    """How long computing should take, known beforehand; the queue corrects it by what it measures."""

    @property
    def batch_s(self) -> float:
        """Seconds of a batch beside its items."""
        ...

    def item_s(self, item: Asked_contra) -> float:
        """Seconds that this item adds to its batch."""
        ...


@dataclass(frozen=True, slots=True)
class Computed(Generic[Result]):
    """A result with what it took."""

    result: Result
    queue_s: float
    compute_s: float
    """Of the whole batch that the item was computed in."""
    batch_size: int


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    cost: float
    forecast_s: float
    deadline: float
    """On the event loop's clock."""
    answer: asyncio.Future[Computed[Result]]
    since: float = field(default_factory=time.perf_counter)


@dataclass(eq=False, slots=True)
class _Batch(Generic[Item, Result]):
    entries: list[_Waiting[Item, Result]]
    computing_since: float | None = None
    """perf_counter, once a thread has begun."""

    @property
    def busy_s(self) -> float:
        return 0.0 if self.computing_since is None else time.perf_counter() - self.computing_since


class Batcher(Generic[Item, Result]):
    """Work-conserving batches: a stream that is free takes its share of what waits, up to the limits, without any fixed wait.

    `worker` should run as many calls at a time as there are streams. A batch that fails is computed again one item at a time,
    so that one poisonous item fails alone. `elsewhere` says how many seconds of other work the worker has to do.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        cost: Callable[[Item], float],
        forecast: Forecast[Item],
        limits: BatchLimits,
        worker: Executor,
        streams: int = 1,
        elsewhere: Callable[[], float] = lambda: 0.0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute = compute
        self._cost = cost
        self._forecast = forecast
        self._limits = limits
        self._worker = worker
        self._streams = streams
        self._elsewhere = elsewhere
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._batches: list[_Batch[Item, Result]] = []  # what streams are at
        self._computing: list[_Batch[Item, Result]] = []  # of these, what a thread is at; written by the threads
        self._drift = 1.0  # running mean of measured ÷ forecast seconds

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(self._run(), name=f"stream-{each}") for each in range(self._streams)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop taking batches; what still waits fails with Stopped. Call `drain` first to lose nothing."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        self._stop(self._queue)

    @property
    def waiting(self) -> int:
        """Items whose turn has not come."""
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """How long the oldest batch has been computed; 0 when the worker rests."""
        return max((batch.busy_s for batch in tuple(self._computing)), default=0.0)

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until the worker has computed all that was submitted here."""
        running = sum(max(0.0, self._predicted(batch.entries) - batch.busy_s) for batch in self._batches)
        return (running + self._predicted(self._queue)) / self._streams

    def _predicted(self, entries: Sequence[_Waiting[Item, Result]] | deque[_Waiting[Item, Result]]) -> float:
        """As many batches as their number and cost make, each full but the last."""
        limits = self._limits
        batches = max(len(entries) / limits.items, sum(entry.cost for entry in entries) / limits.cost)
        computing_s = sum(entry.forecast_s for entry in entries)
        return self._drift * (math.ceil(batches) * self._forecast.batch_s + computing_s)

    def check_time(self, deadline: float, *, own_s: float = 0.0) -> None:
        """Raise Overloaded when what is ahead, and `own_s` after it, would end after `deadline` (on the loop's clock).

        With nothing ahead it never does: coming back later would not help.
        """
        ahead_s = self.backlog_s + self._elsewhere()
        left_s = deadline - asyncio.get_running_loop().time()
        if ahead_s > 0.0 and ahead_s + own_s > left_s:
            found = f"an answer would take about {1000 * (ahead_s + own_s):.0f} ms"
            raise Overloaded(found, f"{1000 * max(0.0, left_s):.0f} ms until this request's deadline", ahead_s)

    async def submit(self, item: Item, *, deadline: float) -> Computed[Result]:
        """The item's result, unless there is no room, or `deadline` (on the loop's clock) will pass, or does pass, first.

        Cancelling the caller takes a waiting item out of the queue.
        """
        about_to_leave = self._idle * self._limits.items  # an idle stream takes a batch in this very moment
        if len(self._queue) >= self._limits.waiting + about_to_leave:
            found = f"{len(self._queue)} requests are waiting already"
            raise Overloaded(found, str(self._limits.waiting), self.backlog_s)
        forecast_s = self._forecast.item_s(item)
        self.check_time(deadline, own_s=self._drift * forecast_s)
        entry: _Waiting[Item, Result] = _Waiting(
            item, self._cost(item), forecast_s, deadline, asyncio.get_running_loop().create_future()
        )
        self._queue.append(entry)
        self._arrival.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await entry.answer
        except TimeoutError:
            raise DeadlineExceeded("no result before the request's deadline") from None
        finally:
            entry.answer.cancel()  # nothing happens when it is there
            if entry in self._queue:
                self._queue.remove(entry)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits and nothing is computed; False when that took longer than `timeout_s`."""
        give_up = time.perf_counter() + timeout_s
        while self._queue or self._batches:
            if time.perf_counter() >= give_up:
                return False
            await asyncio.sleep(0.01)
        return True

    @property
    def _idle(self) -> int:
        """Streams that compute nothing."""
        return self._streams - len(self._batches)

    async def _run(self) -> None:
        while True:
            if not (entries := self._next_batch()):
                self._arrival.clear()
                await self._arrival.wait()
                continue
            batch = _Batch(entries)
            self._batches.append(batch)
            try:
                await self._answer(batch, entries)
            finally:
                self._stop(entries)  # matters only when this task was cancelled in the middle
                self._batches.remove(batch)

    @staticmethod
    def _stop(entries: Iterable[_Waiting[Item, Result]]) -> None:
        for entry in entries:
            _fail(entry, Stopped("the service stopped before this request was computed"))

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """What waits, up to the limits; other idle streams get as much."""
        batch: list[_Waiting[Item, Result]] = []
        cost = 0.0
        most = min(self._limits.items, math.ceil(len(self._queue) / self._idle))
        while self._queue and len(batch) < most:
            if batch and cost + self._queue[0].cost > self._limits.cost:
                break
            entry = self._queue.popleft()
            if _is_wanted(entry):
                batch.append(entry)
                cost += entry.cost
        return batch

    async def _answer(self, batch: _Batch[Item, Result], entries: Sequence[_Waiting[Item, Result]]) -> None:
        """Compute these entries of a batch together or, when that fails, each by itself."""
        try:
            await self._compute_together(batch, entries)
        except Exception as error:
            if len(entries) == 1:
                _fail(entries[0], error)
                return
            log.warning("batch_failed", items=len(entries), next="one at a time", exc_info=error)
            for entry in entries:
                if _is_wanted(entry):
                    await self._answer(batch, [entry])

    async def _compute_together(self, batch: _Batch[Item, Result], entries: Sequence[_Waiting[Item, Result]]) -> None:
        items = [entry.item for entry in entries]
        started = time.perf_counter()
        results, compute_s = await asyncio.get_running_loop().run_in_executor(self._worker, self._timed, batch, items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(items)} items were computed to {len(results)} results")
        self._learn(entries, compute_s)
        self._on_batch(len(items))
        for entry, result in zip(entries, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Computed(result, started - entry.since, compute_s, len(items)))

    def _learn(self, batch: Sequence[_Waiting[Item, Result]], measured_s: float) -> None:
        forecast_s = self._forecast.batch_s + sum(entry.forecast_s for entry in batch)
        if forecast_s > 0.0:
            drift = min(max(measured_s / forecast_s, 1 / LARGEST_DRIFT), LARGEST_DRIFT)
            self._drift += DRIFT_WEIGHT * (drift - self._drift)

    def _timed(self, batch: _Batch[Item, Result], items: Sequence[Item]) -> tuple[Sequence[Result], float]:
        """Runs on the worker: what `busy_s` measures is computing, not the wait for a worker that others share."""
        batch.computing_since = started = time.perf_counter()
        self._computing.append(batch)
        try:
            return self._compute(items), time.perf_counter() - started
        finally:
            self._computing.remove(batch)  # not before the thread is done, even when nobody waits for it any more


def _is_wanted(entry: _Waiting[Item, Result]) -> bool:
    """Whether somebody still waits for this item; `submit` itself reports a deadline that has passed."""
    return not entry.answer.done() and asyncio.get_running_loop().time() < entry.deadline


def _fail(entry: _Waiting[Item, Result], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
