"""The queue between requests and the one inference thread: batches, deadlines, admission.

It knows items and costs, no tensors and no HTTP. Its state belongs to the event loop; only `compute` runs elsewhere.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

import structlog

Item = TypeVar("Item")
Result = TypeVar("Result")

log = structlog.get_logger(__name__)


class Overloaded(Exception):
    """No room: refused at once rather than served late."""

    def __init__(self, waiting: int, limit: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} requests are waiting already; allowed: {limit}")
        self.retry_after_s = retry_after_s


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
    deadline: float
    """On the event loop's clock."""
    answer: asyncio.Future[Computed[Result]]
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Item, Result]):
    """Work-conserving batches: whenever the worker is free it takes what waits, up to the limits, without any fixed wait.

    `worker` should run one call at a time. A batch that fails is computed again one item at a time, so that one
    poisonous item fails alone.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        cost: Callable[[Item], float],
        limits: BatchLimits,
        worker: Executor,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute = compute
        self._cost = cost
        self._limits = limits
        self._worker = worker
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._batch: list[_Waiting[Item, Result]] = []  # what is being computed
        self._computing_since: float | None = None  # perf_counter; written by the worker's thread
        self._item_s = 0.0  # running mean of the time one item takes

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
    def retry_after_s(self) -> int:
        """When there should be room again: what is ahead, times the measured time per item."""
        return max(1, math.ceil((len(self._queue) + len(self._batch)) * self._item_s))

    async def submit(self, item: Item, *, deadline: float) -> Computed[Result]:
        """The item's result, unless there is no room or `deadline` (on the loop's clock) passes first.

        Cancelling the caller takes a waiting item out of the queue.
        """
        about_to_leave = 0 if self._batch else self._limits.items  # an idle worker takes a batch in this very moment
        if len(self._queue) >= self._limits.waiting + about_to_leave:
            raise Overloaded(len(self._queue), self._limits.waiting, self.retry_after_s)
        entry: _Waiting[Item, Result] = _Waiting(
            item, self._cost(item), deadline, asyncio.get_running_loop().create_future()
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
        self._item_s = _running_mean(self._item_s, compute_s / len(items))
        self._on_batch(len(items))
        for entry, result in zip(batch, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Computed(result, started - entry.since, compute_s, len(items)))

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


def _running_mean(mean: float, value: float, weight: float = 0.1) -> float:
    """Exponentially weighted; the first value counts in full."""
    return value if mean == 0.0 else mean + weight * (value - mean)
