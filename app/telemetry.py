"""What is known about a request from outside: its id, one structured log line, metrics.

It is the outermost layer: whatever happens inside, the client gets an answer with an id, and the log a line.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from functools import cache

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.headers import protect
from app.logs import output
from model import Description

log = structlog.get_logger(__name__)

CLIENT_GONE = 499  # nginx's number for it: nobody sees the answer, only log and metrics
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_QUIET = {"/livez", "/readyz", "/startupz", "/healthz", "/metrics"}  # asked every few seconds by machines
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_MAX_LOGGED_PATH = 128
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ClientGone(Exception):
    """The client hung up before its answer was there."""


class Metrics:
    """One application's measurements, in its own registry so that two applications don't mix theirs.

    Every label has few values: routes are templates, never paths.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "polymodal_requests",
            "Requests answered; code is the problem's, or ok.",
            ("method", "route", "status", "code"),
            registry=registry,
        )
        self._durations = Histogram(
            "polymodal_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "polymodal_stage_duration_seconds",
            "One step of one classification: read, decode, queue, predict.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "polymodal_batch_items",
            "Examples computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._refusals = Counter(
            "polymodal_refusals",
            "Examples that got no answer, by the problem's code; also those inside batch requests.",
            ("reason",),
            registry=registry,
        )
        self._cached = Counter(
            "polymodal_embedding_cache_requests",
            "Embeddings looked for among those that are kept; result is hit or miss.",
            ("modality", "result"),
            registry=registry,
        )
        self._cache_bytes = Gauge(
            "polymodal_embedding_cache_bytes", "Memory of the embeddings that are kept.", registry=registry
        )
        self._inside = Gauge("polymodal_requests_inside", "Requests admitted and not yet answered.", registry=registry)
        self._waiting = Gauge("polymodal_queue_length", "Examples whose turn has not come.", registry=registry)
        self._workers = Gauge("polymodal_workers", "Workers that are alive.", registry=registry)
        # Looked up for every request: a label's child is found by a dictionary rather than under a lock.
        self._stage = cache(self._stages.labels)
        self._duration = cache(self._durations.labels)
        self._request = cache(self._requests.labels)
        self._restarts = Counter(
            "polymodal_worker_restarts", "Workers that had died and were started again.", registry=registry
        )
        self._connections = Gauge("polymodal_connections", "Connections that are open.", registry=registry)
        self._closed = Counter(
            "polymodal_connections_closed",
            "Connections that were closed by a limit, by reason.",
            ("reason",),
            registry=registry,
        )
        self._keys_stale = Gauge(
            "polymodal_api_keys_stale",
            "1 while the file of API keys can't be read and those that were read before are valid.",
            registry=registry,
        )
        self._storage_failures = Counter(
            "polymodal_rate_limit_storage_failures",
            "Times that Redis was asked for rate limits in vain.",
            registry=registry,
        )
        self._bundles = Info("polymodal_bundle", "The served models.", ("model",), registry=registry)
        registry.register(_LostLines())

    def request(self, method: str, route: str, status: int, code: str, seconds: float) -> None:
        """One request was answered."""
        self._request(method, route, str(status), code).inc()
        self._duration(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """One step of one classification."""
        self._stage(name).observe(seconds)

    def batch(self, items: int) -> None:
        """One batch was computed."""
        self._batches.observe(items)

    def cached(self, modality: str, *, hit: bool) -> None:
        """An embedding was looked for among those that are kept."""
        self._cached.labels(modality, "hit" if hit else "miss").inc()

    def restarted(self) -> None:
        """A worker that had died is started again."""
        self._restarts.inc()

    def closed(self, reason: str) -> None:
        """A connection was closed by a limit."""
        self._closed.labels(reason).inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Read it whenever the metrics are scraped."""
        self._connections.set_function(count)

    def keys_stale(self, stale: bool) -> None:
        """Whether the keys that are valid are those of an earlier file."""
        self._keys_stale.set(stale)

    def rate_limit_storage_failed(self) -> None:
        """Redis was asked in vain."""
        self._storage_failures.inc()

    def refusal(self, reason: str) -> None:
        """One example got no answer."""
        self._refusals.labels(reason).inc()

    def watch(
        self,
        *,
        inside: Callable[[], int],
        waiting: Callable[[], int],
        workers: Callable[[], int],
        cache_bytes: Callable[[], int],
    ) -> None:
        """Read these whenever the metrics are scraped."""
        self._inside.set_function(inside)
        self._waiting.set_function(waiting)
        self._workers.set_function(workers)
        self._cache_bytes.set_function(cache_bytes)

    def bundle(self, description: Description) -> None:
        """A model is served."""
        self._bundles.labels(description.name).info({"digest": description.digest, "runtime": description.runtime})


class _LostLines(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the log itself counts."""
        yield CounterMetricFamily("polymodal_log_lines_lost", "Log lines that could not be written.", output.lost)


class Telemetry:
    """Around every HTTP request: request id, Server-Timing, log line, metrics, and a 500 for what nobody caught."""

    def __init__(self, metrics: Metrics, answer: Callable[[BaseException, Request], ASGIApp]) -> None:
        self._metrics = metrics
        self._answer = answer

    async def around(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have an application serve one request."""
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(Headers(scope=scope))
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                fields = message["headers"] = list(message.get("headers", ()))
                fields.append((b"x-request-id", request_id.encode()))
                protect(fields, scope["path"])
                if allowance := state.get("allowance"):
                    fields.extend(allowance.fields().items())
                if stages := state.get("stages"):
                    fields.append((b"server-timing", _server_timing(stages).encode()))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await app(scope, receive, send_with_headers)
            except (ClientGone, ClientDisconnect):
                pass
            except Exception as error:
                log.exception("request_failed")
                if status == 0:
                    await self._answer(error, Request(scope))(scope, receive, send_with_headers)
            finally:  # also when the server cancels what did not finish in time
                self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        route = _route(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        code = state.get("code", "ok")
        if status == 0:
            status, code = CLIENT_GONE, "client_gone"
        self._metrics.request(method, route, status, code, seconds)
        if code != "ok":
            self._metrics.refusal(code)
        write = log.debug if route in _QUIET else log.info
        write(
            "request",
            method=method,
            path=scope["path"][:_MAX_LOGGED_PATH],
            route=route,
            status=status,
            code=code,
            duration_ms=round(seconds * 1000, 2),
            stages_ms={name: round(took * 1000, 2) for name, took in state.get("stages", {}).items()},
            **({"key": state["key"]} if "key" in state else {}),
        )


def _route(scope: Scope) -> str:
    """The route's template; never the path, or every mistyped address would be a new time series."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or ("assets" if "endpoint" in scope else "unmatched")


def _request_id(headers: Headers) -> str:
    """The caller's own id when it is short and plain, so that logs on both sides can be joined; else a new one."""
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else os.urandom(16).hex()


def _server_timing(stages: dict[str, float]) -> str:
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in stages.items())
