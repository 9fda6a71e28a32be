"""The queue between requests and the one inference thread: batches, deadlines, admission by predicted time.

It knows items, costs and forecasts, no tensors and no HTTP. Its state belongs to the event loop; only `compute` runs elsewhere.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
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


class Batcher(Generic[Item, Result]):
    """Work-conserving batches: whenever the worker is free it takes what waits, up to the limits, without any fixed wait.

    `worker` should run one call at a time. A batch that fails is computed again one item at a time, so that one
    poisonous item fails alone. `elsewhere` says how many seconds of other work the worker has to do.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        cost: Callable[[Item], float],
        forecast: Forecast[Item],
        limits: BatchLimits,
        worker: Executor,
        elsewhere: Callable[[], float] = lambda: 0.0,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute = compute
        self._cost = cost
        self._forecast = forecast
        self._limits = limits
        self._worker = worker
        self._elsewhere = elsewhere
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._batch: list[_Waiting[Item, Result]] = []  # what is being computed
        self._computing_since: float | None = None  # perf_counter; written by the worker's thread
        self._drift = 1.0  # running mean of measured ÷ forecast seconds

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name="batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop taking batches; what still waits fails with Stopped. Call `drain` first to lose nothing."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._stop(self._queue)

    @property
    def waiting(self) -> int:
        """Items whose turn has not come."""
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """How long the worker has been computing its current batch; 0 when it rests."""
        since = self._computing_since
        return 0.0 if since is None else time.perf_counter() - since

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until the worker has computed all that was submitted here."""
        running = max(0.0, self._predicted(self._batch) - self.busy_s)
        return running + self._predicted(self._queue)

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
        about_to_leave = 0 if self._batch else self._limits.items  # an idle worker takes a batch in this very moment
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
        while self._queue or self._batch:
            if time.perf_counter() >= give_up:
                return False
            await asyncio.sleep(0.01)
        return True

    async def _run(self) -> None:
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            while batch := self._next_batch():
                self._batch = batch
                try:
                    await self._answer(batch)
                finally:
                    self._stop(batch)  # matters only when this task was cancelled in the middle
                    self._batch = []

    @staticmethod
    def _stop(entries: Iterable[_Waiting[Item, Result]]) -> None:
        for entry in entries:
            _fail(entry, Stopped("the service stopped before this request was computed"))

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        cost = 0.0
        while self._queue and len(batch) < self._limits.items:
            if batch and cost + self._queue[0].cost > self._limits.cost:
                break
            entry = self._queue.popleft()
            if _is_wanted(entry):
                batch.append(entry)
                cost += entry.cost
        return batch

    async def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            await self._compute_together(batch)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            log.warning("batch_failed", items=len(batch), next="one at a time", exc_info=error)
            for entry in batch:
                if _is_wanted(entry):
                    await self._answer([entry])

    async def _compute_together(self, batch: list[_Waiting[Item, Result]]) -> None:
        items = [entry.item for entry in batch]
        started = time.perf_counter()
        results, compute_s = await self._on_worker(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(items)} items were computed to {len(results)} results")
        self._learn(batch, compute_s)
        self._on_batch(len(items))
        for entry, result in zip(batch, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Computed(result, started - entry.since, compute_s, len(items)))

    def _learn(self, batch: Sequence[_Waiting[Item, Result]], measured_s: float) -> None:
        forecast_s = self._forecast.batch_s + sum(entry.forecast_s for entry in batch)
        if forecast_s > 0.0:
            drift = min(max(measured_s / forecast_s, 1 / LARGEST_DRIFT), LARGEST_DRIFT)
            self._drift += DRIFT_WEIGHT * (drift - self._drift)

    def _on_worker(self, items: Sequence[Item]) -> Awaitable[tuple[Sequence[Result], float]]:
        return asyncio.get_running_loop().run_in_executor(self._worker, self._timed, items)

    def _timed(self, items: Sequence[Item]) -> tuple[Sequence[Result], float]:
        """Runs on the worker: what `busy_s` measures is computing, not the wait for a worker that others share."""
        self._computing_since = started = time.perf_counter()
        try:
            return self._compute(items), time.perf_counter() - started
        finally:
            self._computing_since = None


def _is_wanted(entry: _Waiting[Item, Result]) -> bool:
    """Whether somebody still waits for this item; `submit` itself reports a deadline that has passed."""
    return not entry.answer.done() and asyncio.get_running_loop().time() < entry.deadline


def _fail(entry: _Waiting[Item, Result], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
