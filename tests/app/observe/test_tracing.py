"""Spans of requests, their stages and their batches."""

import asyncio
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from polymodal.app.main import create_app
from polymodal.app.observe.tracing import Tracing, tracing_for
from polymodal.app.probes import PROBES

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collected:
    """A service that keeps its spans in memory."""

    def __init__(self, settings, predictors, sampler=None):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.app = create_app(settings, predictors, Tracing(provider))

    async def __aenter__(self):
        self._lifespan = self.app.router.lifespan_context(self.app)
        await self._lifespan.__aenter__()
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service")
        return self

    async def __aexit__(self, *error):
        await self.client.aclose()
        await self._lifespan.__aexit__(*error)

    async def classify(self, text="red", **options):
        return await self.client.post("/v1/classify", json={"text": text}, **options)

    def spans(self, name=None):
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def requests(self):
        return [span for span in self.spans() if span.kind is SpanKind.SERVER]


@pytest.fixture
async def collected(settings, predictor):
    async with Collected(settings, {"toy": predictor}) as collected:
        yield collected


async def test_a_request_is_a_span_with_one_for_each_stage(collected):
    answer = await collected.classify()
    (request,) = collected.requests()
    assert request.name == "POST /v1/classify"
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "url.path": "/v1/classify",
        "url.scheme": "http",
        "server.address": "service",
        "polymodal.model": "toy",
        "polymodal.digest": "ab" * 32,
        "polymodal.modalities": ("text",),
        "polymodal.request_id": answer.headers["X-Request-Id"],
        "http.response.body.size": len(answer.content),
    }
    assert expected.items() <= request.attributes.items()
    assert "error.type" not in request.attributes
    assert request.status.status_code is StatusCode.UNSET
    stages = [span for span in collected.spans() if span not in (request, *collected.spans("batch"))]
    assert [span.name for span in stages] == ["read", "queue", "decode", "encode_text", "fuse", "write"]
    for earlier, later in pairwise(stages):
        assert later.start_time >= earlier.start_time
    for stage in stages:
        assert stage.parent.span_id == request.context.span_id
        assert request.start_time <= stage.start_time <= stage.end_time <= request.end_time


