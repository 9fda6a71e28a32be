"""A second port in the same process: which of two applications a request is for, by the port that it came to."""

import socket
import sys

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger(__name__)


class SecondDoor:
    """Two applications as one, for one server that listens at both doors, knows one set of signals, and drains both."""

    def __init__(self, first: ASGIApp, second: ASGIApp, host: str, port: int) -> None:
        self._first = first
        self._second = second
        self._host = host
        self._asked = port
        self._port: int | None = None

    def listen(self, first: uvicorn.Config) -> list[socket.socket]:
        """Both doors' sockets, the first one first. Exits with 1 and a line when a port can't be had."""
        try:
            sockets = [_listening(host, port, first) for host, port in self._places(first)]
        except OSError as error:
            log.error("port_not_available", problem=str(error))  # noqa: TRY400
            sys.exit(1)
        self._port = sockets[1].getsockname()[1]
        urls = [_url(host, each) for (host, _), each in zip(self._places(first), sockets, strict=True)]
        log.info(f"running on {urls[0]}", second_port=urls[1])
        return sockets

    def _places(self, first: uvicorn.Config) -> list[tuple[str, int]]:
        return [(first.host, first.port), (self._host, self._asked)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the right application answer."""
        server = scope.get("server")
        app = self._second if server and server[1] == self._port else self._first
        await app(scope, receive, send)


def _listening(host: str, port: int, config: uvicorn.Config) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=config.backlog)


def _url(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
