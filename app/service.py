"""One classification from beginning to end without HTTP, so that another transport can stand beside routes/.

stage                what                       runs on
queue                Batcher                    the event loop
decode               Engine, of a whole batch   a worker
encode_…, fuse       Engine                     the same worker
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias, TypeVar

from app.batching import Batcher, BatchLimits, BatchReport, Computed, DeadlineExceeded, Overloaded
from app.cache import EmbeddingCache, Key, digest_of
from app.engine import Answer, Item, Model
from app.latency import LatencyModel
from app.settings import Settings
from app.timeline import DECODE, FUSE, QUEUE, Timeline, encoding
from app.workers import Worker, Workforce
from model import Description, InputError, Parts, Prediction, workload

Value = TypeVar("Value")

UNPACKING_THREADS: Final = 2
"""For what would keep the event loop too long: JSON, base64, digests of large pictures."""
QUICK_BYTES: Final = 2**18
"""Of which a digest takes a fraction of a millisecond."""


class State(StrEnum):
    """A service is ready from the moment its models agree with their golden inputs until it is told to stop."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class NotReady(Exception):
    """No request is accepted now; another instance, or this one in a while, will take it."""

    def __init__(self, state: str, retry_after_s: int) -> None:
        super().__init__(f"the service is {state}; allowed: requests while it is {State.READY}")
        self.retry_after_s = retry_after_s


class UnknownModel(Exception):
    """No model of that name is served."""

    def __init__(self, name: str, served: Sequence[str]) -> None:
        self.input, self.found, self.allowed = "model", f'"{name[:64]}"', ", ".join(served)
        super().__init__(f"{self.input}: {self.found}; allowed: {self.allowed}")


class Stalled(Exception):
    """The thread that computes hangs."""


class Observer(Protocol):
    """Who wants to know how long things take; the metrics do."""

    def stage(self, model: str, name: str, seconds: float) -> None:
        """One stage of one classification."""

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """One batch was computed, or failed."""

    def predicted(self, description: Description, prediction: Prediction) -> None:
        """A model has said something."""

    def cached(self, modality: str, *, hit: bool) -> None:
        """An embedding was looked for among those that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A prediction, and the model that made it."""

    prediction: Prediction
    description: Description


@dataclass(frozen=True, slots=True)
class _Forecast:
    """A model's latency, by items."""

    latency: LatencyModel

    @property
    def batch_s(self) -> float:
        return self.latency.batch_s

    def item_s(self, item: Item) -> float:
        return self.latency.item_s(item.units)

    def seconds(self, items: Sequence[Item]) -> float:
        return self.batch_s + sum(map(self.item_s, items))


_Queue: TypeAlias = Batcher[Item, Answer, Worker]


@dataclass(frozen=True, slots=True)
class _Served:
    description: Description
    batcher: _Queue
    stages: Sequence[str]
    """Of what a worker does for it, in their order."""

    def key(self, modality: str, part: bytes | str) -> Key:
        """Under which the embedding of a part is kept; runtimes differ in the last digits."""
        return f"{self.description.digest} {self.description.runtime}", modality, digest_of(part)