async def test_a_span_belongs_to_the_callers_trace_whose_id_is_logged(collected, logs):
    await collected.classify(headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (request,) = collected.requests()
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line["trace_id"] == TRACE


async def test_the_id_of_a_new_trace_is_logged(collected, logs):
    await collected.classify(headers={"traceparent": "rubbish"})
    (request,) = collected.requests()
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert line["trace_id"] == f"{request.context.trace_id:032x}"


async def until(condition):
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_batch_and_its_requests_are_linked_both_ways(collected, runtime):
    service = collected.app.state.service
    runtime.may_go.clear()
    sending = [asyncio.create_task(collected.classify())]
    await until(lambda: service.busy_s > 0)  # it is computed alone, and the next two wait
    sending += [asyncio.create_task(collected.classify(text)) for text in ("green", "blue")]
    await until(lambda: service.waiting == 2)
    runtime.may_go.set()
    await asyncio.gather(*sending)
    alone, both = sorted(collected.spans("batch"), key=lambda span: span.attributes["polymodal.batch.items"])
    requests = {span.context.span_id: span for span in collected.requests()}
    assert [len(alone.links), len(both.links)] == [1, 2]
    for batch in (alone, both):
        assert batch.parent.span_id == batch.links[0].context.span_id
        assert batch.attributes["polymodal.batch.predicted_seconds"] >= 0
        for link in batch.links:
            (back,) = requests.pop(link.context.span_id).links
            assert back.context.span_id == batch.context.span_id
    assert not requests


async def test_stages_of_a_batch_request_have_the_index_of_their_item(collected):
    await collected.client.post("/v1/classify/batch", json={"items": [{"text": "red"}, {"text": "blue"}]})
    (request,) = collected.requests()
    assert (request.name, request.attributes["polymodal.items"]) == ("POST /v1/classify/batch", 2)
    assert {span.attributes["polymodal.item"] for span in collected.spans("decode")} == {0, 1}


async def test_a_failure_of_the_service_is_an_error_and_one_of_the_client_is_not(collected):
    assert (await collected.classify("red red red red red")).status_code == 500
    assert (await collected.classify("\0")).status_code == 422
    ours, theirs = collected.requests()
    assert (ours.status.status_code, ours.attributes["error.type"]) == (StatusCode.ERROR, "internal_error")
    assert (theirs.status.status_code, theirs.attributes["error.type"]) == (StatusCode.UNSET, "undecodable")
    failed, refused = collected.spans("batch")
    assert (failed.status.status_code, failed.attributes["error.type"]) == (StatusCode.ERROR, "RuntimeError")
    assert refused.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
async def test_probes_are_not_traced(collected, path):
    await collected.client.get(path)
    assert collected.spans() == []


async def test_unknown_paths_and_methods_share_a_span_name(collected):
    await collected.client.request("PROPFIND", "/etc/passwd")
    await collected.client.get("/nope")
    assert [span.name for span in collected.requests()] == ["HTTP", "GET"]
    assert all("http.route" not in span.attributes for span in collected.requests())


async def test_the_trace_of_a_request_that_is_not_sampled_is_only_logged(settings, predictor, logs):
    async with Collected(settings, {"toy": predictor}, ParentBased(ALWAYS_OFF)) as collected:
        await collected.classify(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        await collected.classify(headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert len(collected.requests()) == 1
    lines = [entry["trace_id"] for entry in logs if entry["event"] == "request"]
    assert lines == [TRACE, TRACE]


async def test_nothing_that_a_client_sent_is_in_a_span(collected):
    headers = {"User-Agent": "secret-agent", "Authorization": "Bearer secret"}
    await collected.classify("my secret diary", headers=headers)
    await collected.client.post("/v1/classify?secret=1", json={"text": "red"})
    assert "secret" not in "".join(span.to_json() for span in collected.spans())


# --- with a collector ---

TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.fixture
def library():
    """OpenTelemetry's logger, restored after the test."""
    library = logging.getLogger("opentelemetry")
    before = library.handlers[:], library.propagate
    yield library
    library.handlers, library.propagate = before


@pytest.fixture
def environ(monkeypatch, library):
    """`environ(OTEL_…="…")`: set variables of the process, as the exporter itself reads them, and return them."""

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return change


@pytest.fixture
def collector():
    """A collector's address, and the list of what it receives."""
    received = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Sink) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


async def serve_one_request(settings, predictor, tracing):
    """Run a service for one request, and return the seconds that its end took."""
    app = create_app(settings, {"toy": predictor}, tracing)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            assert (await client.post("/v1/classify", json={"text": "red"})).status_code == 200
        ended = time.monotonic()
    return time.monotonic() - ended


async def test_spans_reach_a_collector_by_the_standard_variables(settings, predictor, environ, collector):
    url, received = collector
    tracing = tracing_for(environ(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_SERVICE_NAME="shop"), "1.2.3")
    await serve_one_request(settings, predictor, tracing)
    ((path, request),) = received
    (resource,) = request.resource_spans
    attributes = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
    assert (path, attributes["service.name"], attributes["service.version"]) == ("/v1/traces", "shop", "1.2.3")
    assert {"POST /v1/classify", "batch", "fuse"} <= {span.name for span in resource.scope_spans[0].spans}


async def test_the_service_is_named_polymodal_by_default(settings, predictor, environ, collector):
    url, received = collector
    tracing = tracing_for(environ(**{TRACES: f"{url}/here"}), "1.2.3")
    await serve_one_request(settings, predictor, tracing)
    ((path, request),) = received
    attributes = {entry.key: entry.value.string_value for entry in request.resource_spans[0].resource.attributes}
    assert (path, attributes["service.name"]) == ("/here", "polymodal")


async def test_a_collector_that_never_answers_does_not_delay_the_end(settings, predictor, environ, logs):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tracing = tracing_for(environ(**{TRACES: f"http://127.0.0.1:{deaf.getsockname()[1]}"}), "1.2.3")
        took_s = await serve_one_request(settings.model_copy(update={"drain_timeout_s": 0}), predictor, tracing)
    assert took_s < 5  # of the ten that the exporter would wait
    assert [entry for entry in logs if entry["event"] == "last_traces_not_exported"]


async def test_equal_messages_about_a_collector_are_logged_once(settings, predictor, environ, library, caplog):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    tracing = tracing_for(environ(**{TRACES: f"http://127.0.0.1:{port}"}, OTEL_EXPORTER_OTLP_TIMEOUT="1"), "1.2.3")
    await serve_one_request(settings, predictor, tracing)
    for number in range(5):
        logging.getLogger("opentelemetry.sdk").warning("Queue full, dropping %s.", number)
    assert sum("Queue full" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="none"),
        pytest.param({"OTEL_SERVICE_NAME": "shop"}, id="no-collector"),
        pytest.param({TRACES: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, id="disabled"),
        pytest.param({TRACES: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, id="no-exporter"),
    ],
)
def test_without_a_collector_nothing_is_traced_or_logged(variables, logs):
    assert tracing_for(variables, "1.2.3") is None
    assert logs == []


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        pytest.param({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin", id="exporter"),
        pytest.param(
            {TRACES: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "PROTOCOL=grpc", id="protocol"
        ),
        pytest.param({TRACES: "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "positive", id="queue"),
    ],
)
def test_an_unusable_configuration_is_logged_and_the_service_starts_without_traces(environ, logs, variables, problem):
    assert tracing_for(environ(**variables), "1.2.3") is None
    (line,) = logs
    assert line["event"] == "no_traces"
    assert problem in line["problem"]


def test_without_the_packages_there_are_no_traces(monkeypatch, logs):
    for module in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing_for({"OTEL_TRACES_EXPORTER": "otlp"}, "1.2.3") is None
    assert logs[0]["next"] == "pip install 'polymodal[otel]'"
