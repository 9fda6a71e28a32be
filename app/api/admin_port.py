"""The admin port: a second application in the same process, selected by the port of a request."""

import socket
import sys

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger(__name__)


class AdminPort:
    """Both applications as one, so that one server listens at both ports, handles signals and drains."""

    def __init__(self, app: ASGIApp, admin: ASGIApp, host: str, port: int) -> None:
        self._app = app
        self._admin = admin
        self._host = host
        self._requested_port = port
        self._port: int | None = None

    def listen(self, main: uvicorn.Config) -> list[socket.socket]:
        """Return the sockets of the main port and the admin port. Logs the reason and exits with 1 when a port is not available."""
        addresses = [(main.host, main.port), (self._host, self._requested_port)]
        try:
            sockets = [_listening(host, port, main) for host, port in addresses]
        except OSError as error:
            log.error("port_not_available", problem=str(error))  # noqa: TRY400
            sys.exit(1)
        self._port = sockets[1].getsockname()[1]
        urls = [_url(host, listening) for (host, _), listening in zip(addresses, sockets, strict=True)]
        log.info(f"running on {urls[0]}", second_port=urls[1])
        return sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request by the application of its port."""
        server = scope.get("server")
        app = self._admin if server and server[1] == self._port else self._app
        await app(scope, receive, send)


def _listening(host: str, port: int, config: uvicorn.Config) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=config.backlog)


def _url(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
