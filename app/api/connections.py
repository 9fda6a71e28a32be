"""uvicorn's HTTP/1.1 connections with limits.

uvicorn itself waits without a limit for a request's first bytes, for the rest of its head, and for a client that does not read its
response. It accepts heads of any length and any number of pipelined requests. The limits of bodies are in app.api.body.
"""

import asyncio
import re
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from polymodal.app.problems import Problem

MOST_AHEAD: Final = 32
"""Most requests of one connection that wait for the answers to earlier requests."""
LINGER_S: Final = 2.0
"""Time for the rest of a body whose request is answered. An immediate close would lose the answer if the client still sends."""
SWEEP_S: Final = 0.5
"""Time between two checks of all connections."""
GONE_S: Final = 0.1
"""Time between two checks whether a client that has stopped sending has closed its connection."""
OTHER_DESCRIPTORS: Final = 256
"""File descriptors of listening sockets, workers, files, and connections that are about to be refused."""

_BEGIN: Final = b"HTTP/1.1 "
"""First bytes of every response."""
# RFC 9112, 3.2.2, with the authority of RFC 3986, 3.2. uvicorn and httptools reject a missing path and some legal hosts.
_ABSOLUTE: Final = re.compile(
    rb"https?://(?:[\w.~!$&'()*+,;=:%-]*@)?(?:\[[0-9a-f:.]+\]|[\w.~!$&'()*+,;=%-]+)(?::[0-9]*)?(?=[/?]|\Z)",
    re.IGNORECASE,
)

log = structlog.get_logger(__name__)


class HeadTooLarge(Problem):
    """A request line and header fields above the limit of bytes."""

    status = 431
    code = "head_too_large"
    title = "A request line and header fields with more bytes than are accepted"

    def __init__(self, where: str, limit: int, size: int | None = None) -> None:
        sent = f"more than {limit} bytes" if size is None else f"{size} bytes"
        super().__init__(f"{where}: {sent}; allowed: up to {limit} bytes")

    @classmethod
    def example(cls) -> Self:
        """Return the error for the default limit."""
        return cls("head", 32_768)


class HeadTooSlow(Problem):
    """A request line and header fields that did not arrive in time."""

    status = 408
    code = "head_too_slow"
    title = "The request's head did not arrive in time"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"head: not whole after {limit_s:g} s; allowed: {limit_s:g} s")

    @classmethod
    def example(cls) -> Self:
        """Return the error for the default limit."""
        return cls(10)


class NotHttp(Problem):
    """Bytes that are not a request of HTTP/1.1."""

    status = 400
    code = "malformed_request"
    title = "This is no HTTP request"

    def __init__(self, problem: str = "no HTTP/1.1", allowed: str = "requests as in RFC 9112") -> None:
        super().__init__(f"request: {problem}; allowed: {allowed}")


class TooFarAhead(Problem):
    """More pipelined requests on one connection than MOST_AHEAD."""

    status = 400
    code = "too_far_ahead"
    title = "Too many requests ahead of their answers"

    def __init__(self) -> None:
        problem = f"more than {MOST_AHEAD} requests before the answers to earlier ones"
        super().__init__(f"connection: {problem}; allowed: {MOST_AHEAD}")


class TooManyConnections(Problem):
    """The limit of open connections is reached, and all of them have a request."""

    status = 503
    code = "too_many_connections"
    title = "No connection is free"
    retry_after_s = 1

    def __init__(self, limit: int) -> None:
        super().__init__(f"connections: {limit} with a request; allowed: {limit}")

    @classmethod
    def example(cls) -> Self:
        """Return the error for the default limit."""
        return cls(1000)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection, and of their number."""

    connections: int
    head_bytes: int
    head_s: float
    """Time from the start of a connection, or from the last answer, to the end of a request's head."""
    answer_s: float
    """Time for a client to read an answer."""


