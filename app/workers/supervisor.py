"""Starts the workers of a service, loads models in all of them, and restarts a worker that has died.

A process needs memory for its own copy of the models, but shares no Python lock with the others, and the service survives a crash
of a decoder or a runtime.
"""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import structlog

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Loaded
from polymodal.app.workers.failures import NotStarted, WorkerLost
from polymodal.app.workers.pool import Pool, Worker
from polymodal.app.workers.process import HEARTBEATS, Heartbeats, ProcessWorker
from polymodal.app.workers.thread import ThreadSupervisor
from polymodal.model import BundleError

FIRST_PAUSE_S: Final = 0.1
"""Seconds before a worker that died is restarted; doubled each time it dies soon after its start."""
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""Seconds after its start from which a worker that dies did not die because of its start."""
Value = TypeVar("Value")

_ISOLATED: Final = ("-P",)  # no imports from the current folder

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Deployed:
    """A bundle that every worker loads."""

    source: BundleSource
    digest: str = ""
    """Of the bundle that the first worker loaded."""


class ProcessSupervisor:
    """Runs the worker processes of the settings, and loads bundles in all of them."""

    def __init__(
        self,
        settings: Settings,
        on_restart: Callable[[], None] = lambda: None,
        heartbeats: Heartbeats = HEARTBEATS,
    ) -> None:
        self.pool = Pool()
        self.size = settings.workers
        self._settings = settings
        self._on_restart = on_restart
        self._heartbeats = heartbeats
        self._living: dict[int, ProcessWorker] = {}
        self._deployed: dict[str, _Deployed] = {}

    @property
    def pids(self) -> Sequence[int]:
        """Ids of the worker processes, also of those that have just died."""
        return [worker.process.pid for worker in self._living.values()]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Start all processes together; restart those that die until the block ends."""
        keeping: list[asyncio.Task[None]] = []
        try:
            await _all(self._start(number) for number in range(self.size))
            for number, worker in self._living.items():
                self.pool.add(worker)
                keeping.append(asyncio.create_task(self._keep(number, worker)))
            yield
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await asyncio.gather(*(worker.end() for worker in self._living.values()))

    async def load(self, ref: str, source: BundleSource, *, gradually: bool = False) -> Loaded:
        """Load a bundle in every worker, now and after each restart. After BundleError, no worker has it.

        `gradually`: in one worker after the other, so that the others can compute meanwhile.
        """
        self._deployed[ref] = deployed = _Deployed(source)
        try:
            loaded = await self._load_in_pool(ref, source, gradually=gradually)
        except BaseException:
            await self.unload(ref)
            raise
        deployed.digest = loaded.description.digest
        return loaded

    async def _load_in_pool(self, ref: str, source: BundleSource, *, gradually: bool) -> Loaded:
        loading = (self._load(worker, ref, source, apart=gradually) for worker in self.pool.workers)
        answers = [await answer for answer in loading] if gradually else await _all(loading)
        loaded = [answer for answer in answers if answer is not None]
        if not loaded:
            raise BundleError(f"no worker lived long enough to load the model {source.name}")
        if len({answer.description.digest for answer in loaded}) > 1:
            raise BundleError(f"{source.path}: the bundle changed while it was loaded")
        return loaded[0]

    async def _load(self, worker: Worker, ref: str, source: BundleSource, *, apart: bool) -> Loaded | None:
        """Load a bundle in a worker; `apart`: pause its batches meanwhile. Returns None if it is lost before it begins."""
        if apart:
            self.pool.pause(worker)
        try:
            return await worker.load(ref, source)
        except NotStarted:
            return None
        except WorkerLost as problem:
            raise BundleError(f"{problem} while it loaded the model {source.name}") from None
        finally:
            self.pool.resume(worker)

    async def unload(self, ref: str) -> None:
        """Forget a bundle in every worker."""
        self._deployed.pop(ref, None)
        unloading = (worker.unload(ref) for worker in self.pool.workers)
        await asyncio.gather(*unloading, return_exceptions=True)  # a lost worker has no models

    async def _start(self, number: int) -> None:
        """Start a process, without models."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *_ISOLATED, "-m", "polymodal.app.workers", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        stall_timeout_s = self._settings.stall_timeout_ms / 1000
        worker = ProcessWorker(process, ours, stall_timeout_s, self.pool.nudge, self._heartbeats)
        self._living[number] = worker
        await worker.init(self._settings, number)

    async def _keep(self, number: int, worker: ProcessWorker) -> None:
        """Restart a worker whenever it has died."""
        pause_s = FIRST_PAUSE_S
        while True:
            code = await worker.process.wait()
            worker.lose("a worker died")
            worker.close()
            self.pool.remove(worker)
            log.error("worker_died", worker=number, exit_code=code)
            if time.perf_counter() - worker.started_at > STEADY_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._on_restart()
            if await self._restart(number):
                self.pool.add(self._living[number])
            worker = self._living[number]

    async def _restart(self, number: int) -> bool:
        """Start a process and load all models in it; return whether that succeeded."""
        try:
            await self._start(number)
            reason = await self._load_all(self._living[number])
        except (BundleError, WorkerLost, NotStarted, OSError) as problem:
            reason = str(problem)
        if reason:
            log.error("worker_not_started", worker=number, problem=reason)
            self._living[number].lose(reason)
        return not reason

    async def _load_all(self, worker: ProcessWorker) -> str:
        """Load all deployed bundles, with changes that happen meanwhile. Returns the reason of a failure, "" on success."""
        refs: set[str] = set()
        while differences := refs.symmetric_difference(self._deployed):
            ref = differences.pop()
            if (deployed := self._deployed.get(ref)) is None:
                await worker.unload(ref)
                refs.remove(ref)
                continue
            loaded = await worker.load(ref, deployed.source)
            if deployed.digest not in ("", loaded.description.digest):
                return "a bundle is not the one that the service started with"
            refs.add(ref)
        return ""


Supervisor: TypeAlias = ProcessSupervisor | ThreadSupervisor


async def _all(coroutines: Iterable[Coroutine[Any, Any, Value]]) -> list[Value]:
    """Run coroutines concurrently. When one fails, cancel the others, and then raise its error."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
