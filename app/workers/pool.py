"""The worker pool: which workers are idle, and how many batches they have."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from polymodal.app.settings import BundleSource
from polymodal.app.workers.engine import Item, ItemResult, Loaded

OVERDUE_FACTOR: Final = 8.0
"""A worker is unhealthy while its batch takes longer than this multiple of the prediction, and at least OVERDUE_S."""
OVERDUE_S: Final = 1.0
LOADING_S: Final = 60.0
"""Predicted time of loading a bundle, which limits how long a worker may hang in it."""


@dataclass(slots=True)
class Turn:
    """The present work of a worker."""

    expected_s: float
    """Predicted seconds; infinite for no limit."""
    stall_timeout_s: float
    since: float = field(default_factory=time.perf_counter)

    @property
    def lasts_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.since

    @property
    def overdue(self) -> bool:
        """Whether it takes far longer than predicted."""
        return self.lasts_s > max(OVERDUE_S, OVERDUE_FACTOR * self.expected_s)

    @property
    def stalled(self) -> bool:
        """Whether it has reached its limit: the configured time plus OVERDUE_FACTOR times its prediction.

        So a batch of minutes is not taken for one that hangs, and the limit of a batch of milliseconds is the configured one.
        """
        return self.lasts_s > self.stall_timeout_s + OVERDUE_FACTOR * self.expected_s


class Worker(ABC):
    """Computes one batch at a time."""

    depth: int
    """Batches that it may have at a time; all but one are prefetched."""
    _turn: Turn | None = None

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it is healthy."""

    @property
    def busy_s(self) -> float:
        """Seconds of its present batch; 0 while it is idle."""
        return 0.0 if (turn := self._turn) is None else turn.lasts_s

    @property
    def stalled(self) -> bool:
        """Whether its present batch has reached its stall limit."""
        return (turn := self._turn) is not None and turn.stalled

    @abstractmethod
    async def load(self, ref: str, source: BundleSource) -> Loaded:
        """Load a bundle under a reference. Raises BundleError, or WorkerLost when the worker is lost over it."""

    @abstractmethod
    async def unload(self, ref: str) -> None:
        """Forget what was loaded under a reference."""

    @abstractmethod
    async def compute(self, ref: str, task: str, items: Sequence[Item], expected_s: float) -> list[ItemResult]:
        """Compute a batch that is predicted to take `expected_s`.

        Raises BatchFailed, WorkerLost when the worker is lost during the batch, or NotStarted when it is lost before.
        """

    def stop(self, item: object) -> None:  # noqa: B027 — a thread computes its batch to the end
        """End the abandoned batch with this item early, if that is possible."""


class Pool:
    """Workers and their numbers of batches. For one event loop."""

    def __init__(self) -> None:
        self._batches: dict[Worker, int] = {}  # the worker that finished last is last
        self._turns: dict[Worker, float] = {}
        self._paused: set[Worker] = set()
        self._changed = asyncio.Event()

    def add(self, worker: Worker) -> None:
        """Add an idle worker."""
        self._batches[worker], self._turns[worker] = 0, time.perf_counter()
        self.nudge()

    def remove(self, worker: Worker) -> None:
        """Forget a worker that is lost."""
        self._batches.pop(worker, None)
        self._turns.pop(worker, None)
        self._paused.discard(worker)

    @property
    def workers(self) -> list[Worker]:
        """All workers, also paused and unhealthy ones."""
        return list(self._batches)

    def pause(self, worker: Worker) -> None:
        """Give a worker no batches until `resume`; it still counts."""
        self._paused.add(worker)

    def resume(self, worker: Worker) -> None:
        """Give a worker batches again."""
        self._paused.discard(worker)
        self.nudge()

    @property
    def alive(self) -> int:
        """Number of healthy workers, at work or idle."""
        return sum(worker.alive for worker in self._batches)

    @property
    def idle(self) -> int:
        """Number of healthy workers without a batch."""
        return sum(
            worker.alive and not batches and worker not in self._paused for worker, batches in self._batches.items()
        )

    @property
    def busy_s(self) -> float:
        """Seconds of the longest present batch; 0 while all workers are idle."""
        return max((worker.busy_s for worker in self._batches), default=0.0)

    @property
    def stalled(self) -> bool:
        """Whether a present batch has reached its stall limit."""
        return any(worker.stalled for worker in self._batches)

    async def take(self, ahead: Callable[[], bool] = lambda: False) -> Worker:
        """Wait for the worker that has been idle longest; while `ahead` is true, also for one that can prefetch a batch."""
        while (worker := self._free(0) or (self._free(1) if ahead() else None)) is None:
            self._changed.clear()
            await self._changed.wait()
        self._batches[worker] += 1
        return worker

    def _free(self, batches: int) -> Worker | None:
        free = (
            worker
            for worker, count in self._batches.items()
            if worker.alive and count == batches < worker.depth and worker not in self._paused
        )
        return next(free, None)

    def nudge(self) -> None:
        """Let `take` check again."""
        self._changed.set()

    def turn(self, worker: Worker) -> float:
        """Return when this worker last finished a batch, or started, on perf_counter; 0 when it is lost."""
        return self._turns.get(worker, 0.0)

    def give_back(self, worker: Worker) -> None:
        """Note that a worker has finished a batch, or is lost."""
        if (batches := self._batches.pop(worker, None)) is not None:
            self._batches[worker], self._turns[worker] = batches - 1, time.perf_counter()
            self.nudge()
