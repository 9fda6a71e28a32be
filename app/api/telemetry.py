"""Outermost middleware: id and context of a request, header fields of every response, a log line, metrics and a trace."""

import os
import re
import time
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polymodal.app.api.context import RequestContext
from polymodal.app.api.headers import protect
from polymodal.app.observe.metrics import Metrics
from polymodal.app.observe.timeline import READ, WRITE
from polymodal.app.observe.tracing import Tracing
from polymodal.app.probes import PROBES

log = structlog.get_logger(__name__)

CLIENT_GONE: Final = 499  # nginx's status for a closed connection; in log and metrics only
QUIET: Final = frozenset({*PROBES, "/metrics"})
"""Routes that machines request every few seconds; logged at a lower level, and not traced."""
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append more.
_TRACE_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<appended>-.*)?"
)
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_MAX_LOGGED_PATH = 128


class Telemetry:
    """Gives every HTTP request an id, a log line and metrics, whether it succeeds or fails."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method = scope["method"]
        if method == "HEAD":  # served like GET: with the same fields, without the body (RFC 9110, 9.3.2)
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        context = RequestContext(_request_id(headers.get("x-request-id", "")))
        context.store(scope)
        exchange = _Exchange(scope, context, method, receive, send)
        logged = {"request_id": context.request_id}
        trace_id = _trace_id(headers.get("traceparent", ""))
        if self._tracing and scope["path"] not in QUIET:
            trace_id = self._tracing.begin(context.timeline, scope, exchange.method, headers) or trace_id
        if trace_id:
            logged["trace_id"] = trace_id
        self._metrics.started(exchange.method)
        with structlog.contextvars.bound_contextvars(**logged):
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:  # also when the server cancels a request that did not finish in time
                self._record(exchange)

    def _record(self, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.began
        scope, context, method = exchange.scope, exchange.context, exchange.method
        route, status, code, timeline = _route(scope), context.status, context.code, context.timeline
        if status == 0:
            status, code = CLIENT_GONE, "client_gone"
        if timeline.steps:  # the request ran a task
            if exchange.write_s:
                timeline.note(WRITE, exchange.write_began, exchange.write_s)
            model = context.model.name if context.model else ""
            for step in timeline.steps:
                if step.stage in (READ, WRITE):  # the service has measured the other stages
                    self._metrics.stage(model, step.stage, step.seconds)
        self._metrics.request(method, route, status, code, seconds, exchange.received, exchange.sent)
        if code:
            self._metrics.refusal(code)
        entry = {
            "method": method,
            "path": scope["path"][:_MAX_LOGGED_PATH],
            "route": route,
            "status": status,
            "code": code or "ok",
            "duration_ms": _ms(seconds),
            "request_bytes": exchange.received,
            "response_bytes": exchange.sent,
            **_details(context),
            "stages_ms": {name: _ms(stage_s) for name, stage_s in timeline.longest().items()},
        }
        write = log.debug if route in QUIET else log.info
        write("request", **entry)
        if self._tracing:
            self._tracing.end(timeline, context.request_id, entry)


class _Exchange:
    """Forwards the messages of a request and its response, and measures them."""

    def __init__(self, scope: Scope, context: RequestContext, method: str, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.context = context
        self.method = method if method in _METHODS else "_OTHER"
        self.received = 0
        """Bytes of the request's body."""
        self.sent = 0
        """Bytes of the response's body."""
        self.write_began = 0.0
        self.write_s = 0.0
        """Seconds from the response's first message to its latest one."""
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Send the next message of the response."""
        if message["type"] == "http.response.start":
            self.write_began = time.perf_counter()
            self._complete(message)
        elif self.method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)
        self.sent += len(message.get("body", b""))
        self.write_s = time.perf_counter() - self.write_began

    def _complete(self, head: Message) -> None:
        """Add the header fields that every response has."""
        context = self.context
        context.status = head["status"]
        fields = head["headers"] = list(head.get("headers", ()))
        fields.append((b"x-request-id", context.request_id.encode()))
        protect(fields, self.scope["path"])
        if context.allowance:
            fields.extend(context.allowance.fields().items())
        if stages := context.timeline.longest():
            fields.append((b"server-timing", _server_timing(stages).encode()))


def _details(context: RequestContext) -> dict[str, object]:
    """Return the log entries about the model, the inputs and the key of a request that were recorded."""
    details: dict[str, object] = {}
    if context.model:
        details["model"], details["digest"] = context.model.name, context.model.digest
    if context.items is not None:
        details["items"] = context.items
    if context.modalities is not None:
        details["modalities"] = list(context.modalities)
    if context.key:
        details["key"] = context.key
    return details


def _route(scope: Scope) -> str:
    """Return the route's template. The path itself would make a new time series of every mistyped path."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or ("assets" if "endpoint" in scope else "unmatched")


def _request_id(client_id: str) -> str:
    """Return the client's own id, so that both sides' logs can be joined; a new one unless it is short and safe to log."""
    return client_id if _SAFE_ID.fullmatch(client_id) else os.urandom(16).hex()


def _trace_id(traceparent: str) -> str | None:
    """Return the id of the trace in a traceparent field; None without a valid one."""
    match = _TRACE_PARENT.fullmatch(traceparent)
    return match[1] if match and not (match["appended"] and traceparent.startswith("00")) else None


def _server_timing(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in stages.items())


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
