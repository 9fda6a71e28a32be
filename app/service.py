"""One classification from beginning to end without HTTP, so that another transport can stand beside routes/.

step      what                  runs on
prepare   Predictor.prepare     the decode threads
queue     Batcher               the event loop
predict   Predictor.predict     the inference threads, which all models share
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar

from app.batching import Batcher, BatchLimits, DeadlineExceeded, Overloaded
from app.latency import LatencyModel
from app.settings import BundleSource, Settings
from model import Description, EmbeddingCache, Prediction, Predictor, Sample, load_bundle

Value = TypeVar("Value")

NICENESS: Final = 7
"""Of the inference threads, above that of the process: decoding and the event loop get about five times their share of a core."""

Parts: TypeAlias = Mapping[str, bytes | str]
"""What a client gave, by modality: the bytes of an image, a text as `str` or UTF-8 bytes."""


class State(StrEnum):
    """A service is ready from the moment its models agree with their golden inputs until it is told to stop."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class NotReady(Exception):
    """No request is accepted now; another instance, or this one in a while, will take it."""

    def __init__(self, state: State, retry_after_s: int) -> None:
        super().__init__(f"the service is {state}; allowed: requests while it is {State.READY}")
        self.retry_after_s = retry_after_s


class UnknownModel(Exception):
    """No model of that name is served."""

    def __init__(self, name: str, served: Sequence[str]) -> None:
        self.input, self.found, self.allowed = "model", f'"{name[:64]}"', ", ".join(served)
        super().__init__(f"{self.input}: {self.found}; allowed: {self.allowed}")


class Stalled(Exception):
    """An inference thread hangs."""


class Observer(Protocol):
    """Who wants to know how long things take; the metrics do."""

    def stage(self, name: str, seconds: float) -> None:
        """One step of one classification."""

    def batch(self, items: int) -> None:
        """One batch was computed."""

    def cached(self, modality: str, *, hit: bool) -> None:
        """An embedding was looked for among those that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A prediction, the model that made it, and the seconds that each step took."""

    prediction: Prediction
    description: Description
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Served:
    predictor: Predictor
    batcher: Batcher[Sample, Prediction]


def load_predictors(settings: Settings, cache: EmbeddingCache | None) -> dict[str, Predictor]:
    """Load every bundle of the settings, in their order; takes seconds. Raises model.BundleError."""
    return {source.name: _load(source, settings, cache) for source in settings.bundles}


def _forecast(predictor: Predictor) -> LatencyModel:
    return LatencyModel.measured(predictor.predict, predictor.probes())


def _load(source: BundleSource, settings: Settings, cache: EmbeddingCache | None) -> Predictor:
    return load_bundle(
        source.path, name=source.name, runtime=settings.runtime, threads=settings.inference_threads, cache=cache
    )


def _yield_to_others() -> None:
    """Let this thread compute when nobody else wants its core.

    What was decoded then waits together and is computed together, and the event loop answers in time under any load.
    """
    if sys.platform == "linux":  # elsewhere the priority is the whole process'
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


