"""Spans of requests, their stages and their batches, sent to a collector by OTLP over HTTP; set by OpenTelemetry's own variables.

Without those variables nothing is imported or recorded. Spans of stages are made from the timeline when a request has ended; only
the request's own span starts with it, because the sampler decides then. A failing collector does not affect serving: spans that it
does not accept are dropped.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from polymodal.app.observe.timeline import Timeline
from polymodal.app.serving.batching import BatchReport
from polymodal.app.workers.engine import Item

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

NAME: Final = "polymodal"
"""Name of the service, unless OTEL_SERVICE_NAME is set."""
FLUSH_S: Final = 2.0
"""Seconds for sending the last spans when the service ends; included in the drain timeout."""
REPEAT_S: Final = 60.0
"""Seconds between two equal log lines of OpenTelemetry, which logs one for every span while a collector is gone."""
_MOST_MESSAGES: Final = 256
_PROTOCOL: Final = "http/protobuf"
_EXPORTERS: Final = frozenset({"otlp", "otlp_proto_http"})
# Fields of a request's log entry that its span has, with their names in OpenTelemetry's semantic conventions.
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
    """A recorded request; converts perf_counter's time to that of spans, nanoseconds since 1970."""

    span: "Span"
    began: float
    began_ns: int

    def at(self, moment: float) -> int:
        return self.began_ns + round((moment - self.began) * 1e9)


class Tracing:
    """Makes spans with a provider, which samples and exports them."""

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
        """Start a request's span, in the trace that `headers` name, if any. Returns the trace's id if it is recorded."""
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

    def end(self, timeline: Timeline, request_id: str, entry: Mapping[str, Any]) -> None:
        """End a request's span, with spans of its stages; `entry` is its log entry."""
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
        route = entry["route"]
        span.update_name(_span_name(entry["method"], route))
        span.set_attributes({name: entry[known] for known, name in _ATTRIBUTES.items() if known in entry})
        span.set_attribute("polymodal.request_id", request_id)
        if route.startswith("/"):
            span.set_attribute("http.route", route)
        if (code := entry["code"]) != "ok":
            span.set_attribute("error.type", code)
        if entry["status"] >= _SERVER_ERROR:
            span.set_status(self._api.StatusCode.ERROR, code)
        span.end(request.at(time.perf_counter()))

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """Record a computed or failed batch: a span in the first recorded request's trace, linked with all of them."""
        spans = {id(item.timeline): item.timeline.span for item in report.items}.values()
        requests = [span for span in spans if isinstance(span, _Recorded)]
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
            links=[self._api.Link(request.span.get_span_context()) for request in requests],
            start_time=first.at(report.began),
        )
        if report.error is not None:
            span.set_attribute("error.type", type(report.error).__name__)
            span.set_status(self._api.StatusCode.ERROR)
        span.end(first.at(report.began + report.compute_s))
        for request in requests:
            if request.span.is_recording():  # not after its deadline
                request.span.add_link(span.get_span_context())

    def close(self, most_s: float) -> None:
        """Send the remaining spans; after FLUSH_S or `most_s`, drop those that are left."""
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(min(FLUSH_S, most_s))
        if closing.is_alive():
            log.warning("last_traces_not_exported")


class _Throttled(logging.Handler):
    """Passes equal messages of a library to the log at most once in REPEAT_S."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[object, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if len(self._last) > _MOST_MESSAGES:
            self._last.clear()
        if now - self._last.get(record.msg, -REPEAT_S) >= REPEAT_S:
            self._last[record.msg] = now
            logging.getLogger().handle(record)


def tracing_for(environ: Mapping[str, str], version: str) -> Tracing | None:
    """Return tracing as OpenTelemetry's variables configure it; None without them, or after logging why it is impossible."""
    if not _is_enabled(environ):
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
    library.addHandler(_Throttled())
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


def _is_enabled(environ: Mapping[str, str]) -> bool:
    """Return whether the variables name a collector's address or the exporter."""
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
