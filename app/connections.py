"""What a client may do with a connection before, between and after its requests: uvicorn's HTTP/1.1, with bounds.

uvicorn itself waits for ever for a request's first bytes, for the rest of its head, and for a client that doesn't read its answer;
it keeps a head of any length, and as many requests as come before the answers to earlier ones. Bodies have bounds of their own in
app.body.
"""

import asyncio
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_AHEAD: Final = 32
"""Requests of one connection that wait for the answers to earlier ones."""
LINGER_S: Final = 2.0
"""For the rest of a body whose request was answered early; closing at once would take the answer from a client that still sends."""
SWEEP_S: Final = 0.5
"""Between two looks at all connections."""
OTHER_DESCRIPTORS: Final = 256
"""Of the process, beside its connections: listening sockets, workers, files, and connections that are about to be refused."""

log = structlog.get_logger(__name__)


class HeadTooLarge(Exception):
    """A request line and header fields with more bytes than this service reads."""


class HeadTooSlow(Exception):
    """They did not arrive in time."""


class NotHttp(Exception):
    """What arrived is no HTTP/1.1 request."""


class TooFarAhead(Exception):
    """More requests on one connection than may wait for the answers to earlier ones."""


class TooManyConnections(Exception):
    """As many are open as may be, and every one of them has a request."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client, and all together, may take."""

    connections: int
    head_bytes: int
    head_s: float
    """From a connection's begin, or the last answer, to the end of a request's head."""
    answer_s: float
    """To take an answer."""


class Connections:
    """All connections of a server. Closes what keeps nothing going; makes room by closing who has waited longest."""

    def __init__(
        self,
        limits: ConnectionLimits,
        explain: Callable[[Exception], tuple[str, bytes]],
        on_close: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.limits = limits
        self.explain = explain
        """The code of one of the exceptions above, and the whole response to it."""
        self.on_close = on_close
        """Told why, whenever a connection is closed by these limits."""
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # without a request; who has waited longest stands first

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._open)

    def protocol(self, **given: Any) -> "Connection":  # noqa: ANN401 — uvicorn's own
        """What uvicorn makes for each new connection."""
        return Connection(self, **given)

    def enter(self, connection: "Connection") -> None:
        """A new one; another one may have to leave for it."""
        if len(self._open) < self.limits.connections:
            self._open.add(connection)
        elif self._waiting:
            next(iter(self._waiting)).leave("evicted")
            self._open.add(connection)
        else:
            connection.refuse(TooManyConnections(f"connections: {self.open} with a request; allowed: {self.open}"))

    def waits(self, connection: "Connection") -> None:
        """It has no request now."""
        if connection in self._open:
            self._waiting[connection] = None

    def works(self, connection: "Connection") -> None:
        """It has a request."""
        self._waiting.pop(connection, None)

    def left(self, connection: "Connection") -> None:
        """It is closed, or about to be."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    async def watch(self) -> None:
        """Look at all of them, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.look(now)


class Connection(HttpToolsProtocol):
    """One of them."""

    def __init__(self, all_of_them: Connections, **given: Any) -> None:  # noqa: ANN401 — uvicorn's own
        super().__init__(**given)
        self._all = all_of_them
        self._in_head = False
        self._head_bytes = 0
        self._head_since: float | None = None
        self._ignoring_since: float | None = None
        self._unsent_since: float | None = None
        self._refusal: Exception | None = None

    # --- what uvicorn calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Wait for a first request."""
        super().connection_made(transport)
        self._all.enter(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._all.left(self)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that doesn't end is refused."""
        was_waiting = self._awaits_head
        super().data_received(data)
        if not (was_waiting and self._awaits_head) or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > (limit := self._all.limits.head_bytes):
            self.refuse(HeadTooLarge(f"head: more than {limit} bytes; allowed: up to {limit} bytes"))

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._in_head, self._head_since = False, None
        self._all.works(self)
        size, limit = len(self.url) + sum(len(name) + len(value) for name, value in self.headers), self._all.limits
        if size > limit.head_bytes:
            self._refusal = HeadTooLarge(f"head: {size} bytes; allowed: up to {limit.head_bytes} bytes")
        elif len(self.pipeline) >= MOST_AHEAD:
            found = f"connection: more than {MOST_AHEAD} requests before the answers to earlier ones"
            self._refusal = TooFarAhead(f"{found}; allowed: {MOST_AHEAD}")
        if self._refusal:
            raise self._refusal  # out of the parser, which ends in send_400_response
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request's body is whole."""
        super().on_message_complete()
        if self._ignoring_since is not None:
            self._ignoring_since = None
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        was_last = not self.pipeline
        super().on_response_complete()
        if not was_last or self.transport.is_closing():
            return
        if self.cycle.more_body:
            self._ignoring_since = self.loop.time()
            self._all.waits(self)
        else:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Instead of uvicorn's plain text."""
        self.refuse(self._refusal or NotHttp("request: no HTTP/1.1; allowed: requests as in RFC 9112"))

    def _unsupported_upgrade_warning(self) -> None:
        """No line of advice for each request for another protocol: it is answered as if it asked for none (RFC 9110, 7.8)."""

    # --- bounds ---

    @property
    def _awaits_head(self) -> bool:
        return self._in_head or self._head_since is not None

    def _wait(self) -> None:
        self._head_since = self.loop.time()
        self._all.waits(self)

    def look(self, now: float) -> None:
        """Close it when it keeps nothing going."""
        limits = self._all.limits
        if self.transport.get_write_buffer_size() == 0:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > limits.answer_s:
            self._all.on_close("answer_not_taken")
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        if self._ignoring_since is not None and now - self._ignoring_since > LINGER_S:
            self.leave("body_after_answer")
        elif self._head_since is not None and now - self._head_since > limits.head_s:
            if self._in_head:
                self.refuse(HeadTooSlow(f"head: not whole after {limits.head_s:g} s; allowed: {limits.head_s:g} s"))
            else:
                self.leave("no_request")

    def refuse(self, error: Exception) -> None:
        """Say why, and close."""
        code, response = self._all.explain(error)
        self.transport.write(response)
        self.leave(code)

    def leave(self, reason: str) -> None:
        """Close, when what was written is sent."""
        self._all.works(self)
        self._all.on_close(reason)
        self.transport.close()


def affordable(wanted: int) -> int:
    """How many connections the process may have of those that are wanted; raises its limit of open files as far as that needs and
    the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + OTHER_DESCRIPTORS:
        return wanted
    needed = wanted + OTHER_DESCRIPTORS
    possible = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    if possible < needed:
        lowered = max(possible - OTHER_DESCRIPTORS, possible // 2)
        log.warning("fewer_connections", wanted=wanted, allowed=lowered, open_files=possible)
        return lowered
    return wanted
