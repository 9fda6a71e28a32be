"""The deployments of a service: loaded bundles under their names, each with its queues."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Self, TypeAlias

import structlog

from polymodal.app.problems import RequestError
from polymodal.app.serving.batching import Batcher, BatchLimits, BatchReport
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Item, ItemResult
from polymodal.app.workers.latency import LatencyModel
from polymodal.app.workers.supervisor import Supervisor
from polymodal.model import DECODE, FUSE, SLOW_KINDS, TASKS, Description, encoding, kind_of, tasks_of, workload

Queue: TypeAlias = Batcher[Item, ItemResult]
OnBatch: TypeAlias = Callable[[str, BatchReport[Item]], None]

log = structlog.get_logger(__name__)


class UnknownModel(RequestError):
    """No model of that name is served."""

    status = 404
    code = "unknown_model"
    title = "No model of that name"

    def __init__(self, name: str, served: Iterable[str]) -> None:
        super().__init__("model", f'"{name[:64]}"', ", ".join(served))

    @classmethod
    def example(cls) -> Self:
        """Return the error for a misspelt name."""
        return cls("illustration", ["illustrations"])


class UnknownTask(RequestError):
    """The model is served, but does not have the requested task."""

    status = 404
    code = "unknown_task"
    title = "The model cannot do this"

    def __init__(self, model: str, task: str, tasks: Iterable[str]) -> None:
        super().__init__("model", f'"{model}", which has no task {task}', ", ".join(tasks))

    @classmethod
    def example(cls) -> Self:
        """Return the error of a model that only transcribes."""
        return cls("voices", "classify", ["transcribe"])


@dataclass(eq=False, slots=True)
class Deployment:
    """A loaded bundle under a name, with a queue for each of its tasks."""

    ref: str
    """Its name in workers, unique for each loaded version."""
    description: Description
    queues: Mapping[str, Queue]
    """By task."""
    stages: Sequence[str]
    """The stages that a worker may report, in their order."""
    supervisor: Supervisor
    """Of its workers."""
    loaded_at: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no request uses it."""
    slow: bool = False
    """Whether its items take seconds, and longer than other requests may."""
    _users: int = 0

    def __post_init__(self) -> None:
        self.unused.set()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep it loaded until the block ends."""
        self._users += 1
        self.unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self.unused.set()

    def check(self, task: str) -> None:
        """Raise UnknownTask when the model does not have the task."""
        if task not in self.queues:
            raise UnknownTask(self.description.name, task, self.queues)

    @property
    def backlog_s(self) -> float:
        """Predicted seconds until the workers have computed all submitted items."""
        return sum(queue.backlog_s for queue in self.queues.values())

    @property
    def waiting(self) -> int:
        """Number of items that no worker has yet."""
        return sum(queue.waiting for queue in self.queues.values())


@dataclass(frozen=True, slots=True)
class _Forecast:
    """A latency model as the forecast of a queue."""

    latency: LatencyModel

    @property
    def batch_s(self) -> float:
        return self.latency.batch_s

    def item_s(self, item: Item) -> float:
        return self.latency.item_s(item.units)


class Registry:
    """Loads, resolves and unloads deployments. Its state belongs to the event loop; enter it before the first `load`."""

    def __init__(
        self, settings: Settings, supervisor: Supervisor, on_batch: OnBatch, slow: Supervisor | None = None
    ) -> None:
        """`on_batch` gets the name of a model and the report of each of its batches.

        `slow`: the supervisor of models of SLOW_KINDS; None: all models share the workers.
        """
        self._settings = settings
        self._fast, self._slow = supervisor, slow or supervisor
        self._on_batch = on_batch
        self._deployments: dict[str, Deployment] = {}
        self._loaded: dict[Deployment, AsyncExitStack] = {}  # also replaced ones in use; the stack ends their queues
        self._numbers = count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """End all queues; items that wait or are computed fail with Stopped. Drain the service first to lose nothing."""
        while self._loaded:
            _, stack = self._loaded.popitem()
            await stack.aclose()

    @property
    def deployments(self) -> list[Deployment]:
        """All deployments; the first is the default one."""
        return list(self._deployments.values())

    def resolve(self, name: str | None = None, task: str | None = None) -> Deployment:
        """Return the deployment of a name; for None the first one, of those with the task if there are any. Raises UnknownModel."""
        if name is None:
            able = (name for name, deployment in self._deployments.items() if task in (None, *deployment.queues))
            name = next(able, next(iter(self._deployments), ""))
        if (deployment := self._deployments.get(name)) is None:
            raise UnknownModel(name, list(self._deployments))
        return deployment

    @contextmanager
    def use(self, name: str | None = None, task: str | None = None) -> Iterator[Deployment]:
        """Resolve a deployment once for a request, and keep it loaded until the block ends. Raises UnknownModel."""
        deployment = self.resolve(name, task)
        with deployment.used():
            yield deployment

    async def load(self, source: BundleSource, *, gradually: bool = False) -> Deployment:
        """Load a bundle in all workers and serve it under its source's name.

        An earlier deployment of this name serves until the new one has replayed its golden inputs in every worker, and is unloaded
        when its last request is answered. Raises BundleError, after which nothing has changed.

        `gradually`: load it in one worker after the other, so that the others can compute meanwhile.
        """
        ref = f"{source.name}#{next(self._numbers)}"
        supervisor = self._supervisor_of(source)
        loaded = await supervisor.load(ref, source, gradually=gradually)
        workload({spec.name: b"" for spec in loaded.description.inputs})  # imports what the first request would import
        stack = AsyncExitStack()
        queues = {
            task: await stack.enter_async_context(self._queue(ref, task, source.name, loaded.latency[task], supervisor))
            for task in tasks_of(loaded.description)
        }
        before = self._deployments.get(source.name)
        deployment = self._deployments[source.name] = Deployment(
            ref,
            loaded.description,
            queues,
            _stages(loaded.description),
            supervisor,
            slow=loaded.description.kind in SLOW_KINDS,
        )
        self._loaded[deployment] = stack
        if before is not None:
            log.info("model_replaced", model=source.name, digest=loaded.description.digest)
            await self._end(before)
        return deployment

    async def unload(self, name: str) -> None:
        """Stop serving a name, and free its memory when its last request is answered. Raises UnknownModel."""
        deployment = self.resolve(name)
        del self._deployments[name]
        await self._end(deployment)

    async def _end(self, deployment: Deployment) -> None:
        await deployment.unused.wait()
        if (stack := self._loaded.pop(deployment, None)) is not None:  # otherwise the service has ended meanwhile
            await stack.aclose()
            await deployment.supervisor.unload(deployment.ref)

    def _supervisor_of(self, source: BundleSource) -> Supervisor:
        """Return the supervisor whose workers load a bundle. Raises BundleError for an unknown kind."""
        return self._slow if self._slow is not self._fast and kind_of(source.path) in SLOW_KINDS else self._fast

    def _queue(self, ref: str, task: str, name: str, latency: LatencyModel, supervisor: Supervisor) -> Queue:
        limits = BatchLimits(
            items=self._settings.max_batch_items,
            seconds=self._settings.max_batch_ms / 1000,
            waiting=self._settings.queue_limit,
        )
        return Batcher(
            lambda worker, items, predicted_s: worker.compute(ref, task, items, predicted_s),
            forecast=_Forecast(latency),
            limits=limits,
            workers=supervisor.pool,
            backlog_of_others=lambda: self.backlog_s(but=(ref, task), of=supervisor),
            on_batch=lambda report: self._on_batch(name, report),
        )

    def backlog_s(self, but: tuple[str, str] | None = None, of: Supervisor | None = None) -> float:
        """Return the predicted seconds of the workers' backlog.

        `but`: reference and task of a queue to leave out; `of`: the supervisor whose workers count, by default that of fast models.
        """
        return sum(
            queue.backlog_s
            for deployment in self._loaded
            for task, queue in deployment.queues.items()
            if (deployment.ref, task) != but and deployment.supervisor is (of or self._fast)
        )


def _stages(description: Description) -> list[str]:
    own = [stage for task in tasks_of(description) for stage in TASKS[task].stages]
    return [DECODE, *(encoding(spec.name) for spec in description.inputs), FUSE, *own]
