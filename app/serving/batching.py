"""The queue between requests and the workers: batches, deadlines, admission by predicted time.

It handles items and forecasts, neither tensors nor HTTP. Its state belongs to the event loop.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, Self, TypeVar

import structlog

from polymodal.app.problems import Problem
from polymodal.app.workers.failures import NotStarted, WorkerLost
from polymodal.app.workers.pool import Pool, Worker

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result = TypeVar("Result")

FIXED_SHARE: Final = 0.04
"""A batch is large enough when its overhead is predicted to be this share of the time of its items: more items would delay the
first ones, save next to nothing, and no longer fit into a core's cache."""
LEAST_FIXED_S: Final = 0.001
"""Least overhead of a batch, whatever is forecast, as it is sent to a worker and its results are sent back."""
CORRECTION_WEIGHT: Final = 0.1
"""Weight of the newest batch in the running mean of measured ÷ forecast."""
LARGEST_CORRECTION: Final = 10.0
"""Bounds, together with its inverse, the effect of an odd measurement, such as after a suspend of the machine."""

log = structlog.get_logger(__name__)


class Overloaded(Problem):
    """The queue is full or too slow; the request is refused at once rather than served late."""

    status = 429
    code = "overloaded"
    title = "Too many requests are waiting"

    def __init__(self, problem: str, allowed: str, wait_s: float) -> None:
        super().__init__(f"{problem}; allowed: {allowed}")
        self.retry_after_s = max(1, math.ceil(wait_s))

    @classmethod
    def queue_full(cls, waiting: int, limit: int, wait_s: float) -> Self:
        """Return the error for a full queue."""
        return cls(f"{waiting} requests are waiting already", str(limit), wait_s)

    @classmethod
    def too_late(cls, answer_s: float, left_s: float, wait_s: float) -> Self:
        """Return the error for an answer that is predicted to take longer than is left until its deadline."""
        problem = f"an answer would take about {1000 * answer_s:.0f} ms"
        return cls(problem, f"{1000 * max(0.0, left_s):.0f} ms until this request's deadline", wait_s)

    @classmethod
    def example(cls) -> Self:
        """Return the error at the default limit."""
        return cls.queue_full(64, 64, wait_s=2)


class DeadlineExceeded(Problem):
    """The answer would come after the request's deadline.

    `queue_s`: seconds from its submission until a worker began it, or until now.
    """

    status = 504
    code = "deadline_exceeded"
    title = "The answer would have come too late"

    def __init__(self, problem: str, queue_s: float = 0.0) -> None:
        super().__init__(problem)
        self.queue_s = queue_s

    @classmethod
    def after(cls, queue_s: float, worker_s: float) -> Self:
        """Return the error for an item that was `queue_s` in the queue, and then `worker_s` with a worker."""
        where = f"in the queue for {queue_s:.2f} s and with a worker for {worker_s:.2f} s"
        return cls(f"no result before the request's deadline; it was {where}", queue_s)

    @classmethod
    def example(cls) -> Self:
        """Return the error at the default timeout."""
        return cls.after(9.62, 0.38)


class Stopped(Problem):
    """The queue was closed before the item was computed."""

    status = 503
    code = "stopped"
    title = "The service stopped before the answer was there"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("the service stopped before this request was computed")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one batch, and of the queue."""

    items: int
    seconds: float
    """Predicted, of one batch; an item that takes longer is computed alone."""
    waiting: int
    """Items in the queue."""


class Forecast(Protocol[Item_contra]):
    """Predicted time of a batch; the queue corrects it by what it measures."""

    @property
    def batch_s(self) -> float:
        """Overhead per batch, in seconds."""
        ...

    def item_s(self, item: Item_contra) -> float:
        """Return the seconds that this item adds to its batch."""
        ...


@dataclass(frozen=True, slots=True)
class Computed(Generic[Result]):
    """A result, and the time that it took."""

    result: Result
    queue_s: float
    began: float
    """When its batch began, on perf_counter."""
    compute_s: float
    """Of the whole batch that the item was computed in."""
    batch_size: int


@dataclass(frozen=True, slots=True)
class BatchReport(Generic[Item]):
    """The time of a batch, also of one that failed or lost its worker."""

    items: Sequence[Item]
    predicted_s: float
    began: float
    """On perf_counter."""
    compute_s: float
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    forecast_s: float
    deadline: float
    """On the event loop's clock."""
    answer: asyncio.Future[Computed[Result]]
    since: float
    """When it was submitted, on perf_counter."""
    alone: bool = False
    """Whether it gets a batch of its own, as a batch with it has failed."""
    losses: int = 0
    """Number of workers that were lost while they computed it alone."""


@dataclass(eq=False, slots=True)
class _Batch(Generic[Item, Result]):
    worker: Worker
    entries: list[_Waiting[Item, Result]]
    since: float
    """When it was sent to the worker, on perf_counter; the worker may have started it later."""


