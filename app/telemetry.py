"""What is known about a request from outside: its id, one structured log line, what is measured of it.

It is the outermost layer: whatever happens inside, the client gets an answer with an id, and the log a line.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.headers import protect
from app.metrics import Metrics
from app.timeline import READ, WRITE, Timeline
from app.tracing import Tracing

log = structlog.get_logger(__name__)

CLIENT_GONE: Final = 499  # nginx's number for it: nobody sees the answer, only log and metrics
QUIET: Final = frozenset({"/livez", "/readyz", "/startupz", "/healthz", "/metrics"})
"""Asked every few seconds by machines."""
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# https://www.w3.org/TR/trace-context/#traceparent-header; of later versions, whatever follows doesn't count.
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?")
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_MAX_LOGGED_PATH = 128


class ClientGone(Exception):
    """The client hung up before its answer was there."""


class Telemetry:
    """Around every HTTP request: request id, Server-Timing, log line, metrics, and a 500 for what nobody caught."""

    def __init__(
        self,
        metrics: Metrics,
        answer: Callable[[BaseException, Request], ASGIApp],
        tracing: Tracing | None = None,
    ) -> None:
        self._metrics = metrics
        self._answer = answer
        self._tracing = tracing

    async def around(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have an application serve one request."""
        method = scope["method"]
        if method == "HEAD":  # answered wherever GET is: with the same fields, without the body (RFC 9110, 9.3.2)
            scope = {**scope, "method": "GET"}
        state = scope.setdefault("state", {})
        headers = Headers(scope=scope)
        context = {"request_id": _request_id(headers.get("x-request-id", ""))}
        state["request_id"], state["timeline"] = context["request_id"], (timeline := Timeline())
        exchange = _Exchange(scope, method, receive, send)
        trace_id = _trace_id(headers.get("traceparent", ""))
        if self._tracing and scope["path"] not in QUIET:
            trace_id = self._tracing.begin(timeline, scope, exchange.method, headers) or trace_id
        if trace_id:
            context["trace_id"] = trace_id
        self._metrics.begun(exchange.method)
        with structlog.contextvars.bound_contextvars(**context):
            try:
                await app(scope, exchange.receive, exchange.send)
            except (ClientGone, ClientDisconnect):
                pass
            except Exception as error:
                log.exception("request_failed")
                if exchange.status == 0:
                    await self._answer(error, Request(scope))(scope, exchange.receive, exchange.send)
            finally:  # also when the server cancels what did not finish in time
                self._record(exchange)

    def _record(self, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.began
        scope, state, method = exchange.scope, exchange.scope["state"], exchange.method
        route, status, code = _route(scope), exchange.status, state.get("code", "")
        timeline: Timeline = state["timeline"]
        if status == 0:
            status, code = CLIENT_GONE, "client_gone"
        model = description.name if (description := state.get("model")) else ""
        if timeline.steps:  # a classification
            if exchange.write_s:
                timeline.note(WRITE, exchange.write_began, exchange.write_s)
            for step in timeline.steps:
                if step.stage in (READ, WRITE):  # the service has told the others
                    self._metrics.stage(model, step.stage, step.seconds)
        self._metrics.request(method, route, status, code, seconds, exchange.received, exchange.sent)
        if code:
            self._metrics.refusal(code)
        told = {
            "method": method,
            "path": scope["path"][:_MAX_LOGGED_PATH],
            "route": route,
            "status": status,
            "code": code or "ok",
            "duration_ms": _ms(seconds),
            "request_bytes": exchange.received,
            "response_bytes": exchange.sent,
            **_asked(state),
            "stages_ms": {name: _ms(took) for name, took in timeline.longest().items()},
        }
        write = log.debug if route in QUIET else log.info
        write("request", **told)
        if self._tracing:
            self._tracing.end(timeline, state["request_id"], told)


class _Exchange:
    """A request and its answer, as they pass by."""

    def __init__(self, scope: Scope, method: str, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.method = method if method in _METHODS else "_OTHER"
        self.status = 0
        self.received = 0
        self.sent = 0
        """Bytes of both bodies."""
        self.write_began = 0.0
        self.write_s = 0.0
        """Handing the answer over, as far as it came."""
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """A piece of the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer."""
        if message["type"] == "http.response.start":
            self.write_began = time.perf_counter()
            self._complete(message)
        elif self.method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)
        self.sent += len(message.get("body", b""))
        self.write_s = time.perf_counter() - self.write_began

    def _complete(self, head: Message) -> None:
        """Add the fields that every answer has."""
        state = self.scope["state"]
        self.status = head["status"]
        fields = head["headers"] = list(head.get("headers", ()))
        fields.append((b"x-request-id", state["request_id"].encode()))
        protect(fields, self.scope["path"])
        if allowance := state.get("allowance"):
            fields.extend(allowance.fields().items())
        if stages := state["timeline"].longest():
            fields.append((b"server-timing", _server_timing(stages).encode()))


def _asked(state: Mapping[str, Any]) -> dict[str, object]:
    """What a classification was about, and who asked, as far as it is known."""
    told: dict[str, object] = {}
    if description := state.get("model"):
        told["model"], told["digest"] = description.name, description.digest
    for name in ("items", "modalities", "key"):
        if name in state:
            told[name] = state[name]
    return told


def _route(scope: Scope) -> str:
    """The route's template; never the path, or every mistyped address would be a new time series."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or ("assets" if "endpoint" in scope else "unmatched")


def _request_id(given: str) -> str:
    """The caller's own id when it is short and plain, so that logs on both sides can be joined; else a new one."""
    return given if _SANE_ID.fullmatch(given) else os.urandom(16).hex()


def _trace_id(traceparent: str) -> str | None:
    """The trace that the caller says this request belongs to."""
    found = _TRACE_PARENT.fullmatch(traceparent)
    return found[1] if found and not (found["more"] and traceparent.startswith("00")) else None


def _server_timing(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in stages.items())


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
