"""The application and the process: wires the parts together, starts nothing on import."""

import asyncio
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Final, cast

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors, openapi
from app.access import Forbidden, Unauthorized
from app.connections import ConnectionLimits, Connections, affordable
from app.cpus import available_cpus
from app.cross_origin import cross_origin_for
from app.dependencies import DirectRoute
from app.doors import SecondDoor
from app.engine import Engine
from app.guard import Guard, admin_guard_for, guard_for, keys_for, limits_for, warn_of_open_doors
from app.logs import configure_logging
from app.metrics import Metrics
from app.rate_limits import RateLimited
from app.routes import classify, docs, health, metrics, models, page
from app.service import Service
from app.settings import Settings
from app.telemetry import Telemetry
from app.tracing import Tracing, tracing_for
from app.workers import OneThread, Processes, Workforce
from model import BundleError, Predictor

log = structlog.get_logger(__name__)

LAST_WORD_S = 0.2
"""From the closing of the port to that of its connections: what was accepted last is still read, and told 503."""
_NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""Of FastAPI's own, which doesn't see the busiest routes; what there is, app.telemetry makes."""
_DESCRIPTION = "Classifies an image with its text; either may be missing."


def create_app(
    settings: Settings, predictors: Mapping[str, Predictor] | None = None, tracing: Tracing | None = None
) -> FastAPI:
    """Wire the service. Without predictors, the bundles named in the settings are loaded at start-up.

    With predictors, which can't be given to other processes, a thread of this one computes.
    """
    measured = Metrics()
    workforce = _workforce(settings, predictors, measured)
    service = Service(settings, measured, workforce, on_batch=tracing.batch if tracing else None)
    measured.watch(service)
    measured.build(_version(), settings.revision)
    keys = keys_for(settings, measured.keys_stale)
    limits = limits_for(settings, measured.rate_limit_storage_failed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warn_of_open_doors(settings, keys)
        if settings.plan and settings.plan.cores != (cores := available_cpus()):
            log.warning("plan_for_other_cores", measured=settings.plan.cores, available=cores, next="polymodal tune")
        async with service.running():
            for description in service.models:
                measured.bundle(description)
                log.info("model_ready", model=description.name, digest=description.digest, workers=service.workers)
            gc.freeze()  # what lives until the end need not be searched for garbage again and again
            yield
        if limits is not None:
            await limits.aclose()
        if tracing:
            tracing.close(settings.drain_timeout_s)

    guard = guard_for(settings, keys, limits)
    app = _application(settings, service, measured, guard, tracing, lifespan=lifespan)
    for resource in (classify, models, health):
        app.offer(resource.router)
    page.install(app, links=_links(settings))
    app.direct = {("POST", route.path): route for route in classify.router.routes if isinstance(route, DirectRoute)}
    openapi.install(app, settings)
    if settings.admin_port is None:
        inner = app
    else:
        inner = app.state.admin = _application(settings, service, measured, admin_guard_for(settings, keys), tracing)
        inner.offer(health.router)
    inner.offer(metrics.router)
    if settings.docs:
        docs.install(inner, app.openapi)
    return app


def _application(
    settings: Settings,
    service: Service,
    measured: Metrics,
    guard: Guard | None,
    tracing: Tracing | None,
    **options: Any,  # noqa: ANN401
) -> "_Application":
    app = _Application(
        title="Polymodal",
        version=_version(),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        measured=measured,
        guard=guard,
        tracing=tracing,
        cross_origin=cross_origin_for(settings),
        **options,
    )
    app.state.settings, app.state.service, app.state.metrics, app.state.admin = settings, service, measured, None
    errors.install(app)
    return app


class _Application(FastAPI):
    """FastAPI, but for the busiest routes, whose requests don't pass its layers; around both, what is known of every request.

    Between the two, where the settings ask for them: other origins' pages let in, keys, and rate limits.
    """

    def __init__(
        self,
        measured: Metrics,
        guard: Guard | None,
        tracing: Tracing | None,
        cross_origin: Callable[[ASGIApp], ASGIApp] | None,
        **options: Any,  # noqa: ANN401 — FastAPI's own
    ) -> None:
        super().__init__(**options)
        self.direct: Mapping[tuple[str, str], DirectRoute] = {}
        self._offered: list[BaseRoute] = []
        self._inner: ASGIApp = partial(self._guarded, guard) if guard else self._dispatch
        answer: Callable[[BaseException, Request], ASGIApp] = errors.answer
        if cross_origin:
            self._inner = cross_origin(self._inner)
            answer = lambda error, request: cross_origin(errors.answer(error, request))  # noqa: E731
        self._known = Telemetry(measured, answer, tracing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        await self._known.around(self._inner, scope, receive, send)

    async def _guarded(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await guard.admit(scope)
        except (Unauthorized, Forbidden, RateLimited) as refusal:
            self._name_route(scope)
            await errors.answer(refusal, Request(scope))(scope, receive, send)
        else:
            await self._dispatch(scope, receive, send)

    def offer(self, router: APIRouter) -> None:
        """Include a router, and know its routes' names for what is refused before it is routed."""
        self.include_router(router)
        self._offered += router.routes

    def _name_route(self, scope: Scope) -> None:
        for route in self._offered:
            if route.matches(scope)[0] is not Match.NONE:
                scope["route"] = route
                return

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "*" and scope["method"] == "OPTIONS":  # of the whole server (RFC 9110, 9.3.7)
            await Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS, POST"})(scope, receive, send)
            return
        route = self.direct.get((scope["method"], scope["path"]))
        if route is None:
            await super().__call__(scope, receive, send)
        else:
            await self._straight(route, scope, receive, send)

    async def _straight(self, route: DirectRoute, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"], scope["route"] = self, route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request)
        except tuple(errors.KINDS) as error:
            response = errors.answer(error, request)
        await response(scope, receive, send)


def _workforce(settings: Settings, predictors: Mapping[str, Predictor] | None, measured: Metrics) -> Workforce:
    if predictors is not None:
        return OneThread(lambda: Engine(predictors, keep_embeddings=settings.embedding_cache_bytes > 0))
    if settings.workers == 0:
        return OneThread(lambda: Engine.load(settings))
    return Processes(settings, measured.restarted)


def _links(settings: Settings) -> list[str]:
    """What the page can link to, as the first port answers it."""
    here = settings.admin_port is None
    return ["v1/models", *(["metrics"] if here else []), *(["docs", "openapi.json"] if here and settings.docs else [])]


def _version() -> str:
    try:
        return version("polymodal")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0+unknown"


class Server(uvicorn.Server):
    """uvicorn, with a different end: it drains before it closes its sockets, and leaves with 0 after a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        connections: Connections,
        drain_timeout_s: int,
        second: SecondDoor | None = None,
    ) -> None:
        super().__init__(config)
        self._second = second
        self._service = service
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s
        self.abandoned = 0
        """Requests that were accepted and given up."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when it is said again. uvicorn would raise the signal again at the end, and the process die of it."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, or both: one server, so that signals and draining are the same for both. Keep an eye on connections."""
        if self._second:
            sockets = self._second.listen(self.config)
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._connections.watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain first. Meanwhile connections are still taken, and told 503 rather than refused."""
        log.info("draining", inside=self._service.inside, timeout_s=self._drain_timeout_s)
        draining = asyncio.create_task(self._service.drain(self._drain_timeout_s))
        while not draining.done() and not self.force_exit:
            await asyncio.wait((draining,), timeout=0.1)
        draining.cancel()
        self.abandoned = self._service.inside
        if self.abandoned:
            log.error("drain_ended_early", abandoned=self.abandoned)
        for server in self.servers:
            server.close()
        if not self.force_exit:
            await asyncio.sleep(LAST_WORD_S)
        await super().shutdown(sockets)
        self._watching.cancel()


def server_for(app: FastAPI) -> Server:
    """The server of an application; enter the application's lifespan around `server.serve()`."""
    settings: Settings = app.state.settings
    measured: Metrics = app.state.metrics
    limits = ConnectionLimits(
        connections=affordable(settings.max_connections),
        head_bytes=settings.max_head_bytes,
        head_s=settings.head_timeout_ms / 1000,
        answer_s=settings.body_timeout_ms / 1000,
    )
    connections = Connections(limits, errors.bare_answer, measured.closed)
    measured.watch_connections(lambda: connections.open)
    second = None
    if app.state.admin and settings.admin_port is not None:
        second = SecondDoor(app, app.state.admin, settings.admin_host, settings.admin_port)
    config = uvicorn.Config(
        second or app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], connections.protocol),
        timeout_keep_alive=settings.keep_alive_s,
        ws="none",
        lifespan="off",  # entered by the caller, so that a refused bundle is an exception and not a logged traceback
        log_config=None,
        access_log=False,
        proxy_headers=False,  # app.addresses believes them, of proxies that the settings name
        server_header=False,
        timeout_graceful_shutdown=1,  # for answers on their way; draining has waited for the rest
    )
    return Server(config, app.state.service, connections, settings.drain_timeout_s, second)


def serve(settings: Settings, predictors: Mapping[str, Predictor] | None = None) -> None:
    """Run the service until SIGTERM or Ctrl-C. Exits with 1 and one line when a bundle must not be served."""
    configure_logging(settings)
    app = create_app(settings, predictors, tracing_for(os.environ, _version()))
    server = server_for(app)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await server.serve()

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        try:
            runner.run(run())
        except BundleError as refusal:
            sys.stderr.write(f"polymodal: {refusal}\n")
            raise SystemExit(1) from None
    service: Service = app.state.service
    if service.busy_s:  # a clean exit would wait for the inference thread, which may hang for ever
        log.error("inference_abandoned", busy_s=round(service.busy_s, 1))
        sys.stdout.flush()
        os._exit(1)
    if server.abandoned:
        raise SystemExit(1)
