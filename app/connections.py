"""What a client may do with a connection before, between and after its requests: uvicorn's HTTP/1.1, with bounds.

uvicorn itself waits for ever for a request's first bytes, for the rest of its head, and for a client that doesn't read its answer;
it keeps a head of any length, and as many requests as come before the answers to earlier ones. Bodies have bounds of their own in
app.body.
"""

import asyncio
import re
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_AHEAD: Final = 32
"""Requests of one connection that wait for the answers to earlier ones."""
LINGER_S: Final = 2.0
"""For the rest of a body whose request was answered early; closing at once would take the answer from a client that still sends."""
SWEEP_S: Final = 0.5
"""Between two looks at all connections."""
GONE_S: Final = 0.1
"""Between two checks whether a client that sends no more has gone altogether."""
OTHER_DESCRIPTORS: Final = 256
"""Of the process, beside its connections: listening sockets, workers, files, and connections that are about to be refused."""

_BEGIN: Final = b"HTTP/1.1 "
"""First bytes of every answer."""
# RFC 9112, 3.2.2, with the authority of RFC 3986, 3.2. uvicorn and httptools take neither a missing path nor every legal host.
_ABSOLUTE: Final = re.compile(
    rb"https?://(?:[\w.~!$&'()*+,;=:%-]*@)?(?:\[[0-9a-f:.]+\]|[\w.~!$&'()*+,;=%-]+)(?::[0-9]*)?(?=[/?]|\Z)",
    re.IGNORECASE,
)

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
        self._in_body = False
        self._pending_bytes = 0
        """Received since a request, its head or its body last made progress."""
        self._head_since: float | None = None
        self._ignoring_since: float | None = None
        self._unsent_since: float | None = None
        self._running: RequestResponseCycle | None = None
        self._parse_error: Exception | None = None
        """Raised by a callback of the parser, which passes on no exception."""
        self._refusal: Exception | None = None
        """Sent when the requests before it are answered; nothing more is read."""

    # --- what uvicorn calls ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Wait for a first request."""
        super().connection_made(transport)
        self._all.enter(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn stops the last request alone, which may wait behind this one
            self._running.disconnected = True
            self._running.message_event.set()
        self._all.left(self)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio's
        """Keep the connection while requests that are whole wait for their answers; the client may read on (RFC 9112, 9.6)."""
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
        """Read on; a head that doesn't end is refused, as are chunk extensions and trailer fields that don't."""
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        self._pending_bytes += len(data)
        self._parse(data)
        if self._pending_bytes > (limit := self._all.limits.head_bytes) and not self.transport.is_closing():
            part = "chunk extension or trailer" if self._in_body else "head"
            self.refuse(HeadTooLarge(f"{part}: more than {limit} bytes; allowed: up to {limit} bytes"))

    def _parse(self, data: bytes) -> None:
        """Feed the parser. It ends behind a head that offers an upgrade, as if there were no body. That head is read again, without
        the offer and by a new parser, which then reads the body as any other (RFC 9110, 7.8: a server may ignore the offer)."""
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
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._pending_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. Trailer fields are left out: they may not count as what a proxy checks (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._in_head, self._head_since, self._pending_bytes = False, None, 0
        self._all.works(self)
        size, limit = len(self.url) + sum(len(name) + len(value) for name, value in self.headers), self._all.limits
        error: Exception | None = None
        if size > limit.head_bytes:
            error = HeadTooLarge(f"head: {size} bytes; allowed: up to {limit.head_bytes} bytes")
        elif len(self.pipeline) >= MOST_AHEAD:
            found = f"connection: more than {MOST_AHEAD} requests before the answers to earlier ones"
            error = TooFarAhead(f"{found}; allowed: {MOST_AHEAD}")
        elif self.parser.get_method() == b"CONNECT":
            error = NotHttp("request: CONNECT; allowed: other methods, as this service opens no tunnels")
        elif (version := self.parser.get_http_version()) not in ("1.1", "1.0"):
            error = NotHttp(f"request: HTTP/{version}; allowed: HTTP/1.1 and HTTP/1.0")
        if error:
            self._parse_error = error
            raise error  # out of the parser, which ends in send_400_response
        if self.parser.should_upgrade():
            return
        self.url = _origin_form(self.url, self.parser.get_method())
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's body is whole."""
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
            self._all.waits(self)
        else:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Instead of uvicorn's plain text."""
        self.refuse(self._parse_error or NotHttp("request: no HTTP/1.1; allowed: requests as in RFC 9112"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # --- bounds ---

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
        """Report an error after the answers to the requests before it, and close. Nothing more is read."""
        begun = self._in_body and self._running is not None and not self.pipeline and self._running.response_started
        self._drop_partial_request()
        self._refusal = error
        if begun:  # a second answer to one request would count as the next one's
            self.leave(self._all.explain(error)[0])
        elif not self.pipeline and (self._running is None or self._running.response_complete):
            self._report(error)

    def _report(self, error: Exception) -> None:
        code, response = self._all.explain(error)
        self.transport.write(response)
        self.leave(code)

    def _drop_partial_request(self) -> None:
        """Forget the request whose body will not be whole; if it runs, the end of the connection stops it."""
        if self._in_body and self.pipeline:
            self.pipeline.popleft()
        elif self._in_body:
            self._running = None
        self._in_body = False

    def _begin_answer(self) -> None:
        """Send the bytes that every answer begins with. A client that has gone altogether looks like one that only sends no more,
        but responds to them with a reset."""
        if self._running is not None and not self._running.response_started:
            self.transport.write(_BEGIN)
            self._running.transport = _Begun(self._running)  # type: ignore[assignment]  # what an answer needs of one

    def _abort_when_gone(self) -> None:
        """Check now and then; the event loop doesn't, as there is nothing to read."""
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(GONE_S, self._abort_when_gone)

    def leave(self, reason: str) -> None:
        """Close, when what was written is sent."""
        self._all.works(self)
        self._all.on_close(reason)
        self.transport.close()


class _Begun:
    """The transport of an answer whose first bytes are sent already."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport

    def write(self, data: bytes) -> None:
        """Send the rest, and what follows as usual."""
        self._cycle.transport = self._transport
        self._transport.write(data.removeprefix(_BEGIN))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._transport, name)


def _origin_form(target: bytes, method: bytes) -> bytes:
    """Path and query of a request target. Of an absolute form, the authority doesn't count: it is this service (RFC 9112, 3.2)."""
    authority = _ABSOLUTE.match(target)
    if authority is None:
        return target
    rest = target[authority.end() :]
    if not rest and method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


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