class Connections:
    """All connections of a server. Closes stuck ones, and at the limit the one that has been idle longest."""

    def __init__(
        self,
        limits: ConnectionLimits,
        explain: Callable[[Problem], tuple[str, bytes]],
        on_close: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.limits = limits
        self.explain = explain
        """Returns the code of one of the exceptions above, and the bytes of the response to it."""
        self.on_close = on_close
        """Called with the reason whenever a limit closes a connection."""
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the one that has been idle longest is first

    @property
    def open(self) -> int:
        """Number of open connections."""
        return len(self._open)

    def protocol(self, **arguments: Any) -> "Connection":  # noqa: ANN401 — uvicorn's own
        """Return the protocol of a new connection; called by uvicorn."""
        return Connection(self, **arguments)

    def enter(self, connection: "Connection") -> None:
        """Add a new connection; at the limit, close an idle one or refuse the new one."""
        if len(self._open) < self.limits.connections:
            self._open.add(connection)
        elif self._idle:
            next(iter(self._idle)).leave("evicted")
            self._open.add(connection)
        else:
            connection.refuse(TooManyConnections(self.open))

    def mark_idle(self, connection: "Connection") -> None:
        """Mark a connection as one without a request."""
        if connection in self._open:
            self._idle[connection] = None

    def mark_busy(self, connection: "Connection") -> None:
        """Mark a connection as one with a request."""
        self._idle.pop(connection, None)

    def remove(self, connection: "Connection") -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    async def watch(self) -> None:
        """Check all connections periodically, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                connection.check(now)


class Connection(HttpToolsProtocol):
    """One connection, with limits on its heads, its pipeline, and the time that it may be idle or stuck."""

    def __init__(self, connections: Connections, **arguments: Any) -> None:  # noqa: ANN401 — uvicorn's own
        super().__init__(**arguments)
        self._all = connections
        self._in_head = False
        self._in_body = False
        self._pending_bytes = 0
        """Bytes received since a request, its head or its body last made progress."""
        self._head_since: float | None = None
        self._ignoring_since: float | None = None
        self._unsent_since: float | None = None
        self._running: RequestResponseCycle | None = None
        self._parse_error: Problem | None = None
        """The exception of a callback of the parser, which does not propagate it."""
        self._refusal: Problem | None = None
        """The last response, which is sent when all earlier requests are answered; nothing more is read."""

    # --- methods that uvicorn calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Register the connection, and wait for a first request."""
        super().connection_made(transport)
        self._all.enter(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the running request."""
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn stops only the last request, which may be a pipelined one
            self._running.disconnected = True
            self._running.message_event.set()
        self._all.remove(self)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio's
        """Keep the connection while complete requests wait for their answers: the client may still read them (RFC 9112, 9.6)."""
        self._drop_partial_request()
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            return False
        if self._refusal is None:
            last.keep_alive = False
        self._begin_answer()
        self._abort_when_gone()
        return True

    def data_received(self, data: bytes) -> None:
        """Parse data; refuse heads, chunk extensions and trailer fields above the limit of bytes."""
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        self._pending_bytes += len(data)
        self._parse(data)
        if self._pending_bytes > (limit := self._all.limits.head_bytes) and not self.transport.is_closing():
            where = "chunk extension or trailer" if self._in_body else "head"
            self.refuse(HeadTooLarge(where, limit))

    def _parse(self, data: bytes) -> None:
        """Feed the parser.

        The parser stops after a head that offers an upgrade, as if there were no body. A new parser then reads that head without
        the offer, and the body (RFC 9110, 7.8: a server may ignore the offer).
        """
        while self._refusal is None:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as end:
                data = self._head_without_offer() + data[end.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            except httptools.HttpParserError:
                self.send_400_response("")
            else:
                return

    def _head_without_offer(self) -> bytes:
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = (b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        return b"".join((line, *fields, b"\r\n"))

    def on_message_begin(self) -> None:
        """Begin a head at its first byte."""
        super().on_message_begin()
        self._in_head, self._pending_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field of the head. Trailer fields are ignored, as they could bypass the checks of a proxy (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check a complete head, and start its request."""
        self._in_head, self._head_since, self._pending_bytes = False, None, 0
        self._all.mark_busy(self)
        size, limit = len(self.url) + sum(len(name) + len(value) for name, value in self.headers), self._all.limits
        error: Problem | None = None
        if size > limit.head_bytes:
            error = HeadTooLarge("head", limit.head_bytes, size)
        elif len(self.pipeline) >= MOST_AHEAD:
            error = TooFarAhead()
        elif self.parser.get_method() == b"CONNECT":
            error = NotHttp("CONNECT", "other methods, as this service opens no tunnels")
        elif (version := self.parser.get_http_version()) not in ("1.1", "1.0"):
            error = NotHttp(f"HTTP/{version}", "HTTP/1.1 and HTTP/1.0")
        if error:
            self._parse_error = error
            raise error  # the parser stops, and send_400_response is called
        if self.parser.should_upgrade():
            return
        self.url = _origin_form(self.url, self.parser.get_method())
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Pass on a chunk of a request's body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        if self.parser.should_upgrade():
            return
        self._in_body, self._pending_bytes = False, 0
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
        if self._refusal is not None:
            self._report(self._refusal)
        elif self.cycle.more_body:
            self._ignoring_since = self.loop.time()
            self._all.mark_idle(self)
        else:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Send a problem instead of uvicorn's plain text."""
        self.refuse(self._parse_error or NotHttp())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # --- limits ---

    def _wait(self) -> None:
        self._head_since = self.loop.time()
        self._all.mark_idle(self)

    def check(self, now: float) -> None:
        """Close the connection when it exceeds a time limit."""
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
                self.refuse(HeadTooSlow(limits.head_s))
            else:
                self.leave("no_request")

    def refuse(self, error: Problem) -> None:
        """Send the response to an error after the answers to all earlier requests, and close. Nothing more is read."""
        started = self._in_body and self._running is not None and not self.pipeline and self._running.response_started
        self._drop_partial_request()
        self._refusal = error
        if started:  # the client would take a second answer to one request for the answer to the next
            self.leave(self._all.explain(error)[0])
        elif not self.pipeline and (self._running is None or self._running.response_complete):
            self._report(error)

    def _report(self, error: Problem) -> None:
        code, response = self._all.explain(error)
        self.transport.write(response)
        self.leave(code)

    def _drop_partial_request(self) -> None:
        """Drop the request whose body is incomplete. If it runs, the end of the connection stops it."""
        if self._in_body and self.pipeline:
            self.pipeline.popleft()
        elif self._in_body:
            self._running = None
        self._in_body = False

    def _begin_answer(self) -> None:
        """Send the bytes with which every response begins, to detect a closed connection.

        A client that has closed its connection responds to them with a reset; one that has only stopped sending does not.
        """
        if self._running is not None and not self._running.response_started:
            self.transport.write(_BEGIN)
            self._running.transport = _Started(self._running)  # type: ignore[assignment]  # has what a response uses

    def _abort_when_gone(self) -> None:
        """Check for a reset periodically, because the event loop no longer reads."""
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(GONE_S, self._abort_when_gone)

    def leave(self, reason: str) -> None:
        """Close the connection after sending the written data."""
        self._all.mark_busy(self)
        self._all.on_close(reason)
        self.transport.close()


class _Started:
    """The transport of a response whose first bytes are already sent."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport

    def write(self, data: bytes) -> None:
        """Send the rest of the first data, and restore the original transport of the response."""
        self._cycle.transport = self._transport
        self._transport.write(data.removeprefix(_BEGIN))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._transport, name)


def _origin_form(target: bytes, method: bytes) -> bytes:
    """Return the path and query of a request target; ignore the authority of an absolute form (RFC 9112, 3.2)."""
    authority = _ABSOLUTE.match(target)
    if authority is None:
        return target
    rest = target[authority.end() :]
    if not rest and method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


def affordable(connections: int) -> int:
    """Raise the limit of open files as far as needed and allowed; return the possible number of connections up to `connections`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    possible = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    if possible < needed:
        lowered = max(possible - OTHER_DESCRIPTORS, possible // 2)
        log.warning("fewer_connections", wanted=connections, allowed=lowered, open_files=possible)
        return lowered
    return connections
