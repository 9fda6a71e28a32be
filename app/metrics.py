"""The service's measurements, as Prometheus reads them.

All are kept in the serving process, and what workers do is told to it: one scrape is right for any number of workers. What the
HTTP server does has the names of OpenTelemetry's semantic conventions in Prometheus' spelling; everything else begins with
`polymodal_`.
"""

import math
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.batching import BatchReport
from app.consumption import processor_seconds_here, processor_seconds_of, resident_bytes
from app.cpus import throttled_seconds
from app.engine import Item
from app.logs import output
from app.service import Service
from model import Description, Prediction

# What OpenTelemetry advises for http.server.request.duration, and two below: a refusal takes less than 5 ms.
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
_NOTHING_SAID: Final = ""
"""The label of a regression, and of an example for which none of several labels is selected."""


class Metrics:
    """One application's measurements, in its own registry so that two applications don't mix theirs.

    Every label has few values: routes are templates, never paths.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # for the whole process: each would be one more time series beside every counter
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
            "Examples that got no answer, by the problem's code; also those inside batch requests.",
            ("reason",),
        )
        self._keys_stale = gauge(
            "polymodal_api_keys_stale",
            "1 while the file of API keys can't be read and those that were read before are valid.",
        )
        self._storage_failures = counter(
            "polymodal_rate_limit_storage_failures", "Times that Redis was asked for rate limits in vain."
        )

        self._stages = histogram(
            "polymodal_stage_duration_seconds",
            "One stage of one classification; encoding and fusing are those of the example's whole batch.",
            ("model", "stage"),
            buckets=_STAGE_S,
        )
        self._batch_items = histogram(
            "polymodal_batch_items", "Examples computed together.", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self._batch_predicted = histogram(
            "polymodal_batch_predicted_seconds", "What a batch was predicted to take.", ("model",), buckets=_BATCH_S
        )
        self._batch_durations = histogram(
            "polymodal_batch_duration_seconds", "What a batch took its worker.", ("model",), buckets=_BATCH_S
        )
        self._cached = counter(
            "polymodal_embedding_cache_requests",
            "Embeddings looked for among those that are kept; result is hit or miss.",
            ("modality", "result"),
        )
        self._predictions = counter(
            "polymodal_predictions", "Labels that were said, and of which inputs.", ("model", "label", "modalities")
        )
        self._scores = histogram(
            "polymodal_prediction_score",
            "The best label's score.",
            ("model",),
            buckets=(*_TENTHS[:-1], 0.95, 0.99, 1.0),
        )
        self._entropies = histogram(
            "polymodal_prediction_entropy_ratio",
            "How undecided a model is: its scores' entropy as a part of the largest possible one.",
            ("model",),
            buckets=_TENTHS,
        )
        self._references = gauge(
            "polymodal_label_reference_ratio",
            "Each label's share of the labels that the model was trained on.",
            ("model", "label"),
        )
        self._restarts = counter("polymodal_worker_restarts", "Workers that had died and were started again.")
        self._busy = counter("polymodal_worker_busy_seconds", "Seconds that workers have computed.")
        self._bundles = Info("polymodal_bundle", "The served models.", ("model",), registry=registry)
        self._build = Info("polymodal_build", "What serves them.", registry=registry)
        self._requests: defaultdict[str, int] = defaultdict(int)
        self._known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        # Looked up for every request: a label's child is found by a dictionary rather than under a lock.
        self._duration = cache(self._durations.labels)
        self._request_size = cache(self._request_bytes.labels)
        self._response_size = cache(self._response_bytes.labels)
        self._stage = cache(self._stages.labels)
        self._items = cache(self._batch_items.labels)
        self._predicted_s = cache(self._batch_predicted.labels)
        self._took_s = cache(self._batch_durations.labels)
        self._said = cache(self._predictions.labels)
        self._score = cache(self._scores.labels)
        self._entropy = cache(self._entropies.labels)
        registry.register(_LostLines())

    # --- requests ---

    def begun(self, method: str) -> None:
        """A request is being served."""
        if method not in self._requests:
            self._active.labels(method).set_function(lambda: self._requests[method])
        self._requests[method] += 1

    def request(
        self, method: str, route: str, status: int, error: str, seconds: float, received: int, sent: int
    ) -> None:
        """It was answered, with a problem of this code or without any."""
        self._requests[method] -= 1
        self._duration(method, route, str(status), error).observe(seconds)
        self._request_size(method, route).observe(received)
        self._response_size(method, route).observe(sent)

    def refusal(self, reason: str) -> None:
        """One example got no answer."""
        self._refusals.labels(reason).inc()

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

    # --- classifications ---

    def stage(self, model: str, name: str, seconds: float) -> None:
        """One stage of one classification."""
        self._stage(model, name).observe(seconds)

    def batch(self, model: str, report: BatchReport[Item]) -> None:
        """One batch was computed, or failed."""
        self._busy.inc(report.compute_s)
        if report.error is None:
            self._items(model).observe(len(report.items))
            self._predicted_s(model).observe(report.predicted_s)
            self._took_s(model).observe(report.compute_s)

    def cached(self, modality: str, *, hit: bool) -> None:
        """An embedding was looked for among those that are kept."""
        self._cached.labels(modality, "hit" if hit else "miss").inc()

    def predicted(self, description: Description, prediction: Prediction) -> None:
        """A model has said something."""
        model, scores = description.name, prediction.scores
        modalities, labels = self._words(description)
        # A worker opens strangers' files: what it says must not make series without end.
        used = "+".join(sorted(prediction.used & modalities))
        if not scores:
            self._said(model, _NOTHING_SAID, used).inc()
            return
        best = max(scores, key=scores.__getitem__)
        said = {best} if prediction.selected is None else prediction.selected
        for label in said & labels or (_NOTHING_SAID,):
            self._said(model, label, used).inc()
        self._score(model).observe(scores[best])
        self._entropy(model).observe(entropy_ratio(prediction))

    def _words(self, description: Description) -> tuple[frozenset[str], frozenset[str]]:
        """A model's modalities and labels."""
        if (known := self._known.get(description.name)) is None:
            modalities = frozenset(each.name for each in description.inputs)
            known = self._known[description.name] = modalities, frozenset(description.labels)
        return known

    # --- the service ---

    def watch(self, service: Service) -> None:
        """Read its state whenever the metrics are scraped."""
        self.registry.register(_State(service))

    def restarted(self) -> None:
        """A worker that had died is started again."""
        self._restarts.inc()

    def bundle(self, description: Description) -> None:
        """A model is served."""
        self._bundles.labels(description.name).info({"digest": description.digest, "runtime": description.runtime})
        for label, ratio in reference_ratios(description).items():
            self._references.labels(description.name, label).set(ratio)

    def build(self, version: str, revision: str) -> None:
        """What this is, as far as it knows."""
        told = {"version": version, "python": platform.python_version(), "revision": revision}
        self._build.info({name: value for name, value in told.items() if value})