class Batcher(Generic[Item, Result]):
    """Makes batches without waiting for them to fill: an idle worker takes its share of the queue, up to the limits.

    While the queue has a large batch for every worker, workers prefetch. `compute` computes items on a worker; its last argument is
    the predicted time. The items of a failed batch are computed again one by one, so that a bad item fails alone; an item whose
    worker was lost while it computed this item alone is retried once. `backlog_of_others` returns the predicted seconds of the
    workers' other work.
    """

    def __init__(
        self,
        compute: Callable[[Worker, Sequence[Item], float], Awaitable[Sequence[Result]]],
        *,
        forecast: Forecast[Item],
        limits: BatchLimits,
        workers: Pool,
        backlog_of_others: Callable[[], float] = lambda: 0.0,
        on_batch: Callable[[BatchReport[Item]], None] = lambda report: None,
    ) -> None:
        self._compute = compute
        self._forecast = forecast
        self._limits = limits
        self._workers = workers
        self._backlog_of_others = backlog_of_others
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None
        self._batches: dict[asyncio.Task[None], _Batch[Item, Result]] = {}
        self._correction = 1.0  # running mean of measured ÷ forecast seconds

    async def __aenter__(self) -> Self:
        self._dispatching = asyncio.create_task(self._dispatch(), name="dispatch")
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop; items that still wait or are computed fail with Stopped. Drain the service first to lose nothing."""
        running = [task for task in (self._dispatching, *self._batches) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._stop(self._queue)

    @property
    def waiting(self) -> int:
        """Number of items in the queue."""
        return len(self._queue)

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until the workers have computed all submitted items."""
        now, seconds = time.perf_counter(), self._predicted(self._queue)
        for batch, began in self._under_way():
            spent_s = 0.0 if began is None else now - began
            seconds += max(0.0, self._predicted(batch.entries) - spent_s)
        return seconds / max(1, self._workers.alive)

    def _under_way(self) -> Iterator[tuple[_Batch[Item, Result], float | None]]:
        """Yield the batches that workers have, and when they started, on perf_counter; None for a prefetched one."""
        at_work = set[int]()
        for batch in self._batches.values():  # oldest first
            first = id(batch.worker) not in at_work
            at_work.add(id(batch.worker))
            yield batch, max(batch.since, self._workers.turn(batch.worker)) if first else None

    @property
    def _large_s(self) -> float:
        """Predicted seconds of the items in a batch that is large enough."""
        return self._correction * max(self._forecast.batch_s, LEAST_FIXED_S) / FIXED_SHARE

    def _predicted(self, entries: Collection[_Waiting[Item, Result]]) -> float:
        """Return the predicted seconds of entries in full batches, overhead included."""
        limits = self._limits
        computing_s = self._items_s(entries)
        batches = min(len(entries), math.ceil(max(len(entries) / limits.items, computing_s / limits.seconds)))
        return self._correction * batches * self._forecast.batch_s + computing_s

    def _plenty(self) -> bool:
        """Return whether the queue has a large batch for every worker, so that none is idle when another one prefetches."""
        items, workers = len(self._queue), self._workers.alive
        if items >= workers * self._limits.items:
            return True
        return self._items_s(self._queue) >= workers * self._large_s

    def _items_s(self, entries: Iterable[_Waiting[Item, Result]]) -> float:
        """Return the predicted seconds of items, without the overhead of their batches."""
        return self._correction * sum(entry.forecast_s for entry in entries)

    def check_time(self, deadline: float, *, own_s: float = 0.0) -> None:
        """Raise Overloaded when the backlog, and `own_s` after it, would end after `deadline` (on the loop's clock).

        Never without a backlog, as a retry would not help.
        """
        ahead_s = self.backlog_s + self._backlog_of_others()
        left_s = deadline - asyncio.get_running_loop().time()
        if ahead_s > 0.0 and ahead_s + own_s > left_s:
            raise Overloaded.too_late(ahead_s + own_s, left_s, ahead_s)

    def check_length(self) -> None:
        """Raise Overloaded when the queue is full."""
        about_to_leave = self._workers.idle * self._limits.items  # idle workers take their batches at once
        if len(self._queue) >= self._limits.waiting + about_to_leave:
            raise Overloaded.queue_full(len(self._queue), self._limits.waiting, self.backlog_s)

    async def submit(self, item: Item, *, deadline: float) -> Computed[Result]:
        """Compute one item before `deadline` (on the loop's clock).

        Cancelling the caller takes a waiting item out of the queue, and stops a batch all of whose items are abandoned. Raises
        Overloaded or DeadlineExceeded.
        """
        self.check_length()
        forecast_s = self._forecast.item_s(item)
        self.check_time(deadline, own_s=self._correction * forecast_s)
        loop = asyncio.get_running_loop()
        entry: _Waiting[Item, Result] = _Waiting(
            item, forecast_s, deadline, loop.create_future(), since=time.perf_counter()
        )
        self._queue.append(entry)
        self._arrival.set()
        self._workers.nudge()
        late = loop.call_at(deadline, self._give_up, entry)
        try:
            return await entry.answer
        finally:
            late.cancel()
            entry.answer.cancel()  # no effect when it is done
            if entry in self._queue:
                self._queue.remove(entry)
            if entry.answer.cancelled() or entry.answer.exception():
                self._stop_batch(entry)

    def _stop_batch(self, entry: _Waiting[Item, Result]) -> None:
        """Stop the batch with this entry if all of its entries are abandoned."""
        for batch in self._batches.values():
            if entry in batch.entries and all(other.answer.done() for other in batch.entries):
                batch.worker.stop(entry.item)

    def _give_up(self, entry: _Waiting[Item, Result]) -> None:
        now = time.perf_counter()
        starts = (began for batch, began in self._under_way() if began is not None and entry in batch.entries)
        began = next(starts, now)
        _fail(entry, DeadlineExceeded.after(began - entry.since, now - began))

    async def _dispatch(self) -> None:
        """Send a batch to every worker that becomes idle. Batches are made as late as possible, so that they are large."""
        while True:
            if not self._queue:
                self._arrival.clear()
                await self._arrival.wait()
            worker = await self._workers.take(self._plenty)
            if not (entries := self._next_batch(max(1, self._workers.alive))):
                self._workers.give_back(worker)
                continue
            task = asyncio.create_task(self._answer(worker, entries))
            self._batches[task] = _Batch(worker, entries, since=time.perf_counter())
            task.add_done_callback(self._batches.pop)

    @staticmethod
    def _stop(entries: Iterable[_Waiting[Item, Result]]) -> None:
        for entry in entries:
            _fail(entry, Stopped())

    def _next_batch(self, workers: int) -> list[_Waiting[Item, Result]]:
        """Take one worker's share of the queue, up to the limits."""
        batch: list[_Waiting[Item, Result]] = []
        seconds = 0.0
        most = min(self._limits.items, math.ceil(len(self._queue) / workers))
        while self._queue and len(batch) < most:
            entry = self._queue[0]
            enough = seconds >= self._large_s
            seconds += self._correction * entry.forecast_s
            if batch and (enough or entry.alone or seconds > self._limits.seconds):
                break
            self._queue.popleft()
            if _is_pending(entry):
                batch.append(entry)
                if entry.alone:
                    break
        return batch

    async def _answer(self, worker: Worker, entries: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            try:
                await self._compute_together(worker, entries)
            finally:
                self._workers.give_back(worker)
        except asyncio.CancelledError:
            self._stop(entries)
            raise
        except Exception as error:  # noqa: BLE001 — the callers must get any error
            self._retry(entries, error)

    def _retry(self, entries: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
        """Put items of a failed batch back at the front of the queue; an item alone only once, after the loss of its worker."""
        lost, not_started = isinstance(error, WorkerLost), isinstance(error, NotStarted)
        if not not_started:
            log.warning("batch_failed", items=len(entries), lost_worker=lost, exc_info=None if lost else error)
        for entry in reversed(entries):
            was_alone = len(entries) == 1 and not not_started
            entry.alone = entry.alone or not not_started
            entry.losses += was_alone and lost
            if was_alone and not (lost and entry.losses == 1):
                _fail(entry, error)
            elif _is_pending(entry):
                self._queue.appendleft(entry)
                self._arrival.set()

    async def _compute_together(self, worker: Worker, entries: Sequence[_Waiting[Item, Result]]) -> None:
        items, sent_at, turn = [entry.item for entry in entries], time.perf_counter(), self._workers.turn(worker)
        predicted_s = self._correction * self._forecast.batch_s + self._items_s(entries)
        try:
            results = await self._compute(worker, items, predicted_s)
        except NotStarted:
            raise
        except Exception as error:
            began = max(sent_at, self._workers.turn(worker) or turn)  # the pool has no turn of a lost worker
            self._on_batch(BatchReport(items, predicted_s, began, time.perf_counter() - began, error))
            raise
        began = max(sent_at, self._workers.turn(worker))
        compute_s = time.perf_counter() - began
        if len(results) != len(entries):
            raise RuntimeError(f"{len(entries)} items were computed to {len(results)} results")
        if any(not entry.answer.done() for entry in entries):  # otherwise it may have been stopped
            self._correct(entries, compute_s)
        self._on_batch(BatchReport(items, predicted_s, began, compute_s))
        for entry, result in zip(entries, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Computed(result, began - entry.since, began, compute_s, len(entries)))

    def _correct(self, batch: Sequence[_Waiting[Item, Result]], measured_s: float) -> None:
        forecast_s = self._forecast.batch_s + sum(entry.forecast_s for entry in batch)
        if forecast_s > 0.0:
            correction = min(max(measured_s / forecast_s, 1 / LARGEST_CORRECTION), LARGEST_CORRECTION)
            self._correction += CORRECTION_WEIGHT * (correction - self._correction)


def _is_pending(entry: _Waiting[Item, Result]) -> bool:
    """Return whether a caller still waits for this item; `submit` itself reports a deadline that has passed."""
    return not entry.answer.done() and asyncio.get_running_loop().time() < entry.deadline


def _fail(entry: _Waiting[Item, Result], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
