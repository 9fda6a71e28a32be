"""Metrics for Prometheus.

All are kept in the serving process, to which workers report, so that one scrape covers any number of workers. Metrics of the HTTP
server have the names of OpenTelemetry's semantic conventions in Prometheus' spelling; all others begin with `polymodal_`.
"""

import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from polymodal.app.cpus import throttled_seconds
from polymodal.app.observe.consumption import own_processor_seconds, processor_seconds_of, resident_bytes
from polymodal.app.observe.logs import output
from polymodal.app.serving.batching import BatchReport
from polymodal.app.serving.search import Indexes
from polymodal.app.serving.service import Service
from polymodal.app.workers.engine import Item
from polymodal.model import Description, Observed

# OpenTelemetry's buckets for http.server.request.duration, and two smaller ones: a refusal takes less than 5 ms.
_REQUEST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_STAGE_S: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_BATCH_S: Final = _STAGE_S[3:]
_BYTES: Final = tuple(4.0**power for power in range(4, 13))  # 256 bytes to 16 MiB
_TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 11))
_NO_LABEL: Final = ""
"""The label of a regression, and of an item for which none of several labels is selected."""


class Metrics:
    """The metrics of one application, in a registry of its own.

    Every label has few values: routes are templates, never paths.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # for the whole process: otherwise every counter has one more time series
        self.registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        self._durations = histogram(
            "http_server_request_duration_seconds",
            "From a request's head to the last byte of its answer; error_type is the problem's code.",
            ("http_request_method", "http_route", "http_response_status_code", "error_type"),
            buckets=_REQUEST_S,
        )
        self._active = gauge(
            "http_server_active_requests", "Requests whose answer is not finished.", ("http_request_method",)
        )
        self._request_bytes = histogram(
            "http_server_request_body_size_bytes",
            "Bytes that were read of requests' bodies.",
            ("http_request_method", "http_route"),
            buckets=_BYTES,
        )
        self._response_bytes = histogram(
            "http_server_response_body_size_bytes",
            "Bytes of answers' bodies.",
            ("http_request_method", "http_route"),
            buckets=_BYTES,
        )
        self._connections = gauge("polymodal_connections", "Connections that are open.")
        self._closed = counter(
            "polymodal_connections_closed", "Connections that were closed by a limit, by reason.", ("reason",)
        )
        self._refusals = counter(
            "polymodal_refusals",
            "Items that got no answer, by the problem's code; also those inside batch requests.",
            ("reason",),
        )
        self._keys_stale = gauge(
            "polymodal_api_keys_stale",
            "1 while the file of API keys can't be read and those that were read before are valid.",
        )
        self._storage_failures = counter(
            "polymodal_rate_limit_storage_failures", "Requests to Redis for rate limits that failed."
        )

        self._stages = histogram(
            "polymodal_stage_duration_seconds",
            "One stage of one item; encoding and fusing are those of the item's whole batch.",
            ("model", "stage"),
            buckets=_STAGE_S,
        )
        self._batch_items = histogram(
            "polymodal_batch_items", "Items computed together.", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self._batch_predicted = histogram(
            "polymodal_batch_predicted_seconds", "Predicted duration of a batch.", ("model",), buckets=_BATCH_S
        )
        self._batch_durations = histogram(
            "polymodal_batch_duration_seconds", "Duration of a batch in its worker.", ("model",), buckets=_BATCH_S
        )
        self._cached = counter(
            "polymodal_embedding_cache_requests",
            "Lookups in the embedding cache; result is hit or miss.",
            ("modality", "result"),
        )
        self._predictions = counter(
            "polymodal_predictions",
            "Returned labels, by the inputs that were used.",
            ("model", "label", "modalities"),
        )
        self._scores = histogram(
            "polymodal_prediction_score",
            "The best label's score.",
            ("model",),
            buckets=(*_TENTHS[:-1], 0.95, 0.99, 1.0),
        )
        self._entropies = histogram(
            "polymodal_prediction_entropy_ratio",
            "Entropy of a model's scores, divided by the largest possible entropy.",
            ("model",),
            buckets=_TENTHS,
        )
        self._references = gauge(
            "polymodal_label_reference_ratio",
            "Each label's share of the labels that the model was trained on.",
            ("model", "label"),
        )
        self._restarts = counter("polymodal_worker_restarts", "Workers that had died and were started again.")
        self._busy = counter("polymodal_worker_busy_seconds", "Seconds that workers computed.")
        self._bundles = Info("polymodal_bundle", "The served models.", ("model",), registry=registry)
        self._build = Info("polymodal_build", "Version, Python and revision of the service.", registry=registry)
        self._requests: defaultdict[str, int] = defaultdict(int)
        # Every request uses children of labels: a dictionary is faster than the library's lookup under a lock.
        self._duration = cache(self._durations.labels)
        self._request_size = cache(self._request_bytes.labels)
        self._response_size = cache(self._response_bytes.labels)
        self._stage = cache(self._stages.labels)
        self._items = cache(self._batch_items.labels)
        self._predicted_s = cache(self._batch_predicted.labels)
        self._took_s = cache(self._batch_durations.labels)
        self._label = cache(self._predictions.labels)
        self._score = cache(self._scores.labels)
        self._entropy = cache(self._entropies.labels)
        registry.register(_LostLines())

    # --- requests ---

    def started(self, method: str) -> None:
        """Count a request that is being served."""
        if method not in self._requests:
            self._active.labels(method).set_function(lambda: self._requests[method])
        self._requests[method] += 1

    def request(
        self, method: str, route: str, status: int, error: str, seconds: float, received: int, sent: int
    ) -> None:
        """Record an answered request; `error` is the code of its problem, or empty."""
        self._requests[method] -= 1
        self._duration(method, route, str(status), error).observe(seconds)
        self._request_size(method, route).observe(received)
        self._response_size(method, route).observe(sent)

    def refusal(self, reason: str) -> None:
        """Count an item that got no answer."""
        self._refusals.labels(reason).inc()

    def closed(self, reason: str) -> None:
        """Count a connection that was closed by a limit."""
        self._closed.labels(reason).inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Call `count` whenever the metrics are scraped."""
        self._connections.set_function(count)

    def keys_stale(self, stale: bool) -> None:
        """Set whether the valid keys are those of an earlier version of the file."""
        self._keys_stale.set(stale)

    def rate_limit_storage_failed(self) -> None:
        """Count a failed request to Redis."""
        self._storage_failures.inc()

    # --- items ---

    def stage(self, model: str, name: str, seconds: float) -> None:
        """Record one stage of one item."""
        self._stage(model, name).observe(seconds)

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """Record a batch that was computed, or failed."""
        self._busy.inc(report.compute_s)
        if report.error is None:
            self._items(model).observe(len(report.items))
            self._predicted_s(model).observe(report.predicted_s)
            self._took_s(model).observe(report.compute_s)

    def cached(self, modality: str, *, hit: bool) -> None:
        """Count a lookup in the embedding cache."""
        self._cached.labels(modality, "hit" if hit else "miss").inc()

    def observed(self, description: Description, used: frozenset[str], observed: Observed) -> None:
        """Record a model's answer about one item with these modalities."""
        model = description.name
        # Workers open untrusted files: what they send must not create an unbounded number of series.
        modalities = "+".join(sorted(used & {spec.name for spec in description.inputs}))
        for label in observed.labels.intersection(description.labels) or (_NO_LABEL,):
            self._label(model, label, modalities).inc()
        if observed.score is not None:
            self._score(model).observe(observed.score)
        if observed.entropy_ratio is not None:
            self._entropy(model).observe(observed.entropy_ratio)

    # --- the service ---

    def watch(self, service: Service) -> None:
        """Read the service's state whenever the metrics are scraped."""
        self.registry.register(_State(service))

    def watch_indexes(self, indexes: Indexes) -> None:
        """Read the number of items of each index, and whether it can be searched, whenever the metrics are scraped."""
        self.registry.register(_IndexState(indexes))

    def restarted(self) -> None:
        """Count a restart of a worker that had died."""
        self._restarts.inc()

    def bundle(self, description: Description) -> None:
        """Record a served model."""
        self._bundles.labels(description.name).info({"digest": description.digest, "runtime": description.runtime})
        for label, ratio in reference_ratios(description).items():
            self._references.labels(description.name, label).set(ratio)

    def build(self, version: str, revision: str) -> None:
        """Record the version, Python and the revision, without empty values."""
        labels = {"version": version, "python": platform.python_version(), "revision": revision}
        self._build.info({name: value for name, value in labels.items() if value})