class _LostLines(Collector):
    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the log itself counts."""
        yield CounterMetricFamily("polymodal_log_lines_lost", "Log lines that could not be written.", output.lost)


class _State(Collector):
    """What is not counted, but looked up."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._workers_s = 0.0

    def collect(self) -> Iterator[Metric]:
        """The service, its queue and its workers, and what they take of the machine."""
        service, gauge = self._service, GaugeMetricFamily
        yield gauge("polymodal_ready", "1 while /readyz says so.", service.ready)
        yield gauge("polymodal_requests_inside", "Requests admitted and not yet answered.", service.inside)
        yield gauge("polymodal_queue_length", "Examples whose turn has not come.", service.waiting)
        wait_s = service.predicted_wait_s
        yield gauge("polymodal_queue_predicted_wait_seconds", "Until a request that comes now would be begun.", wait_s)
        kept = service.cached_bytes
        yield gauge("polymodal_embedding_cache_bytes", "Memory of the embeddings that are kept.", kept)
        yield gauge("polymodal_workers", "Workers that are alive.", service.workers)
        yield gauge("polymodal_workers_wanted", "Workers as set.", service.workers_wanted)
        yield self._processor_seconds()
        yield self._resident_bytes()
        if (throttled_s := throttled_seconds()) is not None:
            about = "Seconds that the container was kept from running by its limit of cores."
            yield CounterMetricFamily("polymodal_processor_throttled_seconds", about, throttled_s)

    def _processor_seconds(self) -> CounterMetricFamily:
        family = CounterMetricFamily("polymodal_processor_seconds", "Seconds of cores used.", labels=("process",))
        family.add_metric(("server",), processor_seconds_here())
        if pids := self._service.worker_pids:
            # Who dies while this is read may be left out for once, and a counter that falls is taken for one that begins anew.
            self._workers_s = max(self._workers_s, processor_seconds_of(pids))
            family.add_metric(("workers",), self._workers_s)
        return family

    def _resident_bytes(self) -> GaugeMetricFamily:
        about = "Memory in use; what workers share is counted for each."
        family = GaugeMetricFamily("polymodal_resident_memory_bytes", about, labels=("process",))
        family.add_metric(("server",), resident_bytes((os.getpid(),)))
        if pids := self._service.worker_pids:
            family.add_metric(("workers",), resident_bytes(pids))
        return family


def entropy_ratio(prediction: Prediction) -> float:
    """From 0, decided, to 1: of one label the entropy of all scores ÷ log of their number; of several labels the mean of what each
    one's score leaves open."""
    scores = prediction.scores.values()
    if prediction.selected is not None:
        return sum(_entropy((score, 1 - score)) for score in scores) / (len(scores) * math.log(2))
    return _entropy(scores) / math.log(len(scores)) if len(scores) > 1 else 0.0


def _entropy(scores: Iterable[float]) -> float:
    return -sum(score * math.log(score) for score in scores if score > 0.0)


def reference_ratios(description: Description) -> dict[str, float]:
    """Each label's share in the training data, of all labels that its rows have; empty when the report doesn't tell."""
    counts: object = description.report
    for key in ("data", "split", "labels", "train"):
        counts = counts.get(key) if isinstance(counts, Mapping) else None
    if not isinstance(counts, Mapping):
        return {}
    found = {label: counts.get(label, 0) for label in description.labels}
    if not all(isinstance(count, int) and count >= 0 for count in found.values()) or not (total := sum(found.values())):
        return {}
    return {label: count / total for label, count in found.items()}
