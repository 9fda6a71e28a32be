"""A worker that is a thread of the serving process, which a crash of a decoder or a runtime therefore ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Engine, Item, ItemResult, Loaded
from polymodal.app.workers.pool import LOADING_S, Pool, Turn, Worker
from polymodal.model import Model


class ThreadWorker(Worker):
    """A worker with one thread and its models."""

    depth = 1

    def __init__(self, engine: Engine, stall_timeout_s: float) -> None:
        self._engine = engine
        self._stall_timeout_s = stall_timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @property
    def alive(self) -> bool:
        """Whether it is healthy: false while a batch takes far longer than predicted."""
        return self._turn is None or not self._turn.overdue

    async def load(self, ref: str, source: BundleSource) -> Loaded:
        """Load a bundle under a reference. Raises BundleError."""
        loaded: Loaded = await self._run(lambda: self._engine.load(ref, source), LOADING_S)
        return loaded

    async def unload(self, ref: str) -> None:
        """Forget what was loaded under a reference."""
        await self._run(lambda: self._engine.unload(ref), 0.0)

    async def compute(self, ref: str, task: str, items: Sequence[Item], expected_s: float) -> list[ItemResult]:
        """Compute a batch that is predicted to take `expected_s`."""
        results: list[ItemResult] = await self._run(lambda: self._engine.compute(ref, task, items), expected_s)
        return results

    async def _run(self, work: Callable[[], Any], expected_s: float) -> Any:  # noqa: ANN401
        def timed() -> Any:  # noqa: ANN401
            self._turn = Turn(expected_s, self._stall_timeout_s)
            try:
                return work()
            finally:
                self._turn = None  # not before the thread is done, even when the request was cancelled

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def end(self) -> None:
        """Cancel what has not started."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class ThreadSupervisor:
    """Runs a single worker inside the serving process."""

    def __init__(self, settings: Settings, preloaded: Mapping[str, Model] | None = None) -> None:
        """`preloaded`: models by the name of their source, which are not loaded from its folder."""
        self.pool = Pool()
        self.size = 1
        self.pids: Sequence[int] = ()
        self._worker = ThreadWorker(Engine(settings, preloaded), settings.stall_timeout_ms / 1000)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep the thread until the block ends."""
        self.pool.add(self._worker)
        try:
            yield
        finally:
            self._worker.end()

    async def load(self, ref: str, source: BundleSource, *, gradually: bool = False) -> Loaded:
        """Load a bundle under a reference. Raises BundleError."""
        return await self._worker.load(ref, source)

    async def unload(self, ref: str) -> None:
        """Forget what was loaded under a reference."""
        await self._worker.unload(ref)
