"""From the inputs of an item to its answer, without HTTP, so that other transports are possible next to app/api.

stage                computed by                runs on
queue                Batcher                    the event loop
decode               Engine, of a whole batch   a worker
encode_…, fuse, …    the task, in the Engine    the same worker
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from enum import StrEnum
from typing import Final, Protocol, Self, TypeAlias, TypeVar

from polymodal.app.observe.timeline import QUEUE, Timeline
from polymodal.app.problems import Problem
from polymodal.app.serving.admission import Admission, Admitted
from polymodal.app.serving.batching import BatchReport, Computed, DeadlineExceeded
from polymodal.app.serving.cache import EmbeddingCache, Key, digest_of
from polymodal.app.serving.registry import Deployment, Registry
from polymodal.app.settings import Settings
from polymodal.app.workers.engine import Item, ItemResult
from polymodal.app.workers.supervisor import Supervisor
from polymodal.model import Description, Inputs, Observed, Task, TaskAnswer, TaskOptions, workload

Value = TypeVar("Value")
Unpack: TypeAlias = Callable[[], Inputs]

UNPACKING_THREADS: Final = 2
"""For work that would block the event loop too long: JSON, base64, digests of large inputs."""
FAST_BYTES: Final = 2**18
"""The digest of this many bytes takes a fraction of a millisecond."""


class State(StrEnum):
    """State of a service; it is ready when all models have replayed their golden inputs."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class NotReady(Problem):
    """No request is accepted now; another instance accepts it, or this one later."""

    status = 503
    code = "not_ready"
    title = "The service is not accepting requests"

    def __init__(self, state: str, retry_after_s: int) -> None:
        super().__init__(f"the service is {state}; allowed: requests while it is {State.READY}")
        self.retry_after_s = retry_after_s

    @classmethod
    def example(cls) -> Self:
        """Return the error while the service drains."""
        return cls(State.DRAINING, retry_after_s=20)


class Stalled(Problem):
    """A worker hangs that can't be replaced."""

    status = 503
    code = "stalled"
    title = "The inference worker hangs"
    retry_after_s = 1

    def __init__(self, limit_ms: int) -> None:
        super().__init__(f"one batch takes longer than {limit_ms} ms")

    @classmethod
    def example(cls) -> Self:
        """Return the error at the default limit."""
        return cls(10_000)


class Skipped(Exception):
    """The item was not computed, because another one of its request had failed."""


class Observer(Protocol):
    """Records measurements of the service."""

    def stage(self, model: str, name: str, seconds: float) -> None:
        """Record one stage of one item."""

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """Record a batch that was computed, or failed."""

    def observed(self, description: Description, used: frozenset[str], observed: Observed) -> None:
        """Record a model's answer about one item with these modalities."""

    def cached(self, modality: str, *, hit: bool) -> None:
        """Record a lookup in the embedding cache."""


