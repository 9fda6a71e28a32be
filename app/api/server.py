"""The server of an application: uvicorn with limits on connections, an admin port and graceful shutdown."""

import asyncio
import os
import socket
import sys
from types import FrameType
from typing import Final, cast

import structlog
import uvicorn
from fastapi import FastAPI

from polymodal.app.api.admin_port import AdminPort
from polymodal.app.api.connections import ConnectionLimits, Connections, affordable
from polymodal.app.api.errors import raw_response_to
from polymodal.app.observe.metrics import Metrics
from polymodal.app.serving.service import Service
from polymodal.app.settings import Settings
from polymodal.model import BundleError, SearchIndexError

log = structlog.get_logger(__name__)

LAST_REQUESTS_S: Final = 0.2
"""Time between closing the ports and closing their connections, in which the last requests are read and get a 503."""


class Server(uvicorn.Server):
    """uvicorn's server, which also drains before it closes its sockets, and exits with 0 after a signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        connections: Connections,
        drain_timeout_s: int,
        admin_port: AdminPort | None = None,
    ) -> None:
        super().__init__(config)
        self._admin_port = admin_port
        self._service = service
        self._connections = connections
        self._drain_timeout_s = drain_timeout_s
        self.abandoned = 0
        """Number of requests that were accepted and not answered."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after draining, or at once on a second signal. Unlike uvicorn's, does not raise the signal again at the end."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the ports, and start to check connections."""
        if self._admin_port:
            sockets = self._admin_port.listen(self.config)
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._connections.watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close. New connections are accepted while draining, and their requests get a 503."""
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
            await asyncio.sleep(LAST_REQUESTS_S)
        await super().shutdown(sockets)
        self._watching.cancel()


def server_for(app: FastAPI) -> Server:
    """Return the server of an application. The caller enters the application's lifespan around `server.serve()`."""
    settings: Settings = app.state.settings
    measured: Metrics = app.state.metrics
    limits = ConnectionLimits(
        connections=affordable(settings.max_connections),
        head_bytes=settings.max_head_bytes,
        head_s=settings.head_timeout_ms / 1000,
        answer_s=settings.body_timeout_ms / 1000,
    )
    connections = Connections(limits, raw_response_to, measured.closed)
    measured.watch_connections(lambda: connections.open)
    admin_port = None
    if app.state.admin and settings.admin_port is not None:
        admin_port = AdminPort(app, app.state.admin, settings.admin_host, settings.admin_port)
    config = uvicorn.Config(
        admin_port or app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], connections.protocol),
        timeout_keep_alive=settings.keep_alive_s,
        ws="none",
        lifespan="off",  # entered by the caller, so that a refused bundle is an exception rather than a logged traceback
        log_config=None,
        access_log=False,
        proxy_headers=False,  # `app.access.addresses` reads them, from trusted proxies only
        server_header=False,
        timeout_graceful_shutdown=1,  # for responses that are being sent; all others are drained
    )
    return Server(config, app.state.service, connections, settings.drain_timeout_s, admin_port)


def serve(app: FastAPI) -> None:
    """Run an application until SIGTERM or Ctrl-C.

    Exits with 1 and one line on stderr when a bundle or an index must not be served.
    """
    server = server_for(app)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await server.serve()

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        try:
            runner.run(run())
        except (BundleError, SearchIndexError) as refusal:
            sys.stderr.write(f"polymodal: {refusal}\n")
            raise SystemExit(1) from None
    service: Service = app.state.service
    if service.busy_s:  # a normal exit would wait for the inference thread, which may hang forever
        log.error("inference_abandoned", busy_s=round(service.busy_s, 1))
        sys.stdout.flush()
        os._exit(1)
    if server.abandoned:
        raise SystemExit(1)