class Service:
    """Several models by name, inference threads for all. Its state belongs to the event loop it was started on."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self.state = State.STARTING
        self._settings = settings
        self._observer = observer
        self._served: dict[str, _Served] = {}
        self._inside = 0  # requests between admission and answer
        self._room = settings.queue_limit + settings.max_batch_items  # as many as may wait and be computed
        # Batches leave half of each queue to single requests, and never refuse their own items.
        self._batch_slots = asyncio.Semaphore(max(1, settings.queue_limit // 2))
        self._decoding = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._inference = ThreadPoolExecutor(
            settings.inference_streams, thread_name_prefix="inference", initializer=_yield_to_others
        )

    @asynccontextmanager
    async def running(self, load: Callable[[], Mapping[str, Predictor]]) -> AsyncIterator[None]:
        """Load the models and replay their golden inputs, then serve until the block ends.

        Raises model.BundleError when a bundle must not be served.
        """
        try:
            async with AsyncExitStack() as batchers:
                for name, predictor in (await self._on_inference(load)).items():
                    await self._on_inference(predictor.warm_up)
                    forecast = await self._on_inference(partial(_forecast, predictor))
                    batcher = self._batcher(predictor, forecast)
                    self._served[name] = _Served(predictor, await batchers.enter_async_context(batcher))
                self.state = State.READY
                yield
                self.state = State.DRAINING
        finally:
            self._decoding.shutdown(wait=False, cancel_futures=True)
            self._inference.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, predictor: Predictor, forecast: LatencyModel) -> Batcher[Sample, Prediction]:
        limits = BatchLimits(
            items=self._settings.max_batch_items,
            cost=self._settings.max_batch_cost,
            waiting=self._settings.queue_limit,
        )
        return Batcher(
            predictor.predict,
            cost=lambda sample: sample.cost,
            forecast=forecast,
            limits=limits,
            worker=self._inference,
            streams=self._settings.inference_streams,
            elsewhere=lambda: self._backlog_s(but=predictor),
            on_batch=self._observer.batch,
        )

    def _backlog_s(self, but: Predictor | None = None) -> float:
        """Predicted seconds of the inference threads' work, without that of one model."""
        return sum(each.batcher.backlog_s for each in self._served.values() if each.predictor is not but)

    async def _on_inference(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._inference, work)

    @property
    def models(self) -> list[Description]:
        """What is served; the first is the default model."""
        return [served.predictor.description for served in self._served.values()]

    def describe(self, model: str | None = None) -> Description:
        """One model, the default one unless named. Raises UnknownModel, or NotReady before there is any."""
        return self._find(model).predictor.description

    def _find(self, model: str | None) -> _Served:
        self.check_started()
        name = next(iter(self._served)) if model is None else model
        if name not in self._served:
            raise UnknownModel(name, list(self._served))
        return self._served[name]

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
        """How long an inference thread has been at its current batch; 0 when all rest."""
        return max((served.batcher.busy_s for served in self._served.values()), default=0.0)

    def check_started(self) -> None:
        """Raise NotReady while the models are loading."""
        if self.state is State.STARTING:
            raise NotReady(self.state, retry_after_s=1)  # a guess: loading takes a few

    def check_ready(self) -> None:
        """Raise NotReady unless requests are accepted."""
        self.check_started()
        if self.state is State.DRAINING:  # its successor takes over
            raise NotReady(self.state, retry_after_s=max(1, self._settings.drain_timeout_s))

    def check_worker(self) -> None:
        """Raise Stalled when an inference thread hangs."""
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
        """Run something slow on the decode threads."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work)

    async def classify(self, parts: Parts, *, model: str | None, deadline: float) -> Outcome:
        """One answer. Cancelling it takes the example out of the queue."""
        served = self._find(model)
        served.batcher.check_time(deadline)  # before anything is spent on it
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                sample = await self.offload(lambda: served.predictor.prepare(parts))
        except TimeoutError:
            raise DeadlineExceeded("decoding did not finish before the request's deadline") from None
        decode_s = time.perf_counter() - started
        for hit, names in ((True, sample.embeddings), (False, sample.keys)):
            for name in names:
                self._observer.cached(name, hit=hit)
        computed = await served.batcher.submit(sample, deadline=deadline)
        stages = {"decode": decode_s, "queue": computed.queue_s, "predict": computed.compute_s}
        for name, seconds in stages.items():
            self._observer.stage(name, seconds)
        return Outcome(computed.result, served.predictor.description, stages)

    async def classify_all(
        self, items: Sequence[Callable[[], Parts]], *, model: str | None, deadline: float
    ) -> list[Outcome | BaseException]:
        """An answer or the reason for its lack for each item, in order; each is unpacked when its turn comes."""

        async def answer(unpack: Callable[[], Parts]) -> Outcome:
            async with self._batch_slots:
                if asyncio.get_running_loop().time() >= deadline:
                    raise DeadlineExceeded("the request's deadline passed before this item's turn came")
                return await self.classify(await self.offload(unpack), model=model, deadline=deadline)

        return await asyncio.gather(*(answer(unpack) for unpack in items), return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more, and wait for what is inside; False when that took longer than `timeout_s`."""
        self.state = State.DRAINING
        give_up = time.perf_counter() + timeout_s
        while self._inside:
            if time.perf_counter() >= give_up:
                return False
            await asyncio.sleep(0.02)
        return True