class _LostLines(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the number of lost lines."""
        yield CounterMetricFamily("polymodal_log_lines_lost", "Log lines that could not be written.", output.lost)


class _IndexState(Collector):
    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the items of each index, and whether its version of the model is served."""
        items = GaugeMetricFamily("polymodal_index_items", "Items of a search index.", labels=("index",))
        about = "1 while the version of the model that the index was built with is served."
        usable = GaugeMetricFamily("polymodal_index_usable", about, labels=("index",))
        for name, index in self._indexes:
            items.add_metric((name,), len(index))
            usable.add_metric((name,), self._indexes.deployment_of(index) is not None)
        yield from (items, usable)


class _State(Collector):
    """Metrics that are read from the service when they are scraped."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workers_s = 0.0

    def collect(self) -> Iterator[Metric]:
        """Yield the state of the service, its queue and its workers, and their use of the machine."""
        service, gauge = self._service, GaugeMetricFamily
        yield gauge("polymodal_ready", "1 while /readyz returns 200.", service.ready)
        yield gauge("polymodal_requests_inside", "Requests admitted and not yet answered.", service.inside)
        about = "Bytes of these requests' bodies, as far as they have arrived or were declared."
        yield gauge("polymodal_inflight_bytes", about, service.inflight_bytes)
        yield gauge("polymodal_queue_length", "Items in the queue.", service.waiting)
        wait_s = service.predicted_wait_s
        yield gauge("polymodal_queue_predicted_wait_seconds", "Predicted wait of a request that arrives now.", wait_s)
        cached_bytes = service.cached_bytes
        yield gauge("polymodal_embedding_cache_bytes", "Memory of the cached embeddings.", cached_bytes)
        yield gauge("polymodal_workers", "Workers that are alive.", service.workers)
        yield gauge("polymodal_workers_wanted", "Workers that are configured.", service.configured_workers)
        yield self._processor_seconds()
        yield self._resident_bytes()
        if (throttled_s := throttled_seconds()) is not None:
            about = "Seconds that the container was throttled by its limit of cores."
            yield CounterMetricFamily("polymodal_processor_throttled_seconds", about, throttled_s)

    def _processor_seconds(self) -> CounterMetricFamily:
        family = CounterMetricFamily("polymodal_processor_seconds", "Seconds of cores used.", labels=("process",))
        family.add_metric(("server",), own_processor_seconds())
        if pids := self._service.worker_pids:
            # A worker that has just died may be missing once, and Prometheus treats a counter that decreases as a reset.
            self._workers_s = max(self._workers_s, processor_seconds_of(pids))
            family.add_metric(("workers",), self._workers_s)
        return family

    def _resident_bytes(self) -> GaugeMetricFamily:
        about = "Memory in use; memory that workers share is counted for each of them."
        family = GaugeMetricFamily("polymodal_resident_memory_bytes", about, labels=("process",))
        family.add_metric(("server",), resident_bytes((os.getpid(),)))
        if pids := self._service.worker_pids:
            family.add_metric(("workers",), resident_bytes(pids))
        return family


def reference_ratios(description: Description) -> dict[str, float]:
    """Return each label's share of all labels of the training split; empty when the report has no counts."""
    counts: object = description.report
    for key in ("data", "split", "labels", "train"):
        counts = counts.get(key) if isinstance(counts, Mapping) else None
    if not isinstance(counts, Mapping):
        return {}
    rows = {label: counts.get(label, 0) for label in description.labels}
    if not all(isinstance(count, int) and count >= 0 for count in rows.values()) or not (total := sum(rows.values())):
        return {}
    return {label: count / total for label, count in rows.items()}
