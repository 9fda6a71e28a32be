"""Write deploy/grafana/dashboards/polymodal.json: what the panels ask, in the order in which an operator asks.

    python scripts/dashboard.py

Change the dashboard here, not in its JSON, of which most says only how lines are drawn; a test holds that the two agree.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

OUT: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "polymodal.json"
SCHEMA: Final = 39
"""Of Grafana 11.0; later ones migrate it when they load it."""
RUNBOOKS: Final = "http://127.0.0.1:9090/user/alerts.md"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24

# --- what is asked ---

ALL: Final = 'job=~"$job", instance=~"$instance"'
MODEL: Final = f'{ALL}, model=~"$model"'
JOB: Final = 'job=~"$job"'
CLASSIFY: Final = f'{ALL}, http_route=~"/v1/classify(/batch)?"'
COUNTED: Final = 'http_response_status_code=~"2..|429|5..", error_type!="rate_limited"'
"""What counts for the objectives: the same as in deploy/prometheus/rules/objectives.yml."""
FAILED: Final = 'http_response_status_code=~"429|5..", error_type!="rate_limited"'
HIT: Final = '"hit"'
WORKERS: Final = '"workers"'
CLIENTS_FAULT: Final = 'http_response_status_code=~"4..", error_type!~"overloaded|client_gone"'
FAILURES: Final = 0.005
THRESHOLD_S: Final = 0.25
"""Where colours change: what the objectives allow, as in the same file."""
REQUESTS: Final = "http_server_request_duration_seconds"
STAGES: Final = "polymodal_stage_duration_seconds"
OURS: Final = {"clients": "read|write", "queue": "queue", "model": "decode|encode_.+|fuse"}
"""Whose time each stage is."""


def rate(metric: str, labels: str = ALL) -> str:
    """How much a counter grows in a second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(metric: str, labels: str = ALL, by: str = "") -> str:
    """The rates of several counters together."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels)})"


def quantile(share: float, metric: str, labels: str, by: str = "") -> str:
    """Of a histogram."""
    return f"histogram_quantile({share}, {total(f'{metric}_bucket', labels, f'le, {by}' if by else 'le')})"


def mean(metric: str, labels: str, by: str = "") -> str:
    """Of a histogram."""
    return f"{total(f'{metric}_sum', labels, by)} / {total(f'{metric}_count', labels, by)}"


def or_zero(query: str, label: str = "", value: str = "none") -> str:
    """What has never happened has no series: then it is 0, under this value of the label that tells the series apart."""
    nothing = f'label_replace(vector(0), "{label}", "{value}", "", "")' if label else "vector(0)"
    return f"{query} or on () {nothing}"


BUSY: Final = f"{rate('polymodal_worker_busy_seconds_total')} / clamp_min(polymodal_workers{{{ALL}}}, 1)"
"""Share of the time in which workers compute."""

# --- how it is drawn ---


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus."""

    expr: str
    legend: str = ""
    now: bool = False
    """Its value at the end of the shown time, rather than its course."""
    shape: str = "time_series"

    def target(self, letter: str) -> dict[str, Any]:
        """As Grafana writes it."""
        return {
            "refId": letter,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": self.shape,
            "instant": self.now,
            "range": not self.now,
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    kind: str
    title: str
    about: str
    queries: Sequence[Query] = ()
    unit: str = "short"
    width: int = 8
    height: int = 7
    steps: Sequence[tuple[str, float | None]] = (("green", None),)
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Mapping[str, Any]] = ()
    transformations: Sequence[Mapping[str, Any]] = ()
    alerts: Sequence[str] = ()
    """Those whose runbooks it links to."""

    def model(self) -> dict[str, Any]:
        """As Grafana writes it, but for its number and place."""
        thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in self.steps]}
        defaults = {"unit": self.unit, "thresholds": thresholds, **self.defaults, "custom": dict(self.custom)}
        said: dict[str, Any] = {
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "options": dict(self.options),
        }
        if self.queries:
            said |= {
                "datasource": SOURCE,
                "targets": [query.target(chr(ord("A") + number)) for number, query in enumerate(self.queries)],
                "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            }
        if self.transformations:
            said["transformations"] = list(self.transformations)
        if self.alerts:
            said["links"] = [
                {"title": f"Runbook: {name}", "url": f"${{runbooks}}#{name.lower()}", "targetBlank": True}
                for name in self.alerts
            ]
        return said


def lines(title: str, about: str, *queries: Query, unit: str = "short", **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Courses over time; `stacked` on each other, with thresholds as lines where there are any."""
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
    options = {
        "legend": {**legend, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"min": 0, "color": {"mode": "palette-classic"}, **how.pop("defaults", {})}
    return Panel("timeseries", title, about, queries, unit, custom=custom, options=options, defaults=defaults, **how)


def number(title: str, about: str, *queries: Query, unit: str = "short", **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Figures of now, coloured by thresholds, over their course."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "colorMode": "background" if len(how.get("steps", ())) > 1 else "value",
        "graphMode": "area" if len(queries) == 1 else "none",
        "textMode": "auto" if len(queries) == 1 else "value_and_name",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    defaults = {"color": {"mode": "thresholds"}, **how.pop("defaults", {})}
    return Panel("stat", title, about, queries, unit, options=options, defaults=defaults, **how)


def table(title: str, about: str, *queries: Query, keep: Mapping[str, str], **how: Any) -> Panel:  # noqa: ANN401 — passed on
    """Rows of labels and values; `keep` says which columns, in their order, and what they are called."""
    queries = tuple(Query(query.expr, query.legend, now=True, shape="table") for query in queries)
    order = {name: place for place, name in enumerate(keep)}
    columns = {"indexByName": order, "renameByName": dict(keep), "excludeByName": {}}
    only = {"id": "filterFieldsByName", "options": {"include": {"names": list(keep)}}}
    return Panel(
        "table",
        title,
        about,
        queries,
        options={"showHeader": True, "cellHeight": "sm"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        transformations=[{"id": "merge", "options": {}}, only, {"id": "organize", "options": columns}],
        **how,
    )


def named(column: str, **properties: Any) -> dict[str, Any]:  # noqa: ANN401 — Grafana's own values
    """Properties of one column or line."""
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name.replace("__", "."), "value": value} for name, value in properties.items()],
    }


SHARE: Final = {"min": 0, "max": 1}
ONE_MINUTE: Final = """\
**Whose fault is it?** Read the row below, then the one that it points to.

| red or large here | go to |
|---|---|
| ready, alerts | **machine** |
| refused for what clients sent; time of *clients* | **clients** |
| utilisation over 85 %, time of *queue* | **queue** |
| time of *model*, failed without a full queue | **model** |

[Runbooks](${runbooks}) say what to do."""


def glance() -> Iterator[Panel]:
    """What is wrong, and where to look."""
    yield Panel(
        "text",
        "In one minute",
        "How to read this dashboard.",
        options={"mode": "markdown", "content": ONE_MINUTE},
        width=6,
        height=9,
    )
    yield number(
        "Ready",
        "Instances that would answer /readyz with 200, of all that Prometheus knows.",
        Query(f"sum(polymodal_ready{{{ALL}}}) or vector(0)", "ready"),
        Query(f"count(up{{{ALL}}}) or vector(0)", "known"),
        steps=(("red", None), ("green", 1)),
        width=3,
        height=5,
        alerts=("PolymodalNotServing", "PolymodalInstanceNotReady"),
    )
    yield number(
        "Alerts firing",
        "Those of deploy/prometheus/rules/alerts.yml, of every severity.",
        Query('count(ALERTS{alertname=~"Polymodal.+", alertstate="firing"}) or vector(0)', "firing"),
        steps=(("green", None), ("red", 1)),
        width=3,
        height=5,
    )
    yield number(
        "Classifications",
        "Requests to /v1/classify and /v1/classify/batch, whatever became of them.",
        Query(or_zero(total(f"{REQUESTS}_count", CLASSIFY)), "per second"),
        unit="reqps",
        width=3,
        height=5,
    )
    yield number(
        "Failed",
        "Share of the classifications that got 5xx or were refused as overloaded; what clients did wrong is left out.",
        Query(
            or_zero(
                f"({or_zero(total(f'{REQUESTS}_count', f'{CLASSIFY}, {FAILED}'))})"
                f" / ({total(f'{REQUESTS}_count', f'{CLASSIFY}, {COUNTED}')} > 0)"
            ),
            "failed",
        ),
        unit="percentunit",
        steps=(("green", None), ("orange", FAILURES), ("red", 14.4 * FAILURES)),
        width=3,
        height=5,
        alerts=("PolymodalAvailabilityBurnsFast", "PolymodalAvailabilityBurnsSlowly"),
    )
    yield number(
        "Latency",
        "Of single classifications that were answered, from the first byte of the request to the last of the answer.",
        *(
            Query(
                quantile(share, REQUESTS, f'{ALL}, http_route="/v1/classify", http_response_status_code=~"2.."'),
                f"p{share * 100:.0f}",
            )
            for share in (0.5, 0.95, 0.99)
        ),
        unit="s",
        steps=(("green", None), ("orange", THRESHOLD_S), ("red", 4 * THRESHOLD_S)),
        width=3,
        height=5,
        alerts=("PolymodalLatencyBurnsFast", "PolymodalLatencyBurnsSlowly"),
    )
    yield number(
        "Utilisation",
        "Share of the time in which the busiest instance's workers compute.",
        Query(f"max({BUSY})", "busiest"),
        unit="percentunit",
        steps=(("green", None), ("orange", 0.7), ("red", 0.85)),
        width=3,
        height=5,
        alerts=("PolymodalSaturated",),
    )
    yield Panel(
        "bargauge",
        "Where the time goes",
        "Seconds that classifications spend in each second, by whose time it is: clients sending and taking (read, write), waiting"
        " for a worker, or decoding and computing.",
        [
            Query(or_zero(total(f"{STAGES}_sum", f'{ALL}, stage=~"{stages}"')), whose, now=True)
            for whose, stages in OURS.items()
        ],
        "s",
        width=6,
        height=4,
        options={
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
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        },
        defaults={"min": 0, "color": {"mode": "palette-classic-by-name"}},
    )
    for objective in ("availability", "latency"):
        burn = f'{{{JOB}, objective="{objective}"}}'
        yield number(
            f"Burn of {objective}",
            "How many times as much as the objective allows fails, over an hour and over six. A page comes above 14.4 and 6.",
            Query(or_zero(f"max(job:polymodal_burn:1h{burn})"), "1 h"),
            Query(or_zero(f"max(job:polymodal_burn:6h{burn})"), "6 h"),
            unit="none",
            steps=(("green", None), ("orange", 1), ("red", 6)),
            width=3,
            height=4,
            defaults={"decimals": 1},
            alerts=(f"Polymodal{objective.title()}BurnsFast",),
        )
    yield number(
        "Allowance left",
        "Of what the objectives allow to fail in 30 days, as far back as Prometheus remembers; below 0 they are broken.",
        *(
            Query(
                "1 - (" + or_zero(f'max(job:polymodal_burn:30d{{{JOB}, objective="{objective}"}})') + ")",
                objective,
            )
            for objective in ("availability", "latency")
        ),
        unit="percentunit",
        steps=(("red", None), ("orange", 0), ("green", 0.25)),
        width=6,
        height=4,
    )
    yield table(
        "Firing now",
        "Alerts, each with the row of this dashboard that it belongs to.",
        Query(
            "sum by (severity, area, alertname, instance) "
            '(ALERTS{alertname=~"Polymodal.+", alertstate="firing"})'
            ' or on () label_replace(vector(0), "alertname", "none", "", "")'
        ),
        keep={"severity": "severity", "area": "look at", "alertname": "alert", "instance": "instance"},
        width=12,
        height=6,
    )
    yield lines(
        "Burn",
        "How many times as much as the objectives allow fails. Above a line over both of its windows, somebody is woken.",
        *(
            Query(
                or_zero(
                    f'max by (objective) (job:polymodal_burn:{window}{{{JOB}, objective="{objective}"}})',
                    "objective",
                    objective,
                ),
                f"{{{{objective}}}} over {window}",
            )
            for window in ("5m", "1h")
            for objective in ("availability", "latency")
        ),
        unit="none",
        steps=(("green", None), ("orange", 6), ("red", 14.4)),
        width=12,
        height=6,
        wide=True,
    )


def clients() -> Iterator[Panel]:
    """Do they ask more, or otherwise?"""
    lookups = "polymodal_embedding_cache_requests_total"
    yield lines(
        "Requests by status",
        "Every route; 499 are clients that left before their answer.",
        Query(
            or_zero(total(f"{REQUESTS}_count", by="http_response_status_code"), "http_response_status_code"),
            "{{http_response_status_code}}",
        ),
        unit="reqps",
        stacked=True,
    )
    yield lines(
        "Requests by route",
        "Templates of routes; addresses that match none are “unmatched”.",
        Query(or_zero(total(f"{REQUESTS}_count", by="http_route"), "http_route"), "{{http_route}}"),
        unit="reqps",
        stacked=True,
    )
    yield lines(
        "Refused for what clients sent",
        "Classifications that got 4xx, by the problem's code, as a share of all. The line is where the alert begins.",
        Query(
            or_zero(
                f"{total(f'{REQUESTS}_count', f'{CLASSIFY}, {CLIENTS_FAULT}', 'error_type')}"
                f" / on () group_left () ({total(f'{REQUESTS}_count', CLASSIFY)} > 0)",
                "error_type",
            ),
            "{{error_type}}",
        ),
        unit="percentunit",
        stacked=True,
        steps=(("green", None), ("orange", 0.3)),
        alerts=("PolymodalClientsRefused",),
    )
    yield lines(
        "Time that clients take",
        "95 of 100 classifications are read, and their answers written, within this: slow uplinks and slow readers.",
        *(Query(quantile(0.95, STAGES, f'{ALL}, stage="{stage}"'), f"{stage}, p95") for stage in ("read", "write")),
        unit="s",
    )
    yield lines(
        "Sizes of bodies",
        "Bytes of classifications and of their answers.",
        *(
            Query(quantile(share, f"http_server_{side}_body_size_bytes", CLASSIFY), f"{side}, p{share * 100:.0f}")
            for side in ("request", "response")
            for share in (0.5, 0.99)
        ),
        unit="bytes",
    )
    yield lines(
        "Connections and requests under way",
        "Open connections, requests that are being served, and those of them that were admitted to the queue.",
        Query(f"sum(polymodal_connections{{{ALL}}})", "connections"),
        Query(f"sum(http_server_active_requests{{{ALL}}})", "requests"),
        Query(f"sum(polymodal_requests_inside{{{ALL}}})", "admitted"),
    )
    yield lines(
        "Bytes in flight",
        "Bytes of the bodies of admitted requests; at POLYMODAL_MAX_INFLIGHT_BYTES the next one is refused as “overloaded”.",
        Query(f"max(polymodal_inflight_bytes{{{ALL}}})", "the busiest instance"),
        unit="bytes",
    )
    yield lines(
        "Connections closed by a limit",
        "By reason; “evicted” and “too_many_connections” mean that none was left for new clients.",
        Query(or_zero(total("polymodal_connections_closed_total", by="reason"), "reason"), "{{reason}}"),
        unit="cps",
        alerts=("PolymodalConnectionsRunOut",),
    )
    yield lines(
        "Inputs",
        "What examples consist of, as answered.",
        Query(or_zero(total("polymodal_predictions_total", MODEL, "modalities"), "modalities"), "{{modalities}}"),
        unit="ops",
        stacked=True,
    )
    yield lines(
        "Embeddings found in the cache",
        "Share of the pictures and texts whose embeddings were kept; 0 where POLYMODAL_EMBEDDING_CACHE_BYTES is 0.",
        Query(
            or_zero(
                f"{total(lookups, f'{ALL}, result={HIT}', 'modality')} / ({total(lookups, by='modality')} > 0)",
                "modality",
            ),
            "{{modality}}",
        ),
        unit="percentunit",
        defaults=SHARE,
    )


def queue() -> Iterator[Panel]:
    """Is there more to do than the workers can?"""
    yield lines(
        "Waiting",
        "Predicted: what a request that comes now would wait. Measured: what those that were begun have waited."
        " The line is the latency objective's threshold.",
        Query(f"max(polymodal_queue_predicted_wait_seconds{{{ALL}}})", "predicted, worst instance"),
        *(
            Query(quantile(share, STAGES, f'{ALL}, stage="queue"'), f"measured, p{share * 100:.0f}")
            for share in (0.5, 0.95)
        ),
        unit="s",
        steps=(("green", None), ("red", THRESHOLD_S)),
        alerts=("PolymodalQueueTooLong",),
    )
    yield lines(
        "Examples waiting",
        "Whose turn has not come; at POLYMODAL_QUEUE_LIMIT more are refused at once.",
        Query(f"polymodal_queue_length{{{ALL}}}", "{{instance}}"),
    )
    yield lines(
        "Utilisation",
        "Share of the time in which an instance's workers compute, now and over five minutes, of which the alert is.",
        Query(BUSY, "{{instance}}"),
        Query(f"instance:polymodal_utilisation:rate5m{{{ALL}}}", "{{instance}}, 5 min"),
        unit="percentunit",
        steps=(("green", None), ("red", 0.85)),
        defaults=SHARE,
        alerts=("PolymodalSaturated",),
    )
    yield lines(
        "Examples without an answer",
        "By the problem's code, also those inside batch requests. “overloaded” and “deadline_exceeded” are the queue's.",
        Query(or_zero(total("polymodal_refusals_total", by="reason"), "reason"), "{{reason}}"),
        unit="ops",
        stacked=True,
        alerts=("PolymodalInternalErrors",),
    )
    yield lines(
        "Examples computed together",
        "Mean size of a batch: it grows with what waits.",
        Query(mean("polymodal_batch_items", MODEL, "model"), "{{model}}"),
    )
    yield lines(
        "Examples computed",
        "By model.",
        Query(or_zero(total("polymodal_batch_items_sum", MODEL, "model"), "model"), "{{model}}"),
        unit="ops",
        stacked=True,
    )


def model() -> Iterator[Panel]:
    """Does it compute more slowly, or say something else?"""
    which = f'{JOB}, model=~"$model"'
    stages = 'stage=~"decode|encode_.+|fuse"'
    yield lines(
        "Time of a stage",
        "95 of 100 examples pass it within this.",
        Query(quantile(0.95, STAGES, f"{MODEL}, {stages}", "stage"), "{{stage}}, p95"),
        unit="s",
    )
    yield lines(
        "Mean time of an example",
        "In all stages, on each other.",
        Query(mean(STAGES, ALL, "stage"), "{{stage}}"),
        unit="s",
        stacked=True,
    )
    yield Panel(
        "heatmap",
        "Latency of classifications",
        "How many single classifications took how long.",
        [
            Query(
                f'sum by (le) (increase({REQUESTS}_bucket{{{ALL}, http_route="/v1/classify"}}[$__rate_interval]))',
                "{{le}}",
                shape="heatmap",
            )
        ],
        options={
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
        },
        custom={"hideFrom": {"legend": False, "tooltip": False, "viz": False}},
    )
    yield lines(
        "Batches: measured ÷ predicted",
        "The queue rests on the prediction; above the line it is off.",
        Query(
            f"{total('polymodal_batch_duration_seconds_sum', MODEL, 'model')}"
            f" / {total('polymodal_batch_predicted_seconds_sum', MODEL, 'model')}",
            "{{model}}",
        ),
        unit="none",
        steps=(("green", None), ("orange", 2)),
        alerts=("PolymodalForecastOff",),
    )
    yield lines(
        "Labels",
        "Share of each in the answers.",
        Query(
            or_zero(
                f"{total('polymodal_predictions_total', MODEL, 'label')}"
                f" / on () group_left () ({total('polymodal_predictions_total', MODEL)} > 0)",
                "label",
            ),
            "{{label}}",
        ),
        unit="percentunit",
        stacked=True,
        defaults=SHARE,
    )
    yield table(
        "Labels of a day, and of the training data",
        "Shares of the answers of the last day, and in the data that the model was trained on, where its report tells them.",
        *(
            Query(
                or_zero(f"max by (model, label) (job_model_label:polymodal_label_share:{window}{{{which}}})", "label")
            )
            for window in ("1d", "reference")
        ),
        keep={"model": "model", "label": "label", "Value #A": "last day", "Value #B": "training"},
        unit="percentunit",
        overrides=[
            named(
                column,
                custom__cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
                max=1,
                min=0,
            )
            for column in ("last day", "training")
        ],
    )
    yield lines(
        "Drift",
        "Distance: the share of a day's answers that would have to be others for the labels to be spread as in the training data."
        " Entropy: 1 is a guess among all labels; six hours against the week before them.",
        Query(
            or_zero(f"job_model:polymodal_label_distance:1d{{{which}}}", "model"),
            "{{model}}, distance of labels",
        ),
        *(
            Query(
                or_zero(f"job_model:polymodal_entropy:mean{window}{{{which}}}", "model"),
                f"{{{{model}}}}, entropy over {window}",
            )
            for window in ("6h", "7d")
        ),
        unit="percentunit",
        steps=(("green", None), ("orange", 0.25)),
        defaults=SHARE,
        alerts=("PolymodalLabelsDrift", "PolymodalModelUnsure"),
    )
    yield lines(
        "How sure it is",
        "Score of the best label, and entropy of all scores (0 sure, 1 a guess).",
        Query(quantile(0.1, "polymodal_prediction_score", MODEL), "score, p10"),
        Query(quantile(0.5, "polymodal_prediction_score", MODEL), "score, p50"),
        Query(mean("polymodal_prediction_entropy_ratio", MODEL), "entropy, mean"),
        unit="percentunit",
        defaults=SHARE,
    )
    yield table(
        "Models",
        "What is served: one row for each version; an instance that serves another one stands out.",
        Query(f"count by (model, digest, runtime) (polymodal_bundle_info{{{MODEL}}})"),
        keep={"model": "model", "digest": "digest", "runtime": "runtime", "Value": "instances"},
        alerts=("PolymodalModelsDiffer",),
    )


def machine() -> Iterator[Panel]:
    """Are all workers there, and have they what they need?"""
    yield lines(
        "Workers",
        "Alive, and as set.",
        Query(f"polymodal_workers{{{ALL}}}", "{{instance}} alive"),
        Query(f"polymodal_workers_wanted{{{ALL}}}", "{{instance}} wanted"),
        custom={"lineInterpolation": "stepAfter"},
        alerts=("PolymodalWorkersMissing",),
    )
    yield lines(
        "Workers started again",
        "After they had died or hung.",
        Query(f"increase(polymodal_worker_restarts_total{{{ALL}}}[$__rate_interval])", "{{instance}}"),
        custom={"drawStyle": "bars", "fillOpacity": 60},
        alerts=("PolymodalWorkerRestarted", "PolymodalWorkersCrashLoop"),
    )
    yield lines(
        "Answers Prometheus",
        "1 while an instance answers, and how long it takes to: the serving process has no time where this grows.",
        Query(f"up{{{ALL}}}", "{{instance}} up"),
        Query(f"scrape_duration_seconds{{{ALL}}}", "{{instance}} seconds"),
        alerts=("PolymodalInstanceDown",),
    )
    yield lines(
        "Processor",
        "Cores in use, by the serving process and by its workers.",
        Query(total("polymodal_processor_seconds_total", by="process"), "{{process}}"),
        unit="none",
        stacked=True,
    )
    busy = total("polymodal_worker_busy_seconds_total")
    yield lines(
        "Cores that a busy worker gets",
        "About its number of threads on a machine of its own; much less means that others have the cores. 1 also while workers have"
        " next to nothing to do.",
        Query(
            f"{total('polymodal_processor_seconds_total', f'{ALL}, process={WORKERS}')} / ({busy} > 0.05) or on () vector(1)",
            "cores",
        ),
        unit="none",
    )
    yield lines(
        "Processor time withheld",
        "Seconds in each second that the container's limit held threads up; 0 also where no cgroup tells.",
        Query(or_zero(total("polymodal_processor_throttled_seconds_total", by="instance"), "instance"), "{{instance}}"),
        unit="s",
        steps=(("green", None), ("orange", 0.1)),
        alerts=("PolymodalProcessorThrottled",),
    )
    yield lines(
        "Memory",
        "Resident, of the serving process and of its workers together; and embeddings that are kept.",
        Query(f"sum by (process) (polymodal_resident_memory_bytes{{{ALL}}})", "{{process}}"),
        Query(f"sum(polymodal_embedding_cache_bytes{{{ALL}}})", "of it embeddings"),
        unit="bytes",
    )
    yield lines(
        "What goes wrong in silence",
        "Log lines lost and failed requests to Redis, per second; 1 while the file of API keys can't be read.",
        Query(total("polymodal_log_lines_lost_total"), "log lines lost"),
        Query(total("polymodal_rate_limit_storage_failures_total"), "Redis failures"),
        Query(f"max(polymodal_api_keys_stale{{{ALL}}})", "API keys stale"),
        unit="none",
        alerts=("PolymodalLogLinesLost", "PolymodalApiKeysStale", "PolymodalRateLimitStorageFails"),
    )
    yield table(
        "Versions",
        "Of the service and of Python, by instance.",
        Query(f"polymodal_build_info{{{ALL}}}"),
        keep={"instance": "instance", "version": "version", "python": "python"},
    )


# --- the whole ---

ROWS: Final = {
    "At a glance": glance,
    "Clients: do they ask more, or otherwise?": clients,
    "Queue: is there more to do than the workers can?": queue,
    "Model: does it compute more slowly, or say something else?": model,
    "Machine: are all workers there, and have they what they need?": machine,
}


def placed() -> Iterator[dict[str, Any]]:
    """All panels from left to right, each row of them under its title."""
    y = count = 0
    for title, panels in ROWS.items():
        count += 1
        yield {
            "id": count,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        y += 1
        heights = [y] * WIDTH
        for panel in panels():
            count += 1
            x, top = _place(heights, panel.width)
            heights[x : x + panel.width] = [top + panel.height] * panel.width
            yield {
                "id": count,
                **panel.model(),
                "gridPos": {"x": x, "y": top, "w": panel.width, "h": panel.height},
            }
        y = max(heights)


def _place(heights: Sequence[int], width: int) -> tuple[int, int]:
    """The highest place where a panel of this width fits, and of these the leftmost."""
    return min(
        ((x, max(heights[x : x + width])) for x in range(WIDTH - width + 1)),
        key=lambda place: (place[1], place[0]),
    )


def variable(name: str, label: str, query: str, about: str, everything: str | None = ".*") -> dict[str, Any]:
    """A choice among a label's values; all of them at first, which is this pattern or, without any, the list of them."""
    return {
        "name": name,
        "label": label,
        "description": about,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": f"Variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **({} if everything is None else {"allValue": everything}),
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard() -> dict[str, Any]:
    """The whole, as Grafana writes it."""
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "refresh": 1,
        "regex": "",
        "options": [],
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
    }
    runbooks = {"name": "runbooks", "label": "Runbooks", "type": "constant", "query": RUNBOOKS, "hide": 2}
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
        "links": [
            {
                "title": "Runbooks",
                "type": "link",
                "url": "${runbooks}",
                "icon": "doc",
                "tooltip": "What to do about each alert",
                "tags": [],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": False,
                "targetBlank": True,
            }
        ],
        "annotations": {
            "list": [
                {
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
            ]
        },
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(polymodal_ready, job)", "Scrape job.", everything=None),
                variable("instance", "Instance", f"label_values(polymodal_ready{{{JOB}}}, instance)", "One process."),
                variable("model", "Model", f"label_values(polymodal_bundle_info{{{ALL}}}, model)", "Served bundle."),
                runbooks,
            ]
        },
        "panels": list(placed()),
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(text(), encoding="utf-8")
