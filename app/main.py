"""The application and the process: wires the packages together, starts nothing on import."""

import gc
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from polymodal.app.access.scopes import OPEN
from polymodal.app.api import errors, openapi, server
from polymodal.app.api.cross_origin import cross_origin_for
from polymodal.app.api.dialects import COHERE, OPENAI, TEI
from polymodal.app.api.guard import (
    Guard,
    Rules,
    admin_rules_for,
    keys_for,
    limits_for,
    rules_for,
    warn_of_open_ports,
)
from polymodal.app.api.routes import (
    audio,
    docs,
    health,
    metrics,
    models,
    openai,
    page,
    rerank,
    search,
    similarity,
    tasks,
)
from polymodal.app.api.routing import Routes
from polymodal.app.api.telemetry import Telemetry
from polymodal.app.observe.logs import configure_logging
from polymodal.app.observe.metrics import Metrics
from polymodal.app.observe.tracing import Tracing, tracing_for
from polymodal.app.serving.search import SEARCH, Indexes
from polymodal.app.serving.service import Service
from polymodal.app.serving.similarity import EMBED
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.supervisor import ProcessSupervisor, Supervisor
from polymodal.app.workers.thread import ThreadSupervisor
from polymodal.cores import available_cpus
from polymodal.model import SLOW_KINDS, TASKS, BundleError, Model, kind_of

log = structlog.get_logger(__name__)

