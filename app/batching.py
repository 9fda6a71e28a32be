"""The queue between requests and the workers: batches, deadlines, admission by predicted time.

It knows items and forecasts, no tensors and no HTTP. Its state belongs to the event loop.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import structlog

Item = TypeVar("Item")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Result = TypeVar("Result")
Worker = TypeVar("Worker")

FIXED_SHARE: Final = 0.04
"""A batch is large enough when what it costs beside its items is predicted to be so much of what they cost: more of them would make
the first ones wait, save next to nothing, and no longer fit into a core's cache."""
LEAST_FIXED_S: Final = 0.001
"""What every batch costs at least, whatever was forecast: it is sent somewhere, and its answers come back."""
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
    """The answer would come after the request's deadline.

    `queue_s` is how long the item had waited until a worker began it, or until now.
    """

    def __init__(self, problem: str, queue_s: float = 0.0) -> None:
        super().__init__(problem)
        self.queue_s = queue_s


class Stopped(Exception):
    """The queue was closed before the item's turn came."""


class Interrupted(Exception):
    """A worker was lost in the middle of a batch: nobody knows which of its items, if any, is to blame."""


class Untouched(Exception):
    """A worker was lost before it began a batch: none of its items is to blame."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one batch may hold, and how much may wait for its turn."""

    items: int
    seconds: float
    """Predicted, of one batch; an item that takes longer is computed alone."""
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
    began: float
    """When its batch did, on perf_counter."""
    compute_s: float
    """Of the whole batch that the item was computed in."""
    batch_size: int


@dataclass(frozen=True, slots=True)
class BatchReport(Generic[Item]):
    """What a batch took, also one that failed or lost its worker."""

    items: Sequence[Item]
    predicted_s: float
    began: float
    """On perf_counter."""
    compute_s: float
    error: Exception | None = None


class Workers(Protocol[Worker]):
    """Whoever computes: one batch at a time, and some take another one meanwhile, so as not to wait for it afterwards."""

    @property
    def alive(self) -> int:
        """How many there are, at work or idle."""
        ...

    @property
    def idle(self) -> int:
        """How many have nothing to do."""
        ...

    async def take(self, ahead: Callable[[], bool]) -> Worker:
        """An idle one, as soon as there is any; while `ahead` says so, also one that is at work and can take another batch."""
        ...

    def nudge(self) -> None:
        """What `ahead` says may have changed."""
        ...

    def turn(self, worker: Worker) -> float:
        """When this worker last finished a batch, on perf_counter; before that, it could not begin the next one."""
        ...

    def give_back(self, worker: Worker) -> None:
        """It has finished a batch, or is lost."""
        ...


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    forecast_s: float
    deadline: float
    """On the event loop's clock."""
    answer: asyncio.Future[Computed[Result]]
    since: float = field(default_factory=time.perf_counter)
    alone: bool = False
    """A batch with this item has failed: now it gets one of its own."""
    losses: int = 0
    """Workers that were lost while they had it alone."""


@dataclass(eq=False, slots=True)
class _Batch(Generic[Item, Result, Worker]):
    worker: Worker
    entries: list[_Waiting[Item, Result]]
    since: float = field(default_factory=time.perf_counter)
    """When it was given to the worker, which may have begun it later."""


