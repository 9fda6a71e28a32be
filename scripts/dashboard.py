"""Write deploy/grafana/dashboards/polymodal.json from the tables of panels below.

    python scripts/dashboard.py

Change the dashboard here and not in its JSON, which is mostly about how lines are drawn; a test compares the two.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "polymodal.json"
SCHEMA: Final = 39
"""Schema of Grafana 11.0, which later versions migrate when they load it."""
RUNBOOKS: Final = "http://127.0.0.1:9090/user/alerts.md"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24
"""Width of Grafana's grid."""

Json = dict[str, Any]
Queries = dict[str, str]
"""PromQL by legend."""

# --- PromQL ---

JOB: Final = 'job=~"$job"'
ALL: Final = f'{JOB}, instance=~"$instance"'
MODEL: Final = f'{ALL}, model=~"$model"'
JOB_MODEL: Final = f'{JOB}, model=~"$model"'
CLASSIFY: Final = f'{ALL}, http_route=~"/v1/classify(/batch)?"'
SINGLE: Final = f'{ALL}, http_route="/v1/classify"'
COUNTED: Final = 'http_response_status_code=~"2..|429|5..", error_type!="rate_limited"'
"""Responses that count for the objectives: the same as in deploy/prometheus/rules/objectives.yml."""
FAILED: Final = 'http_response_status_code=~"429|5..", error_type!="rate_limited"'
CLIENT_ERRORS: Final = 'http_response_status_code=~"4..", error_type!~"overloaded|client_gone"'
FAILURES: Final = 0.005
THRESHOLD_S: Final = 0.25
"""Limits of the objectives, where colours change; from the same file."""
OBJECTIVES: Final = ("availability", "latency")
FIRING: Final = 'ALERTS{alertname=~"Polymodal.+", alertstate="firing"}'
REQUESTS: Final = "http_server_request_duration_seconds"
STAGES: Final = "polymodal_stage_duration_seconds"
WORKERS: Final = f'{ALL}, process="workers"'
HITS: Final = f'{ALL}, result="hit"'
LOOKUPS: Final = "polymodal_embedding_cache_requests_total"
OURS: Final = {"clients": "read|write", "queue": "queue", "model": "decode|encode_.+|fuse"}
"""Stages by the row of the dashboard that they belong to."""


def rate(metric: str, labels: str = ALL) -> str:
    """Return a counter's increase per second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(metric: str, labels: str = ALL, by: str = "") -> str:
    """Return the sum of several counters' rates."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels)})"