class Service:
    """Deployments, and workers for all of them. Its state belongs to the event loop it was started on."""

    def __init__(
        self,
        settings: Settings,
        observer: Observer,
        supervisor: Supervisor,
        on_batch: Callable[[str, BatchReport[Item]], None] | None = None,
        slow: Supervisor | None = None,
    ) -> None:
        """`on_batch` is called in addition, with the name of the model; `slow`: supervisor of models whose items take seconds."""
        self.state = State.STARTING
        self._settings = settings
        self._observer = observer
        self._supervisor = supervisor
        self._supervisors = (supervisor, slow) if slow else (supervisor,)
        self._on_batch = on_batch
        self._cache = EmbeddingCache(settings.embedding_cache_bytes) if settings.embedding_cache_bytes else None
        self.registry = Registry(settings, supervisor, self._record_batch, slow)
        # As many requests as there can be items in the queue and with the workers.
        most = settings.queue_limit + settings.max_batch_items * max(1, settings.workers)
        self._admission = Admission(most, settings.max_inflight_bytes, self.registry.backlog_s)
        # Batches leave half of each queue to single requests, and never refuse their own items.
        self._most_of_batches = max(1, settings.queue_limit // 2)
        self._batch_slots = asyncio.Semaphore(self._most_of_batches)
        self._unpacking = ThreadPoolExecutor(UNPACKING_THREADS, thread_name_prefix="unpack")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the workers, load the bundles of the settings in them, then serve until the block ends.

        Raises model.BundleError when a bundle must not be served.
        """
        try:
            async with AsyncExitStack() as stack:
                for supervisor in self._supervisors:
                    await stack.enter_async_context(supervisor.working())
                await stack.enter_async_context(self.registry)
                for source in self._settings.bundles:
                    await self.registry.load(source)
                self.state = State.READY
                yield
                self.state = State.DRAINING
        finally:
            self._unpacking.shutdown(wait=False, cancel_futures=True)

    def _record_batch(self, model: str, report: BatchReport[Item]) -> None:
        self._observer.batch(model, report)
        if self._on_batch:
            self._on_batch(model, report)

    @property
    def models(self) -> list[Description]:
        """Descriptions of the served models; the first is the default model."""
        return [deployment.description for deployment in self.registry.deployments]

    def describe(self, model: str | None = None) -> Description:
        """Return the description of a model; of the default one for None. Raises UnknownModel, or NotReady while starting."""
        self.check_started()
        return self.registry.resolve(model).description

    @property
    def predicted_wait_s(self) -> float:
        """Predicted wait of a request that arrives now, in seconds."""
        return self.registry.backlog_s()

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
    def configured_workers(self) -> int:
        """Number of configured workers."""
        return sum(supervisor.size for supervisor in self._supervisors)

    @property
    def worker_pids(self) -> Sequence[int]:
        """Process ids of the workers."""
        return [pid for supervisor in self._supervisors for pid in supervisor.pids]

    @property
    def waiting(self) -> int:
        """Number of items in the queues of all models."""
        return sum(deployment.waiting for deployment in self.registry.deployments)

    @property
    def inside(self) -> int:
        """Requests that were admitted and not yet answered."""
        return self._admission.requests

    @property
    def inflight_bytes(self) -> int:
        """Bytes of the bodies of these requests."""
        return self._admission.bytes

    @property
    def busy_s(self) -> float:
        """Seconds of the longest present batch; 0 while all workers are idle."""
        return max(supervisor.pool.busy_s for supervisor in self._supervisors)

    @property
    def workers(self) -> int:
        """Number of healthy workers."""
        return sum(supervisor.pool.alive for supervisor in self._supervisors)

    @property
    def cached_bytes(self) -> int:
        """Memory of the cached embeddings, in bytes."""
        return self._cache.used_bytes if self._cache else 0

    def check_started(self) -> None:
        """Raise NotReady while the models are loading."""
        if self.state is State.STARTING:
            raise NotReady(self.state, retry_after_s=1)  # loading takes a few seconds

    def check_ready(self) -> None:
        """Raise NotReady unless requests are accepted."""
        self.check_started()
        if self._supervisor.pool.alive == 0:
            raise NotReady("without a worker that answers", retry_after_s=1)
        if self.state is State.DRAINING:  # another instance takes over
            raise NotReady(self.state, retry_after_s=max(1, self._settings.drain_timeout_s))

    def check_worker(self) -> None:
        """Raise Stalled when a worker hangs and can't be replaced."""
        if any(supervisor.pool.stalled for supervisor in self._supervisors):
            raise Stalled(self._settings.stall_timeout_ms)

    @contextmanager
    def admit(self) -> Iterator[Admitted]:
        """Admit a request, from before its body is read until it is answered.

        Admitted requests are finished even while draining. Raises NotReady or Overloaded.
        """
        self.check_ready()
        with self._admission.admit() as admitted:
            yield admitted

    def deadline(self, timeout_ms: int | None = None, *, slow: bool = False) -> float:
        """Return the deadline of a request that was just read, on the event loop's clock.

        `timeout_ms`: the client's timeout; the setting is its upper bound, for a slow deployment one of its own.
        """
        allowed = self._settings.slow_request_timeout_ms if slow else self._settings.request_timeout_ms
        return asyncio.get_running_loop().time() + min(allowed, timeout_ms or allowed) / 1000

    async def offload(self, work: Callable[[], Value]) -> Value:
        """Run work on a thread because it would block the event loop for too long."""
        return await asyncio.get_running_loop().run_in_executor(self._unpacking, work)

    async def run(
        self,
        deployment: Deployment,
        task: Task,
        inputs: Inputs,
        options: TaskOptions,
        *,
        deadline: float,
        timeline: Timeline | None = None,
        number: int | None = None,
    ) -> TaskAnswer:
        """Return the answer about one item, and record its stages in its request's timeline, as those of item `number` of a batch.

        Cancelling it removes the item from the queue.
        """
        queue, name = deployment.queues[task.name], deployment.description.name
        queue.check_time(deadline)  # before anything is spent on it
        timeline = timeline or Timeline()
        item, keys = await self._item(deployment.description, inputs, task.worker_options(options), timeline)
        try:
            computed = await queue.submit(item, deadline=deadline)
        except DeadlineExceeded as late:  # its time in the queue counts, too
            self._record_queue(name, time.perf_counter() - late.queue_s, late.queue_s, timeline, number)
            raise
        result = computed.result
        for modality, embedding in result.embeddings.items():
            if self._cache and modality in keys:
                self._cache.put(keys[modality], embedding.tobytes())
        self._record(deployment, computed, timeline, number)
        if result.error is not None:
            raise result.error
        used = result.used.intersection(inputs)  # workers are not trusted to add modalities
        if (observed := task.observed(result.arrays, deployment.description)) is not None:
            self._observer.observed(deployment.description, used, observed)
        return task.answer(result.arrays, used, options, deployment.description)

    def _record(
        self, deployment: Deployment, computed: Computed[ItemResult], timeline: Timeline, number: int | None
    ) -> None:
        name = deployment.description.name
        self._record_queue(name, computed.began - computed.queue_s, computed.queue_s, timeline, number)
        for stage in deployment.stages:  # any other stage that a worker sends is ignored
            if took := computed.result.stages.get(stage):
                timeline.note(stage, computed.began + took.after_s, took.seconds, number)
                self._observer.stage(name, stage, took.seconds)

    def _record_queue(self, model: str, since: float, seconds: float, timeline: Timeline, number: int | None) -> None:
        timeline.note(QUEUE, since, seconds, number)
        self._observer.stage(model, QUEUE, seconds)

    async def _item(
        self, description: Description, inputs: Inputs, options: Mapping[str, object], timeline: Timeline
    ) -> tuple[Item, Mapping[str, Key]]:
        """Return the item for a worker, and the keys of its inputs in the cache."""
        if self._cache is None:
            return Item(inputs, {}, options, workload(inputs), timeline), {}
        version = f"{description.digest} {description.runtime}"  # runtimes differ in the last digits

        def keys_of() -> dict[str, Key]:
            return {name: (version, name, digest_of(content)) for name, content in inputs.items()}

        large = sum(map(len, inputs.values())) > FAST_BYTES
        keys = await self.offload(keys_of) if large else keys_of()
        kept = {name: cached for name, key in keys.items() if (cached := self._cache.get(key)) is not None}
        for name in inputs:
            self._observer.cached(name, hit=name in kept)
        missing = {name: content for name, content in inputs.items() if name not in kept}
        return Item(missing, kept, options, workload(missing), timeline), keys

    async def run_all(
        self,
        deployment: Deployment,
        task: Task,
        items: Sequence[Unpack],
        options: TaskOptions,
        *,
        deadline: float,
        timeline: Timeline | None = None,
        together: bool = False,
    ) -> list[TaskAnswer | BaseException]:
        """Return the answer or the error of every item, in order; an item is unpacked just before it is queued.

        `together`: the answers are of use only if there is one for every item. After the first error, items that have not been
        queued are Skipped; they come after the failed one.
        """
        # A request with thousands of items takes no more places than this in the line for slots, so that others get their turns.
        places = asyncio.Semaphore(self._most_of_batches)
        failed = False

        async def answer(unpack: Unpack, number: int) -> TaskAnswer:
            if asyncio.get_running_loop().time() >= deadline:
                raise DeadlineExceeded("the request's deadline passed before this item's turn came")
            inputs = await self.offload(unpack)
            return await self.run(
                deployment, task, inputs, options, deadline=deadline, timeline=timeline, number=number
            )

        async def answer_in_turn(unpack: Unpack, number: int) -> TaskAnswer:
            nonlocal failed
            async with places, self._batch_slots:
                if failed and together:
                    raise Skipped
                try:
                    return await answer(unpack, number)
                except BaseException:
                    failed = True
                    raise

        answers = (answer_in_turn(unpack, number) for number, unpack in enumerate(items))
        return await asyncio.gather(*answers, return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests, and wait for the admitted ones; return False when that takes longer than `timeout_s`."""
        self.state = State.DRAINING
        until = time.perf_counter() + timeout_s
        while self.inside:
            if time.perf_counter() >= until:
                return False
            await asyncio.sleep(0.02)
        return True