Middleware: TypeAlias = Callable[[ASGIApp], ASGIApp]
Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_NO_TELEMETRY: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""Disables FastAPI's own telemetry, which doesn't cover plain routes; `app.api.telemetry` covers every request."""
_DESCRIPTION = "Scores and embeddings of items with any subset of the inputs that a model takes."


def create_app(
    settings: Settings, preloaded: Mapping[str, Model] | None = None, tracing: Tracing | None = None
) -> FastAPI:
    """Wire the service. Without preloaded models, the bundles named in the settings are loaded at start-up.

    Preloaded models are served instead of them, under their names, by a thread of this process.
    """
    if preloaded is not None:
        settings = settings.model_copy(update={"bundles": tuple(BundleSource(name, Path()) for name in preloaded)})
    measured = Metrics()
    supervisor, slow = _supervisors(settings, preloaded, measured)
    service = Service(settings, measured, supervisor, on_batch=tracing.batch if tracing else None, slow=slow)
    indexes = Indexes(service, measured, settings.indexes)
    measured.watch(service)
    measured.watch_indexes(indexes)
    measured.build(_version(), settings.revision)
    keys = keys_for(settings, measured.keys_stale)
    limits = limits_for(settings, measured.rate_limit_storage_failed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warn_of_open_ports(settings, keys)
        if settings.plan and settings.plan.cores != (cores := available_cpus()):
            log.warning("plan_for_other_cores", measured=settings.plan.cores, available=cores, next="polymodal tune")
        await indexes.load()
        async with service.running():
            for description in service.models:
                measured.bundle(description)
                log.info("model_ready", model=description.name, digest=description.digest, workers=service.workers)
            indexes.log_state()
            gc.freeze()  # objects that live until the end need no garbage collection
            yield
        if limits is not None:
            await limits.aclose()
        if tracing:
            tracing.close(settings.drain_timeout_s)

    application = partial(_application, settings, service, measured, tracing)
    app, routes = application(rules_for(settings, keys, limits), lifespan)
    for task in TASKS.values():
        routes.include_plain(tasks.router_of(task), needs=task.name)
    routes.include_plain(similarity.router, needs=EMBED.name)
    app.state.indexes = indexes
    routes.include_plain(search.router, needs=SEARCH.name)
    routes.include(search.indexes_router, needs=SEARCH.name)
    if OPENAI in settings.dialects:
        for router, needs in ((openai.router(), EMBED.name), (audio.router(), audio.TRANSCRIBE)):
            routes.include_plain(router, needs=needs, dialect=OPENAI)
    for dialect in (TEI, COHERE):
        if dialect in settings.dialects:
            routes.include_plain(rerank.router(dialect), needs=EMBED.name, dialect=dialect)
    routes.include(models.router, needs="models")
    routes.include(health.router, needs=OPEN)
    routes.include(page.router_for(_links(settings)), needs=OPEN)
    routes.include_route(page.page_files(), needs=OPEN)
    openapi.install(app, settings, routes)
    if settings.admin_port is not None:
        app.state.admin, routes = application(admin_rules_for(settings, keys))
        routes.include(health.router, needs=OPEN)
    routes.include(metrics.router, needs="metrics")
    if settings.docs:
        routes.include(docs.router_for(app.openapi), needs="docs")
        routes.include_route(docs.viewer_files(), needs=OPEN)
    return app


def _application(
    settings: Settings,
    service: Service,
    measured: Metrics,
    tracing: Tracing | None,
    rules: Rules | None,
    lifespan: Lifespan | None = None,
) -> tuple[FastAPI, Routes]:
    """Return an application, and the empty table of its routes."""
    app = FastAPI(
        title="Polymodal",
        version=_version(),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        lifespan=lifespan,
    )
    app.state.settings, app.state.service, app.state.metrics, app.state.admin = settings, service, measured, None
    errors.install(app)
    routes = Routes(app)
    cross_origin = cross_origin_for(settings)
    middleware: list[Middleware] = [
        partial(Telemetry, metrics=measured, tracing=tracing),
        *((cross_origin,) if cross_origin else ()),
        errors.ErrorResponses,
        *((partial(Guard, routes=routes, rules=rules),) if rules else ()),
    ]
    app.middleware_stack = _layered(middleware, routes.application, otherwise=app.router)
    return app, routes


def _layered(middleware: Sequence[Middleware], inner: ASGIApp, otherwise: ASGIApp) -> ASGIApp:
    """Return an application with middleware around it, outermost first; `otherwise` serves what is no HTTP request."""
    outer = reduce(lambda app, layer: layer(app), reversed(middleware), inner)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (outer if scope["type"] == "http" else otherwise)(scope, receive, send)

    return app


def _supervisors(
    settings: Settings, preloaded: Mapping[str, Model] | None, metrics: Metrics
) -> tuple[Supervisor, Supervisor | None]:
    """Return the supervisor of all models, and another one for slow models that are served next to others.

    They run worker processes, or a thread for `workers=0` and for preloaded models.
    """
    if preloaded is not None:
        return ThreadSupervisor(settings, preloaded), None
    slow = [_is_slow(source.path) for source in settings.bundles]
    start: Callable[[Settings], Supervisor]
    if settings.workers == 0:
        start, of_slow = ThreadSupervisor, settings
    else:
        start = partial(ProcessSupervisor, on_restart=metrics.restarted)
        threads = max(settings.inference_threads, available_cpus() // 2 // settings.slow_workers)
        of_slow = settings.model_copy(update={"workers": settings.slow_workers, "inference_threads": threads})
    if all(slow):
        return start(of_slow), None
    return start(settings), start(of_slow) if any(slow) else None


def _is_slow(path: Path) -> bool:
    """Return whether the items of a bundle take seconds; False for a broken one, which is reported when it is loaded."""
    try:
        return kind_of(path) in SLOW_KINDS
    except BundleError:
        return False


def _links(settings: Settings) -> list[str]:
    """Return the routes of the main port that the page links to."""
    one_port = settings.admin_port is None
    return [
        "v1/models",
        *(["metrics"] if one_port else []),
        *(["docs", "openapi.json"] if one_port and settings.docs else []),
    ]


def _version() -> str:
    try:
        return version("polymodal")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0+unknown"


def serve(settings: Settings, preloaded: Mapping[str, Model] | None = None) -> None:
    """Run the service until SIGTERM or Ctrl-C. Exits with 1 and one line when a bundle must not be served."""
    configure_logging(settings)
    server.serve(create_app(settings, preloaded, tracing_for(os.environ, _version())))