class Service:
    """Several models by name, workers for all. Its state belongs to the event loop it was started on."""

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        workforce: Workforce,
        on_batch: Callable[[str, BatchReport[Item]], None] | None = None,
    ) -> None:
        """`on_batch` is told of batches too, with the name of their model."""
        self.state = State.STARTING
        self._settings = settings
        self._observer = observer
        self._workforce = workforce
        self._on_batch = on_batch
        self._cache = EmbeddingCache(settings.embedding_cache_bytes) if settings.embedding_cache_bytes else None
        self._served: dict[str, _Served] = {}
        self._inside = 0  # requests between admission and answer
        self._room = settings.queue_limit + settings.max_batch_items * max(
            1, settings.workers
        )  # may wait and be computed
        # Batches leave half of each queue to single requests, and never refuse their own items.
        self._batch_slots = asyncio.Semaphore(max(1, settings.queue_limit // 2))
        self._unpacking = ThreadPoolExecutor(UNPACKING_THREADS, thread_name_prefix="unpack")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the workers, which replay the models' golden inputs, then serve until the block ends.

        Raises model.BundleError when a bundle must not be served.
        """
        try:
            async with self._workforce.working() as models, AsyncExitStack() as batchers:
                for name, model in models.items():
                    batcher = await batchers.enter_async_context(self._batcher(name, model))
                    encoding_all = [encoding(each.name) for each in model.description.inputs]
                    self._served[name] = _Served(model.description, batcher, [DECODE, *encoding_all, FUSE])
                self.state = State.READY
                yield
                self.state = State.DRAINING
        finally:
            self._unpacking.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, name: str, model: Model) -> _Queue:
        limits = BatchLimits(
            items=self._settings.max_batch_items,
            seconds=self._settings.max_batch_ms / 1000,
            waiting=self._settings.queue_limit,
        )
        forecast = _Forecast(model.latency)

        def tell(report: BatchReport[Item]) -> None:
            self._observer.batch(name, report)
            if self._on_batch:
                self._on_batch(name, report)

        return Batcher(
            lambda worker, items: worker.compute(name, items, forecast.seconds(items)),
            forecast=forecast,
            limits=limits,
            workers=self._workforce.pool,
            elsewhere=lambda: self._backlog_s(but=name),
            on_batch=tell,
        )

    def _backlog_s(self, but: str | None = None) -> float:
        """Predicted seconds of the workers' work, without that of one model."""
        return sum(each.batcher.backlog_s for name, each in self._served.items() if name != but)

    @property
    def models(self) -> list[Description]:
        """What is served; the first is the default model."""
        return [served.description for served in self._served.values()]

    def describe(self, model: str | None = None) -> Description:
        """One model, the default one unless named. Raises UnknownModel, or NotReady before there is any."""
        return self._find(model).description

    def _find(self, model: str | None) -> _Served:
        self.check_started()
        name = next(iter(self._served)) if model is None else model
        if name not in self._served:
            raise UnknownModel(name, list(self._served))
        return self._served[name]

    @property
    def predicted_wait_s(self) -> float:
        """Until a request that comes now would be begun."""
        return self._backlog_s()

    @property
    def ready(self) -> bool:
        """Whether requests are accepted and no worker hangs."""
        try:
            self.check_ready()
            self.check_worker()
        except (NotReady, Stalled):
            return False
        return True

    @property
    def workers_wanted(self) -> int:
        """How many there should be."""
        return self._workforce.wanted

    @property
    def worker_pids(self) -> Sequence[int]:
        """Processes that compute."""
        return self._workforce.pids

    @property
    def waiting(self) -> int:
        """Examples whose turn has not come, over all models."""
        return sum(served.batcher.waiting for served in self._served.values())

    @property
    def inside(self) -> int:
        """Requests that were admitted and not yet answered."""
        return self._inside

    @property
    def busy_s(self) -> float:
        """How long a worker has been at its present batch; 0 when all rest."""
        return self._workforce.pool.busy_s

    @property
    def workers(self) -> int:
        """How many workers are alive."""
        return self._workforce.pool.alive

    @property
    def cached_bytes(self) -> int:
        """Memory of the embeddings that are kept."""
        return self._cache.used_bytes if self._cache else 0

    def check_started(self) -> None:
        """Raise NotReady while the models are loading."""
        if self.state is State.STARTING:
            raise NotReady(self.state, retry_after_s=1)  # a guess: loading takes a few

    def check_ready(self) -> None:
        """Raise NotReady unless requests are accepted."""
        self.check_started()
        if self.workers == 0:
            raise NotReady("without a worker that answers", retry_after_s=1)
        if self.state is State.DRAINING:  # its successor takes over
            raise NotReady(self.state, retry_after_s=max(1, self._settings.drain_timeout_s))

    def check_worker(self) -> None:
        """Raise Stalled when a worker hangs that can't be replaced."""
        if self.busy_s * 1000 > self._settings.stall_timeout_ms:
            raise Stalled(f"one batch takes longer than {self._settings.stall_timeout_ms} ms")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request in, from before its body is read until it is answered.

        The bound on what is inside bounds the memory that bodies take. What was admitted is finished even while
        draining. Raises NotReady or Overloaded.
        """
        self.check_ready()
        if self._inside >= self._room:
            raise Overloaded(f"{self._inside} requests are waiting already", str(self._room), self._backlog_s())
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def deadline(self, timeout_ms: int | None = None) -> float:
        """When a request that was read just now must be answered, on the event loop's clock.

        `timeout_ms` is what the client allows; more than the settings allow counts as that.
        """
        allowed = self._settings.request_timeout_ms
        return asyncio.get_running_loop().time() + min(allowed, timeout_ms or allowed) / 1000

    async def offload(self, work: Callable[[], Value]) -> Value:
        """Run something on a thread that would keep the event loop too long."""
        return await asyncio.get_running_loop().run_in_executor(self._unpacking, work)

    async def classify(
        self,
        parts: Parts,
        *,
        model: str | None,
        deadline: float,
        timeline: Timeline | None = None,
        number: int | None = None,
    ) -> Outcome:
        """One answer; its stages are noted in the timeline of its request, in which it may be item `number`.

        Cancelling it takes the example out of the queue.
        """
        served = self._find(model)
        served.batcher.check_time(deadline)  # before anything is spent on it
        timeline = timeline or Timeline()
        item, keys = await self._item(served, parts, timeline)
        try:
            computed = await served.batcher.submit(item, deadline=deadline)
        except DeadlineExceeded as late:  # what was given up has waited too, and longest
            self._note_queue(served, time.perf_counter() - late.queue_s, late.queue_s, timeline, number)
            raise
        answer = computed.result
        for name, embedding in answer.embeddings.items():
            if self._cache and name in keys:
                self._cache.put(keys[name], embedding)
        self._note(served, computed, timeline, number)
        if isinstance(answer.outcome, InputError):
            raise answer.outcome
        self._observer.predicted(served.description, answer.outcome)
        return Outcome(answer.outcome, served.description)

    def _note(self, served: _Served, computed: Computed[Answer], timeline: Timeline, number: int | None) -> None:
        name = served.description.name
        self._note_queue(served, computed.began - computed.queue_s, computed.queue_s, timeline, number)
        for stage in served.stages:  # whatever else a worker says ends here
            if took := computed.result.stages.get(stage):
                timeline.note(stage, computed.began + took.after_s, took.seconds, number)
                self._observer.stage(name, stage, took.seconds)

    def _note_queue(
        self, served: _Served, since: float, seconds: float, timeline: Timeline, number: int | None
    ) -> None:
        timeline.note(QUEUE, since, seconds, number)
        self._observer.stage(served.description.name, QUEUE, seconds)

    async def _item(self, served: _Served, parts: Parts, timeline: Timeline) -> tuple[Item, Mapping[str, Key]]:
        """What a worker must do for these parts, and under which keys its embeddings are kept."""
        if self._cache is None:
            return Item(parts, units=workload(parts), timeline=timeline), {}
        if sum(map(len, parts.values())) > QUICK_BYTES:
            keys = await self.offload(lambda: {name: served.key(name, part) for name, part in parts.items()})
        else:
            keys = {name: served.key(name, part) for name, part in parts.items()}
        kept = {name: found for name, key in keys.items() if (found := self._cache.get(key)) is not None}
        for name in parts:
            self._observer.cached(name, hit=name in kept)
        missing = {name: part for name, part in parts.items() if name not in kept}
        return Item(missing, kept, workload(missing), timeline), keys

    async def classify_all(
        self,
        items: Sequence[Callable[[], Parts]],
        *,
        model: str | None,
        deadline: float,
        timeline: Timeline | None = None,
    ) -> list[Outcome | BaseException]:
        """An answer or the reason for its lack for each item, in order; each is unpacked when its turn comes."""

        async def answer(number: int, unpack: Callable[[], Parts]) -> Outcome:
            async with self._batch_slots:
                if asyncio.get_running_loop().time() >= deadline:
                    raise DeadlineExceeded("the request's deadline passed before this item's turn came")
                parts = await self.offload(unpack)
                return await self.classify(parts, model=model, deadline=deadline, timeline=timeline, number=number)

        answers = (answer(number, unpack) for number, unpack in enumerate(items))
        return await asyncio.gather(*answers, return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more, and wait for what is inside; False when that took longer than `timeout_s`."""
        self.state = State.DRAINING
        give_up = time.perf_counter() + timeout_s
        while self._inside:
            if time.perf_counter() >= give_up:
                return False
            await asyncio.sleep(0.02)
        return True
