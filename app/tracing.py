"""Spans of requests, their stages and their batches, sent to a collector by OTLP over HTTP; set by OpenTelemetry's own variables.

Without those variables nothing of this is imported or done. Spans are made when a request has ended, from the timeline that it has
anyway; only its own span is begun with it, as that decides whether it is recorded. Whatever a collector does, serving goes on: what
it doesn't take is dropped.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from app.batching import BatchReport
from app.engine import Item
from app.timeline import Timeline

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

NAME: Final = "polymodal"
"""Of the service, unless OTEL_SERVICE_NAME says otherwise."""
FLUSH_S: Final = 2.0
"""For the last spans to be sent when the service ends, out of what it may take to drain."""
SELDOM_S: Final = 60.0
"""Between two log lines of OpenTelemetry's that say the same: with a collector that is gone it has one for every span."""
_MOST_SAID: Final = 256
_PROTOCOL: Final = "http/protobuf"
_EXPORTERS: Final = frozenset({"otlp", "otlp_proto_http"})
# Of what a request's log line tells, what its span tells, and how OpenTelemetry's semantic conventions name it.
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "status": "http.response.status_code",
    "request_bytes": "http.request.body.size",
    "response_bytes": "http.response.body.size",
    "model": "polymodal.model",
    "digest": "polymodal.digest",
    "modalities": "polymodal.modalities",
    "items": "polymodal.items",
    "key": "polymodal.key",
}
_SERVER_ERROR: Final = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A request that is recorded, and how perf_counter's time becomes that of spans: nanoseconds since 1970."""

    span: "Span"
    began: float
    began_ns: int

    def at(self, moment: float) -> int:
        return self.began_ns + round((moment - self.began) * 1e9)


class Tracing:
    """Makes spans with a provider, which says what becomes of them."""

    def __init__(self, provider: "TracerProvider", version: str = "") -> None:
        from opentelemetry import trace  # noqa: PLC0415 — an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer(NAME, version)
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self, timeline: Timeline, scope: Mapping[str, Any], method: str, headers: Mapping[str, str]
    ) -> str | None:
        """A request begins; the id of its trace when it is recorded, as part of its caller's where `headers` name one."""
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.scheme": scope.get("scheme", "http"),
            "url.path": scope["path"][:128],
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if server := scope.get("server"):
            attributes["server.address"] = server[0]
            if server[1]:
                attributes["server.port"] = server[1]
        began_ns = time.time_ns()
        span = self._tracer.start_span(
            _span_name(method),
            context=self._propagator.extract(headers),
            kind=self._api.SpanKind.SERVER,
            attributes=attributes,
            start_time=began_ns,
        )
        if not span.is_recording():
            return None
        timeline.span = _Recorded(span, time.perf_counter(), began_ns)
        return self._api.format_trace_id(span.get_span_context().trace_id)

    def end(self, timeline: Timeline, request_id: str, told: Mapping[str, Any]) -> None:
        """It has ended; `told` is what its log line tells."""
        request = timeline.span
        if not isinstance(request, _Recorded):
            return
        span, within = request.span, self._api.set_span_in_context(request.span)
        for step in timeline.steps:
            self._tracer.start_span(
                step.stage,
                context=within,
                attributes=None if step.item is None else {"polymodal.item": step.item},
                start_time=request.at(step.began),
            ).end(request.at(step.began + step.seconds))
        route = told["route"]
        span.update_name(_span_name(told["method"], route))
        span.set_attributes({name: told[known] for known, name in _ATTRIBUTES.items() if known in told})
        span.set_attribute("polymodal.request_id", request_id)
        if route.startswith("/"):
            span.set_attribute("http.route", route)
        if (code := told["code"]) != "ok":
            span.set_attribute("error.type", code)
        if told["status"] >= _SERVER_ERROR:
            span.set_status(self._api.StatusCode.ERROR, code)
        span.end(request.at(time.perf_counter()))

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """A batch was computed, or failed: a span in the first recorded request's trace, linked to all of them, and they to it."""
        spans = {id(item.timeline): item.timeline.span for item in report.items}.values()
        requests = [each for each in spans if isinstance(each, _Recorded)]
        if not requests:
            return
        first = requests[0]
        span = self._tracer.start_span(
            "batch",
            context=self._api.set_span_in_context(first.span),
            attributes={
                "polymodal.model": model,
                "polymodal.batch.items": len(report.items),
                "polymodal.batch.predicted_seconds": report.predicted_s,
            },
            links=[self._api.Link(each.span.get_span_context()) for each in requests],
            start_time=first.at(report.began),
        )
        if report.error is not None:
            span.set_attribute("error.type", type(report.error).__name__)
            span.set_status(self._api.StatusCode.ERROR)
        span.end(first.at(report.began + report.compute_s))
        for each in requests:
            if each.span.is_recording():  # not after its deadline
                each.span.add_link(span.get_span_context())

    def close(self, most_s: float) -> None:
        """Send what is left, and give up what hasn't been sent after so long."""
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(min(FLUSH_S, most_s))
        if closing.is_alive():
            log.warning("last_traces_not_exported")


class _Seldom(logging.Handler):
    """Passes each thing that a library says to the log once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[object, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if len(self._last) > _MOST_SAID:
            self._last.clear()
        if now - self._last.get(record.msg, -SELDOM_S) >= SELDOM_S:
            self._last[record.msg] = now
            logging.getLogger().handle(record)


def tracing_for(environ: Mapping[str, str], version: str) -> Tracing | None:
    """What OpenTelemetry's variables ask for; None for nothing, or for what can't be done, which the log then says."""
    if not _asks(environ):
        return None
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or _PROTOCOL
    )
    if protocol != _PROTOCOL:
        log.warning("no_traces", problem=f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}", allowed=_PROTOCOL)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 — an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as problem:
        log.warning("no_traces", problem=str(problem), next="pip install 'polymodal[otel]'")
        return None
    library = logging.getLogger("opentelemetry")
    library.addHandler(_Seldom())
    library.propagate = False
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": NAME}))
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as problem:  # e.g. a queue of no length
        log.error("no_traces", problem=str(problem))  # noqa: TRY400
        return None
    return Tracing(provider, version)


def _asks(environ: Mapping[str, str]) -> bool:
    """Whether spans are to be sent: with a collector's address, or the exporter chosen by name."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    chosen = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not chosen:
        return any(environ.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in ("", "TRACES_"))
    if chosen not in _EXPORTERS | {"none"}:
        log.warning("no_traces", problem=f"OTEL_TRACES_EXPORTER={chosen}", allowed="otlp or none")
    return chosen in _EXPORTERS


def _span_name(method: str, route: str = "") -> str:
    method = "HTTP" if method == "_OTHER" else method
    return f"{method} {route}" if route.startswith("/") else method