class Batcher(Generic[Item, Result, Worker]):
    """Work-conserving batches: a worker that is idle takes its share of what waits, up to the limits, without any fixed wait.

    While more waits than makes a large batch for every worker, a worker gets its next one before it has finished. `compute` has a
    worker compute a batch. The items of a batch that fails are computed again, each by itself, so that one poisonous item fails
    alone; when a worker is lost with a single item, another one tries it once more. `elsewhere` says how many seconds of other work
    the workers have to do.
    """

    def __init__(
        self,
        compute: Callable[[Worker, Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        forecast: Forecast[Item],
        limits: BatchLimits,
        workers: Workers[Worker],
        elsewhere: Callable[[], float] = lambda: 0.0,
        on_batch: Callable[[BatchReport[Item]], None] = lambda report: None,
    ) -> None:
        self._compute = compute
        self._forecast = forecast
        self._limits = limits
        self._workers = workers
        self._elsewhere = elsewhere
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None
        self._batches: dict[asyncio.Task[None], _Batch[Item, Result, Worker]] = {}
        self._drift = 1.0  # running mean of measured ÷ forecast seconds

    async def __aenter__(self) -> Self:
        self._dispatching = asyncio.create_task(self._dispatch(), name="dispatch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop taking batches; what still waits or is computed fails with Stopped. Drain the service first to lose nothing."""
        running = [task for task in (self._dispatching, *self._batches) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._stop(self._queue)

    @property
    def waiting(self) -> int:
        """Items whose turn has not come."""
        return len(self._queue)

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until the workers have computed all that was submitted here."""
        now, seconds = time.perf_counter(), self._predicted(self._queue)
        for batch, began in self._under_way():
            spent_s = 0.0 if began is None else now - began
            seconds += max(0.0, self._predicted(batch.entries) - spent_s)
        return seconds / max(1, self._workers.alive)

    def _under_way(self) -> Iterator[tuple[_Batch[Item, Result, Worker], float | None]]:
        """What workers have, and when it was begun, on perf_counter; None while it waits behind another batch of its worker."""
        at_work = set[int]()
        for batch in self._batches.values():  # the oldest first
            first = id(batch.worker) not in at_work
            at_work.add(id(batch.worker))
            yield batch, max(batch.since, self._workers.turn(batch.worker)) if first else None

    @property
    def _large_s(self) -> float:
        """Predicted seconds of the items of a batch that need not be larger."""
        return self._drift * max(self._forecast.batch_s, LEAST_FIXED_S) / FIXED_SHARE

    def _predicted(self, entries: Sequence[_Waiting[Item, Result]] | deque[_Waiting[Item, Result]]) -> float:
        """As many batches as their number and time make, each full but the last."""
        limits = self._limits
        computing_s = self._items_s(entries)
        batches = min(len(entries), math.ceil(max(len(entries) / limits.items, computing_s / limits.seconds)))
        return self._drift * batches * self._forecast.batch_s + computing_s

    def _plenty(self) -> bool:
        """Whether every worker will find a large batch when it has finished the present one, so that none goes short when one gets
        its next one early."""
        items, workers = len(self._queue), self._workers.alive
        if items >= workers * self._limits.items:
            return True
        return self._items_s(self._queue) >= workers * self._large_s

    def _items_s(self, entries: Iterable[_Waiting[Item, Result]]) -> float:
        """Predicted seconds of items alone, without what their batches cost beside them."""
        return self._drift * sum(entry.forecast_s for entry in entries)

    def check_time(self, deadline: float, *, own_s: float = 0.0) -> None:
        """Raise Overloaded when what is ahead, and `own_s` after it, would end after `deadline` (on the loop's clock).

        With nothing ahead it never does: coming back later would not help.
        """
        ahead_s = self.backlog_s + self._elsewhere()
        left_s = deadline - asyncio.get_running_loop().time()
        if ahead_s > 0.0 and ahead_s + own_s > left_s:
            found = f"an answer would take about {1000 * (ahead_s + own_s):.0f} ms"
            raise Overloaded(found, f"{1000 * max(0.0, left_s):.0f} ms until this request's deadline", ahead_s)

    def check_room(self) -> None:
        """Raise Overloaded when as many wait as may."""
        about_to_leave = self._workers.idle * self._limits.items  # an idle worker takes a batch in this very moment
        if len(self._queue) >= self._limits.waiting + about_to_leave:
            found = f"{len(self._queue)} requests are waiting already"
            raise Overloaded(found, str(self._limits.waiting), self.backlog_s)

    async def submit(self, item: Item, *, deadline: float) -> Computed[Result]:
        """The item's result, unless there is no room, or `deadline` (on the loop's clock) will pass, or does pass, first.

        Cancelling the caller takes a waiting item out of the queue.
        """
        self.check_room()
        forecast_s = self._forecast.item_s(item)
        self.check_time(deadline, own_s=self._drift * forecast_s)
        loop = asyncio.get_running_loop()
        entry: _Waiting[Item, Result] = _Waiting(item, forecast_s, deadline, loop.create_future())
        self._queue.append(entry)
        self._arrival.set()
        self._workers.nudge()
        late = loop.call_at(deadline, self._give_up, entry)
        try:
            return await entry.answer
        finally:
            late.cancel()
            entry.answer.cancel()  # nothing happens when it is there
            if entry in self._queue:
                self._queue.remove(entry)

    def _give_up(self, entry: _Waiting[Item, Result]) -> None:
        now = time.perf_counter()
        begun = (began for batch, began in self._under_way() if began is not None and entry in batch.entries)
        began = next(begun, now)
        queue_s = began - entry.since
        where = f"in the queue for {queue_s:.2f} s and with a worker for {now - began:.2f} s"
        _fail(entry, DeadlineExceeded(f"no result before the request's deadline; it was {where}", queue_s))

    async def _dispatch(self) -> None:
        """Give every worker that becomes idle a batch, made as late as possible."""
        while True:
            if not self._queue:
                self._arrival.clear()
                await self._arrival.wait()
            worker = await self._workers.take(self._plenty)
            if not (entries := self._next_batch(max(1, self._workers.alive))):
                self._workers.give_back(worker)
                continue
            task = asyncio.create_task(self._answer(worker, entries))
            self._batches[task] = _Batch(worker, entries)
            task.add_done_callback(self._batches.pop)

    @staticmethod
    def _stop(entries: Iterable[_Waiting[Item, Result]]) -> None:
        for entry in entries:
            _fail(entry, Stopped("the service stopped before this request was computed"))

    def _next_batch(self, idle: int) -> list[_Waiting[Item, Result]]:
        """What waits, up to the limits; each of the `idle` workers gets as much."""
        batch: list[_Waiting[Item, Result]] = []
        seconds = 0.0
        most = min(self._limits.items, math.ceil(len(self._queue) / idle))
        while self._queue and len(batch) < most:
            entry = self._queue[0]
            enough = seconds >= self._large_s
            seconds += self._drift * entry.forecast_s
            if batch and (enough or entry.alone or seconds > self._limits.seconds):
                break
            self._queue.popleft()
            if _is_wanted(entry):
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
        except Exception as error:  # noqa: BLE001 — whatever it is, those who wait are told
            self._again(entries, error)

    def _again(self, entries: Sequence[_Waiting[Item, Result]], error: Exception) -> None:
        """Put back what has failed together, and what was alone with a worker that was lost, once; first in the queue."""
        lost, untouched = isinstance(error, Interrupted), isinstance(error, Untouched)
        if not untouched:
            log.warning("batch_failed", items=len(entries), lost_worker=lost, exc_info=None if lost else error)
        for entry in reversed(entries):
            was_alone = len(entries) == 1 and not untouched
            entry.alone = entry.alone or not untouched
            entry.losses += was_alone and lost
            if was_alone and not (lost and entry.losses == 1):
                _fail(entry, error)
            elif _is_wanted(entry):
                self._queue.appendleft(entry)
                self._arrival.set()

    async def _compute_together(self, worker: Worker, entries: Sequence[_Waiting[Item, Result]]) -> None:
        items, given, turn = [entry.item for entry in entries], time.perf_counter(), self._workers.turn(worker)
        predicted_s = self._drift * self._forecast.batch_s + self._items_s(entries)
        try:
            results = await self._compute(worker, items)
        except Untouched:
            raise
        except Exception as error:
            began = max(given, self._workers.turn(worker) or turn)  # a lost worker's is forgotten
            self._on_batch(BatchReport(items, predicted_s, began, time.perf_counter() - began, error))
            raise
        began = max(given, self._workers.turn(worker))
        compute_s = time.perf_counter() - began
        if len(results) != len(entries):
            raise RuntimeError(f"{len(entries)} items were computed to {len(results)} results")
        self._learn(entries, compute_s)
        self._on_batch(BatchReport(items, predicted_s, began, compute_s))
        for entry, result in zip(entries, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Computed(result, began - entry.since, began, compute_s, len(entries)))

    def _learn(self, batch: Sequence[_Waiting[Item, Result]], measured_s: float) -> None:
        forecast_s = self._forecast.batch_s + sum(entry.forecast_s for entry in batch)
        if forecast_s > 0.0:
            drift = min(max(measured_s / forecast_s, 1 / LARGEST_DRIFT), LARGEST_DRIFT)
            self._drift += DRIFT_WEIGHT * (drift - self._drift)


def _is_wanted(entry: _Waiting[Item, Result]) -> bool:
    """Whether somebody still waits for this item; `submit` itself reports a deadline that has passed."""
    return not entry.answer.done() and asyncio.get_running_loop().time() < entry.deadline


def _fail(entry: _Waiting[Item, Result], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
