"""A second port in the same process: which of two applications a request is for, by the port that it came to."""

import socket

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


class SecondDoor:
    """Two applications as one, for one server that listens at both doors and drains both."""

    def __init__(self, first: ASGIApp, second: ASGIApp, host: str, port: int) -> None:
        self._first = first
        self._second = second
        self._host = host
        self._asked = port
        self.port: int | None = None
        """The second door's, once it is bound."""

    def bind(self, first: uvicorn.Config) -> list[socket.socket]:
        """Both doors' sockets, the first one first; connections may come at once. Exits with 1 and a line when a port is taken."""
        sockets = [config.bind_socket() for config in (first, uvicorn.Config(self, host=self._host, port=self._asked))]
        for each in sockets:
            each.listen(first.backlog)
        self.port = sockets[1].getsockname()[1]
        return sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the right application answer."""
        server = scope.get("server")
        app = self._second if server and server[1] == self.port else self._first
        await app(scope, receive, send)
