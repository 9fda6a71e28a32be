"""The application and the process: wires the parts together, starts nothing on import."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from app import errors, openapi, workers
from app.logs import configure_logging
from app.routes import classify, health, metrics, models, page
from app.service import Service, load_predictors
from app.settings import Settings
from app.siblings import Siblings
from app.telemetry import Metrics, Telemetry
from model import BundleError, EmbeddingCache, Predictor

log = structlog.get_logger(__name__)

_DESCRIPTION = "Classifies an image with its text; either may be missing."


def create_app(
    settings: Settings, predictors: Mapping[str, Predictor] | None = None, siblings: Siblings | None = None
) -> FastAPI:
    """Wire the service. Without predictors, the bundles named in the settings are loaded at start-up."""
    measured = Metrics()
    service = Service(settings, measured)
    cache = EmbeddingCache(settings.embedding_cache_bytes) if settings.embedding_cache_bytes else None
    measured.watch(
        inside=lambda: service.inside,
        waiting=lambda: service.waiting,
        cache_bytes=lambda: cache.used_bytes if cache else 0,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running(lambda: load_predictors(settings, cache) if predictors is None else predictors):
            for description in service.models:
                measured.bundle(description)
                log.info("model_ready", model=description.name, digest=description.digest)
            async with siblings.answering(measured.registry) if siblings else nullcontext():
                yield

    app = FastAPI(
        title="Polymodal",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Telemetry, metrics=measured, answer=errors.answer)],
    )
    app.state.settings, app.state.service, app.state.metrics = settings, service, measured
    app.state.siblings = siblings
    for resource in (classify, models, health, metrics, page):
        app.include_router(resource.router)
    app.router.routes.append(page.assets)
    errors.install(app)
    openapi.install(app)
    return app


def _version() -> str:
    try:
        return version("polymodal")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0+unknown"


class _Server(uvicorn.Server):
    """uvicorn, with a different end: it drains before it closes its sockets, and leaves with 0 after a signal."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_timeout_s: int) -> None:
        super().__init__(config)
        self._service = service
        self._drain_timeout_s = drain_timeout_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, without remembering the signal: uvicorn would raise it again at the end, and the process die of it."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain first. Meanwhile connections are still taken, and told 503 rather than refused."""
        log.info("draining", inside=self._service.inside, timeout_s=self._drain_timeout_s)
        draining = asyncio.create_task(self._service.drain(self._drain_timeout_s))
        while not draining.done() and not self.force_exit:  # a second Ctrl-C
            await asyncio.wait((draining,), timeout=0.1)
        draining.cancel()
        if self._service.inside:
            log.error("drain_ended_early", abandoned=self._service.inside)
        await super().shutdown(sockets)


def server_for(app: FastAPI) -> uvicorn.Server:
    """The server of an application; enter the application's lifespan around `server.serve()`."""
    settings: Settings = app.state.settings
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",  # entered by the caller, so that a refused bundle is an exception and not a logged traceback
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # for answers on their way; draining has waited for the rest
    )
    return _Server(config, app.state.service, settings.drain_timeout_s)


def serve(settings: Settings, predictors: Mapping[str, Predictor] | None = None) -> None:
    """Run the service until SIGTERM or Ctrl-C. Exits with 1 and one line when a bundle must not be served.

    With predictors, which can't be given to other processes, it is always one worker.
    """
    configure_logging(settings)
    count = settings.workers if hasattr(os, "fork") and predictors is None else 1
    if count == 1:
        if _serve_here(create_app(settings, predictors)):
            raise SystemExit(1)
        return
    family, refusal = os.getpid(), workers.Once()
    try:
        reserved = workers.reserve(settings.host, settings.port)
    except OSError as problem:
        raise SystemExit(f"polymodal: {settings.host}:{settings.port}: {problem.strerror}") from None
    log.info("listening", host=settings.host, port=reserved.getsockname()[1], workers=count)

    def work(life: workers.Life) -> int:
        structlog.contextvars.bind_contextvars(worker=life.number)
        app = create_app(settings, siblings=Siblings(family, life.number, count))
        app.state.metrics.restarted(life.restarts)
        return _serve_here(app, reserved, life.parent, refusal)

    with reserved:
        code = workers.supervise(count, work)
    if code:
        raise SystemExit(code)


def _serve_here(
    app: FastAPI,
    reserved: socket.socket | None = None,
    parent: int | None = None,
    once: workers.Once | None = None,
) -> int:
    """Run one worker in this process; its exit code.

    One of several listens where `reserved` is, as long as its `parent` lives, and `once` keeps them from saying the same twice.
    """
    server = server_for(app)

    async def run() -> None:
        if parent is not None:
            asyncio.get_running_loop().add_reader(parent, _stop_once, parent)
        async with app.router.lifespan_context(app):
            await server.serve(None if reserved is None else [workers.listen(reserved)])

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        try:
            runner.run(run())
        except BundleError as refusal:
            if once is None or once.first():
                sys.stderr.write(f"polymodal: {refusal}\n")
            return workers.UNUSABLE
    service: Service = app.state.service
    if service.busy_s:  # a clean exit would wait for the inference thread, which may hang for ever
        log.error("inference_abandoned", busy_s=round(service.busy_s, 1))
        sys.stdout.flush()
        os._exit(1)
    return 0


def _stop_once(parent: int) -> None:
    """The parent is gone: drain and stop, as it would have said."""
    asyncio.get_running_loop().remove_reader(parent)
    os.kill(os.getpid(), signal.SIGTERM)