def quantile(share: float, metric: str, labels: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({share}, {total(f'{metric}_bucket', labels, f'le, {by}' if by else 'le')})"


def quantiles(shares: Sequence[float], metric: str, labels: str, legend: str = "") -> Queries:
    """Return quantiles of a histogram, with p50 … as legends."""
    return {f"{legend}p{share * 100:.0f}": quantile(share, metric, labels) for share in shares}


def mean(metric: str, labels: str, by: str = "") -> str:
    """Return the mean of a histogram."""
    return f"{total(f'{metric}_sum', labels, by)} / {total(f'{metric}_count', labels, by)}"


def or_zero(query: str, label: str = "", value: str = "none") -> str:
    """Return 0 for a counter that has no series yet, with this value of the label that distinguishes series."""
    zero = f'label_replace(vector(0), "{label}", "{value}", "", "")' if label else "vector(0)"
    return f"{query} or on () {zero}"


def by(label: str, metric: str, labels: str = ALL) -> Queries:
    """Return the rates of a counter, a line for each value of the label."""
    return {f"{{{{{label}}}}}": or_zero(total(metric, labels, label), label)}


BUSY: Final = f"{rate('polymodal_worker_busy_seconds_total')} / clamp_min(polymodal_workers{{{ALL}}}, 1)"
"""Share of the time in which workers compute."""
WORKER_CORES: Final = (
    f"{total('polymodal_processor_seconds_total', WORKERS)}"
    f" / ({total('polymodal_worker_busy_seconds_total')} > 0.05) or on () vector(1)"
)
FAILED_SHARE: Final = or_zero(
    f"({or_zero(total(f'{REQUESTS}_count', f'{CLASSIFY}, {FAILED}'))})"
    f" / ({total(f'{REQUESTS}_count', f'{CLASSIFY}, {COUNTED}')} > 0)"
)
CLIENT_ERROR_SHARE: Final = or_zero(
    f"{total(f'{REQUESTS}_count', f'{CLASSIFY}, {CLIENT_ERRORS}', 'error_type')}"
    f" / on () group_left () ({total(f'{REQUESTS}_count', CLASSIFY)} > 0)",
    "error_type",
)
HIT_SHARE: Final = or_zero(f"{total(LOOKUPS, HITS, 'modality')} / ({total(LOOKUPS, by='modality')} > 0)", "modality")
LABEL_SHARE: Final = or_zero(
    f"{total('polymodal_predictions_total', MODEL, 'label')}"
    f" / on () group_left () ({total('polymodal_predictions_total', MODEL)} > 0)",
    "label",
)
BATCH_RATIO: Final = (
    f"{total('polymodal_batch_duration_seconds_sum', MODEL, 'model')}"
    f" / {total('polymodal_batch_predicted_seconds_sum', MODEL, 'model')}"
)


def burn(window: str, objective: str, by: str = "") -> str:
    """Return the largest burn rate of an objective over a window."""
    return f'max{by}(job:polymodal_burn:{window}{{{JOB}, objective="{objective}"}})'


# --- kinds of panels ---


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard, as Grafana's data model has it."""

    kind: str
    title: str
    description: str
    queries: Sequence[tuple[str, str]] = ()
    """Legend and PromQL."""
    unit: str = "short"
    size: tuple[int, int] = (8, 7)
    steps: Mapping[str, float | None] = field(default_factory=lambda: {"green": None})
    """Colours by the value where they begin."""
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    alerts: Sequence[str] = ()
    """Names of the alerts whose runbooks are linked, without their prefix Polymodal."""

    def model(self) -> Json:
        """Return Grafana's JSON, without id and position."""
        steps = [{"color": color, "value": value} for color, value in self.steps.items()]
        thresholds = {"mode": "absolute", "steps": steps}
        defaults = {"unit": self.unit, "thresholds": thresholds, **self.defaults, "custom": self.custom}
        model: Json = {"type": self.kind, "title": self.title, "description": self.description, "options": self.options}
        if self.queries:
            model |= {
                "datasource": SOURCE,
                "targets": [self._target(chr(ord("A") + at), *query) for at, query in enumerate(self.queries)],
                "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            }
        if self.transformations:
            model["transformations"] = list(self.transformations)
        names = [f"Polymodal{alert}" for alert in self.alerts]
        links = [
            {"title": f"Runbook: {name}", "url": f"${{runbooks}}#{name.lower()}", "targetBlank": True} for name in names
        ]
        return {**model, "links": links} if links else model

    def _target(self, letter: str, legend: str, expr: str) -> Json:
        instant = self.kind in {"table", "bargauge"}  # the value at the end of the shown time only
        return {
            "refId": letter,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend or "__auto",
            "format": self.kind if self.kind in {"table", "heatmap"} else "time_series",
            "instant": instant,
            "range": not instant,
        }


REDUCED: Final = {"values": False, "calcs": ["lastNotNull"], "fields": ""}


def lines(title: str, description: str, queries: Queries, unit: str = "short", **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Return a panel of lines over time, `stacked` or not; `steps` are drawn as lines too."""
    stacked, wide = how.pop("stacked", False), how.pop("wide", False)
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if how.get("steps") else "off"},
        **how.pop("custom", {}),
    }
    legend = {"displayMode": "table", "placement": "right" if wide else "bottom", "showLegend": True}
    options = {"legend": {**legend, "calcs": ["lastNotNull", "max"]}, "tooltip": {"mode": "multi", "sort": "desc"}}
    defaults = {"min": 0, "color": {"mode": "palette-classic"}, **how.pop("defaults", {})}
    targets = list(queries.items())
    return Panel(
        "timeseries", title, description, targets, unit, custom=custom, options=options, defaults=defaults, **how
    )


def number(title: str, description: str, queries: Queries, unit: str = "short", **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Return a panel of current values, coloured by `steps`."""
    options = {
        "reduceOptions": REDUCED,
        "colorMode": "background" if how.get("steps") else "value",
        "graphMode": "area" if len(queries) == 1 else "none",
        "textMode": "auto" if len(queries) == 1 else "value_and_name",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    defaults = {"color": {"mode": "thresholds"}, **how.pop("defaults", {})}
    how = {"size": (3, 5), **how}
    return Panel("stat", title, description, list(queries.items()), unit, options=options, defaults=defaults, **how)


def table(title: str, description: str, *queries: str, columns: Mapping[str, str], **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Return a panel of rows; `columns` maps labels and values to headings, in this order."""
    order = {name: place for place, name in enumerate(columns)}
    organize = {"indexByName": order, "renameByName": dict(columns), "excludeByName": {}}
    return Panel(
        "table",
        title,
        description,
        [("", query) for query in queries],
        options={"showHeader": True, "cellHeight": "sm"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
            {"id": "organize", "options": organize},
        ],
        **how,
    )


SHARE: Final = {"min": 0, "max": 1}
GAUGE: Final = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
GAUGE_PROPERTIES: Final = [
    {"id": name, "value": value} for name, value in {"custom.cellOptions": GAUGE, "max": 1, "min": 0}.items()
]
HEATMAP: Final = {
    "calculate": False,
    "cellGap": 1,
    "color": {
        "mode": "scheme",
        "scheme": "Oranges",
        "steps": 64,
        "exponent": 0.5,
        "fill": "dark-orange",
        "reverse": False,
    },
    "exemplars": {"color": "rgba(255,0,255,0.7)"},
    "filterValues": {"le": 1e-9},
    "legend": {"show": True},
    "rowsFrame": {"layout": "auto"},
    "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
    "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
}
BARS: Final = {
    "displayMode": "basic",
    "orientation": "horizontal",
    "valueMode": "color",
    "showUnfilled": True,
    "sizing": "auto",
    "minVizHeight": 16,
    "minVizWidth": 8,
    "maxVizHeight": 300,
    "namePlacement": "auto",
    "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
    "reduceOptions": REDUCED,
}

# --- panels ---

ONE_MINUTE: Final = """\
**Where is the cause?** Read the row below, then the row that it points to.

| red or large here | go to |
|---|---|
| ready, alerts | **machine** |
| refused for what clients sent; time of *clients* | **clients** |
| utilisation over 85 %, time of *queue* | **queue** |
| time of *model*, failed without a full queue | **model** |

The [runbooks](${runbooks}) have the remedies."""

# fmt: off
GLANCE: Final = (
    Panel("text", "In one minute", "How to read this dashboard.",
          options={"mode": "markdown", "content": ONE_MINUTE}, size=(6, 9)),
    number("Ready", "Instances whose /readyz returns 200, and all instances that Prometheus scrapes.",
           {"ready": f"sum(polymodal_ready{{{ALL}}}) or vector(0)", "known": f"count(up{{{ALL}}}) or vector(0)"},
           steps={"red": None, "green": 1}, alerts=("NotServing", "InstanceNotReady")),
    number("Alerts firing", "Number of firing alerts of deploy/prometheus/rules/alerts.yml, of every severity.",
           {"firing": f"count({FIRING}) or vector(0)"}, steps={"green": None, "red": 1}),
    number("Classifications", "Requests to /v1/classify and /v1/classify/batch, with any response.",
           {"per second": or_zero(total(f"{REQUESTS}_count", CLASSIFY))}, "reqps"),
    number("Failed", "Share of the classifications with 5xx or refused as overloaded. Errors of clients are not counted.",
           {"failed": FAILED_SHARE}, "percentunit", steps={"green": None, "orange": FAILURES, "red": 14.4 * FAILURES},
           alerts=("AvailabilityBurnsFast", "AvailabilityBurnsSlowly")),
    number("Latency", "Latency of successful single classifications, from the request's first byte to the response's last byte.",
           quantiles((0.5, 0.95, 0.99), REQUESTS, f'{SINGLE}, http_response_status_code=~"2.."'), "s",
           steps={"green": None, "orange": THRESHOLD_S, "red": 4 * THRESHOLD_S},
           alerts=("LatencyBurnsFast", "LatencyBurnsSlowly")),
    number("Utilisation", "Share of the time in which the workers of the busiest instance compute.",
           {"busiest": f"max({BUSY})"}, "percentunit", steps={"green": None, "orange": 0.7, "red": 0.85}, alerts=("Saturated",)),
    Panel("bargauge", "Where the time goes",
          "Seconds per second that classifications spend on clients (read, write), in the queue, and in the model (decode, encode,"
          " fuse).",
          [(row, or_zero(total(f"{STAGES}_sum", f'{ALL}, stage=~"{stages}"'))) for row, stages in OURS.items()],
          "s", (6, 4), options=BARS, defaults={"min": 0, "color": {"mode": "palette-classic-by-name"}}),
    *(number(f"Burn of {objective}",
             "Failures as a multiple of what the objective allows, over 1 and 6 hours. Above 14.4 and 6 an alert pages.",
             {window.replace("h", " h"): or_zero(burn(window, objective)) for window in ("1h", "6h")}, "none",
             steps={"green": None, "orange": 1, "red": 6}, size=(3, 4), defaults={"decimals": 1},
             alerts=(f"{objective.title()}BurnsFast",))
      for objective in OBJECTIVES),
    number("Allowance left",
           "Share of the failures allowed in 30 days that is left, as far back as Prometheus has data. Below 0: missed.",
           {objective: f"1 - ({or_zero(burn('30d', objective))})" for objective in OBJECTIVES}, "percentunit",
           steps={"red": None, "orange": 0, "green": 0.25}, size=(6, 4)),
    table("Firing now", "Firing alerts, each with the row of this dashboard to look at.",
          f'sum by (severity, area, alertname, instance) ({FIRING}) or on () label_replace(vector(0), "alertname", "none", "", "")',
          columns={"severity": "severity", "area": "look at", "alertname": "alert", "instance": "instance"}, size=(12, 6)),
    lines("Burn", "Failures as a multiple of what the objectives allow. An alert pages when both windows are above a line.",
          {f"{objective} over {window}": or_zero(burn(window, objective, " by (objective) "), "objective", objective)
           for window in ("5m", "1h") for objective in OBJECTIVES},
          "none", steps={"green": None, "orange": 6, "red": 14.4}, size=(12, 6), wide=True),
)
CLIENTS: Final = (
    lines("Requests by status", "Requests to all routes. 499: the client closed the connection before its response.",
          by("http_response_status_code", f"{REQUESTS}_count"), "reqps", stacked=True),
    lines("Requests by route", "Route templates. Paths that match no route are “unmatched”.",
          by("http_route", f"{REQUESTS}_count"), "reqps", stacked=True),
    lines("Refused for what clients sent",
          "Share of the classifications with 4xx, by the problem's code. The line is the alert's threshold.",
          {"{{error_type}}": CLIENT_ERROR_SHARE}, "percentunit", stacked=True, steps={"green": None, "orange": 0.3},
          alerts=("ClientsRefused",)),
    lines("Time that clients take",
          "95th percentile of the time to read a request and to write its response: slow uplinks and slow readers.",
          {f"{stage}, p95": quantile(0.95, STAGES, f'{ALL}, stage="{stage}"') for stage in ("read", "write")}, "s"),
    lines("Sizes of bodies", "Bytes of the bodies of classifications and of their responses.",
          {legend: query for side in ("request", "response") for legend, query in
           quantiles((0.5, 0.99), f"http_server_{side}_body_size_bytes", CLASSIFY, f"{side}, ").items()}, "bytes"),
    lines("Connections and requests under way",
          "Open connections, requests in progress, and the requests that were admitted to the queue.",
          {"connections": f"sum(polymodal_connections{{{ALL}}})", "requests": f"sum(http_server_active_requests{{{ALL}}})",
           "admitted": f"sum(polymodal_requests_inside{{{ALL}}})"}),
    lines("Bytes in flight",
          "Bytes of the bodies of admitted requests. At POLYMODAL_MAX_INFLIGHT_BYTES the next request is refused as “overloaded”.",
          {"the busiest instance": f"max(polymodal_inflight_bytes{{{ALL}}})"}, "bytes"),
    lines("Connections closed by a limit",
          "By reason. “evicted” and “too_many_connections”: no connection was free for new clients.",
          by("reason", "polymodal_connections_closed_total"), "cps", alerts=("ConnectionsRunOut",)),
    lines("Inputs", "Predictions by the modalities of their example.",
          by("modalities", "polymodal_predictions_total", MODEL), "ops", stacked=True),
    lines("Embeddings found in the cache",
          "Share of the images and texts whose embeddings were in the cache; 0 if POLYMODAL_EMBEDDING_CACHE_BYTES is 0.",
          {"{{modality}}": HIT_SHARE}, "percentunit", defaults=SHARE),
)
QUEUE: Final = (
    lines("Waiting",
          "Predicted: waiting time of a request that arrives now. Measured: waiting time of the requests that were started."
          " The line is the threshold of the latency objective.",
          {"predicted, worst instance": f"max(polymodal_queue_predicted_wait_seconds{{{ALL}}})",
           **quantiles((0.5, 0.95), STAGES, f'{ALL}, stage="queue"', "measured, ")},
          "s", steps={"green": None, "red": THRESHOLD_S}, alerts=("QueueTooLong",)),
    lines("Examples waiting", "Length of the queue. At POLYMODAL_QUEUE_LIMIT more examples are refused immediately.",
          {"{{instance}}": f"polymodal_queue_length{{{ALL}}}"}),
    lines("Utilisation",
          "Share of the time in which the workers of an instance compute, now and over 5 minutes; the alert uses the latter.",
          {"{{instance}}": BUSY, "{{instance}}, 5 min": f"instance:polymodal_utilisation:rate5m{{{ALL}}}"},
          "percentunit", steps={"green": None, "red": 0.85}, defaults=SHARE, alerts=("Saturated",)),
    lines("Examples without an answer",
          "Rejected and failed examples by the problem's code, including those in batch requests."
          " “overloaded” and “deadline_exceeded” come from the queue.",
          by("reason", "polymodal_refusals_total"), "ops", stacked=True, alerts=("InternalErrors",)),
    lines("Examples computed together", "Mean size of a batch. It grows with the queue.",
          {"{{model}}": mean("polymodal_batch_items", MODEL, "model")}),
    lines("Examples computed", "Examples per second, by model.",
          by("model", "polymodal_batch_items_sum", MODEL), "ops", stacked=True),
)
MODELS: Final = (
    lines("Time of a stage", "95th percentile of each stage.",
          {"{{stage}}, p95": quantile(0.95, STAGES, f'{MODEL}, stage=~"{OURS["model"]}"', "stage")}, "s"),
    lines("Mean time of an example", "Mean time of each stage, stacked.",
          {"{{stage}}": mean(STAGES, ALL, "stage")}, "s", stacked=True),
    Panel("heatmap", "Latency of classifications", "Distribution of the latency of single classifications.",
          [("{{le}}", f"sum by (le) (increase({REQUESTS}_bucket{{{SINGLE}}}[$__rate_interval]))")],
          options=HEATMAP, custom={"hideFrom": {"legend": False, "tooltip": False, "viz": False}}),
    lines("Batches: measured ÷ predicted", "The queue relies on the prediction. Above the line the prediction is wrong.",
          {"{{model}}": BATCH_RATIO}, "none", steps={"green": None, "orange": 2}, alerts=("ForecastOff",)),
    lines("Labels", "Share of each label in the predictions.",
          {"{{label}}": LABEL_SHARE}, "percentunit", stacked=True, defaults=SHARE),
    table("Labels of a day, and of the training data",
          "Shares of the labels in the last day's predictions, and in the training data if the bundle's report has them.",
          *(or_zero(f"max by (model, label) (job_model_label:polymodal_label_share:{window}{{{JOB_MODEL}}})", "label")
            for window in ("1d", "reference")),
          columns={"model": "model", "label": "label", "Value #A": "last day", "Value #B": "training"}, unit="percentunit",
          overrides=[{"matcher": {"id": "byName", "options": column}, "properties": GAUGE_PROPERTIES}
                     for column in ("last day", "training")]),
    lines("Drift",
          "Distance: share of the last day's predictions that would have to change to match the label shares of the training data."
          " Entropy: 1 is a guess among all labels; over 6 hours, and over the week before them.",
          {"{{model}}, distance of labels": or_zero(f"job_model:polymodal_label_distance:1d{{{JOB_MODEL}}}", "model"),
           **{f"{{{{model}}}}, entropy over {window}": or_zero(f"job_model:polymodal_entropy:mean{window}{{{JOB_MODEL}}}", "model")
              for window in ("6h", "7d")}},
          "percentunit", steps={"green": None, "orange": 0.25}, defaults=SHARE, alerts=("LabelsDrift", "ModelUnsure")),
    lines("Confidence", "Score of the best label, and entropy of all scores (0: certain, 1: a guess).",
          {**quantiles((0.1, 0.5), "polymodal_prediction_score", MODEL, "score, "),
           "entropy, mean": mean("polymodal_prediction_entropy_ratio", MODEL)}, "percentunit", defaults=SHARE),
    table("Models", "A row for each version that is served. An instance that serves another version adds a row.",
          f"count by (model, digest, runtime) (polymodal_bundle_info{{{MODEL}}})",
          columns={"model": "model", "digest": "digest", "runtime": "runtime", "Value": "instances"}, alerts=("ModelsDiffer",)),
)
MACHINE: Final = (
    lines("Workers", "Running workers, and the configured number.",
          {"{{instance}} alive": f"polymodal_workers{{{ALL}}}", "{{instance}} wanted": f"polymodal_workers_wanted{{{ALL}}}"},
          custom={"lineInterpolation": "stepAfter"}, alerts=("WorkersMissing",)),
    lines("Workers started again", "Workers that were replaced because they died or stopped responding.",
          {"{{instance}}": f"increase(polymodal_worker_restarts_total{{{ALL}}}[$__rate_interval])"},
          custom={"drawStyle": "bars", "fillOpacity": 60}, alerts=("WorkerRestarted", "WorkersCrashLoop")),
    lines("Scrapes",
          "1 while an instance can be scraped, and the duration of a scrape, which grows when the server process is overloaded.",
          {"{{instance}} up": f"up{{{ALL}}}", "{{instance}} seconds": f"scrape_duration_seconds{{{ALL}}}"},
          alerts=("InstanceDown",)),
    lines("Processor", "Cores used by the server process and by its workers.",
          {"{{process}}": total("polymodal_processor_seconds_total", by="process")}, "none", stacked=True),
    lines("Cores that a busy worker gets",
          "About the number of its threads on a dedicated machine. Much less means that other processes use the cores. 1 also while"
          " workers are almost idle.",
          {"cores": WORKER_CORES}, "none"),
    lines("Processor time withheld", "Seconds per second in which the container's limit stopped threads; 0 also without a cgroup.",
          {"{{instance}}": or_zero(total("polymodal_processor_throttled_seconds_total", by="instance"), "instance")},
          "s", steps={"green": None, "orange": 0.1}, alerts=("ProcessorThrottled",)),
    lines("Memory", "Resident memory of the server process and of all its workers, and the size of the embedding cache.",
          {"{{process}}": f"sum by (process) (polymodal_resident_memory_bytes{{{ALL}}})",
           "of it embeddings": f"sum(polymodal_embedding_cache_bytes{{{ALL}}})"}, "bytes"),
    lines("Silent failures", "Lost log lines and failed requests to Redis, per second; 1 while the file of API keys can't be read,"
          " and while an index belongs to another version of the model.",
          {"log lines lost": total("polymodal_log_lines_lost_total"),
           "Redis failures": total("polymodal_rate_limit_storage_failures_total"),
           "API keys stale": f"max(polymodal_api_keys_stale{{{ALL}}})",
           "{{index}} unusable": f"1 - min by (index) (polymodal_index_usable{{{ALL}}})"},
          "none", alerts=("LogLinesLost", "ApiKeysStale", "IndexUnusable", "RateLimitStorageFails")),
    lines("Items of search indexes", "Items of each index, as it was read at the start.",
          {"{{index}}": f"max by (index) (polymodal_index_items{{{ALL}}})"}, "none"),
    table("Versions", "Versions of the service and of Python, by instance.", f"polymodal_build_info{{{ALL}}}",
          columns={"instance": "instance", "version": "version", "python": "python"}),
)
# fmt: on
ROWS: Final = {
    "At a glance": GLANCE,
    "Clients: do they send more, or something else?": CLIENTS,
    "Queue: do requests arrive faster than the workers compute?": QUEUE,
    "Model: is it slower, or are its predictions different?": MODELS,
    "Machine: do all workers run, with enough resources?": MACHINE,
}

# --- the dashboard ---


def placed() -> Iterator[Json]:
    """Yield all panels with id and position: from left to right, each row of the dashboard under its title."""
    y = count = 0
    for title, panels in ROWS.items():
        count += 1
        position = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": count, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": position}
        heights = [y + 1] * COLUMNS
        for panel in panels:
            count += 1
            width, height = panel.size
            # The highest position where a panel of this width fits, and of these the leftmost.
            top, x = min((max(heights[x : x + width]), x) for x in range(COLUMNS - width + 1))
            heights[x : x + width] = [top + height] * width
            yield {"id": count, **panel.model(), "gridPos": {"x": x, "y": top, "w": width, "h": height}}
        y = max(heights)


def variable(name: str, label: str, query: str, description: str, all_value: str | None = ".*") -> Json:
    """Return a variable with a label's values; `all_value` is the pattern for All, None for the list of all values."""
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": f"Variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **({} if all_value is None else {"allValue": all_value}),
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard() -> Json:
    """Return the dashboard's JSON."""
    source: Json = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    source |= {"current": {}, "refresh": 1, "regex": "", "options": [], "multi": False, "includeAll": False}
    source |= {"hide": 0, "skipUrlSync": False}
    runbooks = {"name": "runbooks", "label": "Runbooks", "type": "constant", "query": RUNBOOKS, "hide": 2}
    link: Json = {
        "title": "Runbooks",
        "type": "link",
        "url": "${runbooks}",
        "icon": "doc",
        "tooltip": "Remedies by alert",
    }
    link |= {"tags": [], "asDropdown": False, "includeVars": False, "keepTime": False, "targetBlank": True}
    restarts = {
        "name": "Workers started again",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": f"increase(polymodal_worker_restarts_total{{{ALL}}}[1m]) > 0",
        "titleFormat": "Worker started again",
        "textFormat": "{{instance}}",
        "step": "60s",
    }
    variables = [
        source,
        variable("job", "Job", "label_values(polymodal_ready, job)", "Scrape job.", all_value=None),
        variable("instance", "Instance", f"label_values(polymodal_ready{{{JOB}}}, instance)", "One process."),
        variable("model", "Model", f"label_values(polymodal_bundle_info{{{ALL}}}, model)", "Served bundle."),
        runbooks,
    ]
    return {
        "uid": "polymodal",
        "title": "Polymodal",
        "description": "Is it the clients, the queue, the model or the machine? Made by scripts/dashboard.py.",
        "tags": ["polymodal"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "weekStart": "",
        "links": [link],
        "annotations": {"list": [restarts]},
        "templating": {"list": variables},
        "panels": list(placed()),
    }


def text() -> str:
    """Return the text of the file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(text(), encoding="utf-8")
