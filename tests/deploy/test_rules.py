"""When alerts fire and when they don't, by Prometheus' own tool; and that each has a runbook."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from scripts.observe import shorten

PROJECT = Path(__file__).parents[2]
PROMETHEUS = PROJECT / "deploy" / "prometheus"
RUNBOOKS = PROJECT / "docs" / "alerts.md"
AREAS = {"objective", "clients", "queue", "model", "machine"}


def series(name, values, **labels):
    """Return a series of one process, with a value each minute."""
    labels = {"job": "polymodal", "instance": "a", **labels}
    selector = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{selector}}}", "values": values}


def request_count(values, status=200, error=""):
    """Return the series of single classifications with one status."""
    labels = {"http_route": "/v1/classify", "http_response_status_code": str(status), "error_type": error}
    return series("http_server_request_duration_seconds_count", values, **labels)


def requests(per_minute, status=200, error="", route="/v1/classify", in_time=None):
    """Return the series of classifications per minute, of which `in_time` are answered within the latency threshold."""
    labels = {"http_request_method": "POST", "http_route": route}
    labels |= {"http_response_status_code": str(status), "error_type": error}
    name = "http_server_request_duration_seconds"
    in_time = per_minute if in_time is None else in_time
    return [
        series(f"{name}_count", f"0+{per_minute}x600", **labels),
        series(f"{name}_bucket", f"0+{in_time}x600", le="0.25", **labels),
    ]


def predictions(per_minute, label):
    return series("polymodal_predictions_total", f"0+{per_minute}x600", model="m", label=label, modalities="text")


def references(**ratios):
    return [
        series("polymodal_label_reference_ratio", f"{ratio}x600", model="m", label=label)
        for label, ratio in ratios.items()
    ]


def steady(name, value, **labels):
    return series(name, f"{value}x600", **labels)


@dataclass(frozen=True)
class Case:
    """Series, and whether an alert fires after a number of minutes."""

    alert: str
    situation: str
    fires: bool
    series: list = field(default_factory=list)
    after: int = 30
    every: int = 1
    """Minutes between two values, and between two evaluations."""


def fires(alert, situation, *all_series, **times):
    return Case(f"Polymodal{alert}", situation, True, list(all_series), **times)


def silent(alert, situation, *all_series, **times):
    return Case(f"Polymodal{alert}", situation, False, list(all_series), **times)


UNSURE = ("polymodal_prediction_entropy_ratio_sum", "polymodal_prediction_entropy_ratio_count")
DAY = 24 * 12  # values, one each five minutes
CLOSED = "polymodal_connections_closed_total"
RESTARTS = "polymodal_worker_restarts_total"
# fmt: off
CASES = [
    fires("NotServing", "nothing is scraped", after=3),
    fires("NotServing", "no instance is ready", steady("polymodal_ready", 0), after=3),
    silent(
        "NotServing", "one of two instances is ready", steady("polymodal_ready", 0), steady("polymodal_ready", 1, instance="b")
    ),
    fires(
        "AvailabilityBurnsFast", "a tenth is refused as overloaded", *requests(90), *requests(10, 429, "overloaded"), after=10
    ),
    fires(
        "AvailabilityBurnsFast",
        "everything fails, also batches",
        *requests(10, 500, "internal_error", route="/v1/classify/batch"),
        after=10,
    ),
    fires(
        "AvailabilityBurnsFast", "one in 25 fails for hours", *requests(96), *requests(4, 504, "deadline_exceeded"), after=120
    ),
    silent("AvailabilityBurnsFast", "one in 50 fails", *requests(98), *requests(2, 500, "internal_error")),
    silent(
        "AvailabilityBurnsFast",
        "most are over their rate limits or undecodable",
        *requests(10),
        *requests(50, 429, "rate_limited"),
        *requests(50, 422, "undecodable"),
    ),
    silent(
        "AvailabilityBurnsFast",
        "not ready for 20 minutes, healthy for 40",
        *requests(100),
        request_count("0+100x20 2000x60", 503, "not_ready"),
        after=60,
    ),
    silent(
        "AvailabilityBurnsFast",
        "half fail, of four requests in an hour",
        request_count("0x10 2x60"),
        request_count("0x10 2x60", 500, "internal_error"),
        after=14,
    ),
    fires("LatencyBurnsFast", "a fifth is too slow", *requests(100, in_time=80), after=10),
    silent("LatencyBurnsFast", "3 of 100 are too slow", *requests(100, in_time=97)),
    silent(
        "LatencyBurnsFast", "only large batches are slow", *requests(100), *requests(100, route="/v1/classify/batch", in_time=0)
    ),
    silent("LatencyBurnsFast", "refusals are slow", *requests(100), *requests(9, 503, "stalled", in_time=0)),
    fires("WorkersCrashLoop", "one worker dies each minute", series(RESTARTS, "0+1x600")),
    silent("WorkersCrashLoop", "one worker dies each five minutes", series(RESTARTS, "0 0 0 0 1 1 1 1 1 2 2 2 2 2 3")),
    fires(
        "AvailabilityBurnsSlowly", "one in 50 fails for an hour", *requests(98), *requests(2, 500, "internal_error"), after=60
    ),
    fires(
        "AvailabilityBurnsSlowly",
        "7 of 1000 fail for more than an hour",
        *requests(993),
        *requests(7, 500, "internal_error"),
        after=100,
    ),
    silent(
        "AvailabilityBurnsSlowly",
        "4 of 1000 fail, which is allowed",
        *requests(996),
        *requests(4, 500, "internal_error"),
        after=100,
    ),
    fires("LatencyBurnsSlowly", "4 of 100 are too slow for an hour", *requests(100, in_time=96), after=60),
    silent("LatencyBurnsSlowly", "9 of 1000 are too slow", *requests(1000, in_time=991), after=100),
    fires("ClientsRefused", "half is undecodable", *requests(50), *requests(50, 422, "undecodable")),
    silent("ClientsRefused", "a tenth is undecodable", *requests(90), *requests(10, 422, "undecodable")),
    silent("ClientsRefused", "half is refused as overloaded", *requests(50), *requests(50, 429, "overloaded")),
    fires("ConnectionsRunOut", "one connection per second is evicted", series(CLOSED, "0+60x600", reason="evicted")),
    silent("ConnectionsRunOut", "one head per second is too slow", series(CLOSED, "0+60x600", reason="head_too_slow")),
    fires(
        "Saturated",
        "two workers compute for 57 s of each minute",
        series("polymodal_worker_busy_seconds_total", "0+114x600"),
        steady("polymodal_workers", 2),
    ),
    silent(
        "Saturated",
        "four workers do the same",
        series("polymodal_worker_busy_seconds_total", "0+114x600"),
        steady("polymodal_workers", 4),
    ),
    fires("QueueTooLong", "half a second of waiting", steady("polymodal_queue_predicted_wait_seconds", 0.5)),
    silent("QueueTooLong", "a tenth of a second of waiting", steady("polymodal_queue_predicted_wait_seconds", 0.1)),
    fires("InternalErrors", "the first error", series("polymodal_refusals_total", "_x19 1x20", reason="internal_error")),
    fires("InternalErrors", "one more error", series("polymodal_refusals_total", "3x24 4x20", reason="internal_error")),
    silent("InternalErrors", "no new error", steady("polymodal_refusals_total", 3, reason="internal_error")),
    silent("InternalErrors", "other refusals", series("polymodal_refusals_total", "0+9x600", reason="overloaded")),
    fires(
        "ForecastOff",
        "batches take three times as long as predicted",
        series("polymodal_batch_duration_seconds_sum", "0+3x600", model="m"),
        series("polymodal_batch_predicted_seconds_sum", "0+1x600", model="m"),
        after=60,
    ),
    silent(
        "ForecastOff",
        "batches take a quarter longer",
        series("polymodal_batch_duration_seconds_sum", "0+5x600", model="m"),
        series("polymodal_batch_predicted_seconds_sum", "0+4x600", model="m"),
        after=60,
    ),
    fires(
        "LabelsDrift", "one of two equal labels is never predicted", predictions(100, "a"), *references(a=0.5, b=0.5), after=80
    ),
    silent(
        "LabelsDrift",
        "both are predicted, one more often",
        predictions(120, "a"),
        predictions(80, "b"),
        *references(a=0.5, b=0.5),
        after=80,
    ),
    silent("LabelsDrift", "a few hundred predictions", predictions(1, "a"), *references(a=0.5, b=0.5), after=80),
    silent("LabelsDrift", "the bundle has no label shares", predictions(100, "a"), after=80),
    fires(
        "ModelUnsure",
        "entropy of 0.2 for a day, then 0.5",
        series(UNSURE[0], f"0+20x{DAY} {20 * DAY + 50}+50x72", model="m"),
        series(UNSURE[1], f"0+100x{DAY + 73}", model="m"),
        after=5 * (DAY + 72),
        every=5,
    ),
    silent(
        "ModelUnsure",
        "entropy of 0.5 all the time",
        series(UNSURE[0], f"0+50x{DAY + 73}", model="m"),
        series(UNSURE[1], f"0+100x{DAY + 73}", model="m"),
        after=5 * (DAY + 72),
        every=5,
    ),
    fires(
        "ModelsDiffer",
        "two instances serve two versions",
        steady("polymodal_bundle_info", 1, model="m", digest="1"),
        steady("polymodal_bundle_info", 1, model="m", digest="2", instance="b"),
        after=90,
    ),
    silent(
        "ModelsDiffer",
        "two instances serve two models",
        steady("polymodal_bundle_info", 1, model="m", digest="1"),
        steady("polymodal_bundle_info", 1, model="n", digest="2", instance="b"),
        after=90,
    ),
    fires("InstanceDown", "one of two instances", steady("up", 0), steady("up", 1, instance="b")),
    silent("InstanceDown", "another service is down", steady("up", 0, job="other"), steady("up", 1)),
    fires("InstanceNotReady", "not ready", steady("polymodal_ready", 0)),
    silent("InstanceNotReady", "starting", series("polymodal_ready", "0 0 0 1x600")),
    fires("WorkersMissing", "one of two workers", steady("polymodal_workers", 1), steady("polymodal_workers_wanted", 2)),
    silent("WorkersMissing", "all workers run", steady("polymodal_workers", 2), steady("polymodal_workers_wanted", 2)),
    fires("WorkerRestarted", "restarted ten minutes ago", series(RESTARTS, "0x20 1x20")),
    silent("WorkerRestarted", "restarted an hour ago", series(RESTARTS, "0x20 1x90"), after=80),
    fires(
        "ProcessorThrottled", "throttled a fifth of the time", series("polymodal_processor_throttled_seconds_total", "0+12x600")
    ),
    silent(
        "ProcessorThrottled",
        "throttled a hundredth of the time",
        series("polymodal_processor_throttled_seconds_total", "0+0.6x600"),
    ),
    fires("LogLinesLost", "7 lines", series("polymodal_log_lines_lost_total", "0x25 7x20")),
    silent("LogLinesLost", "no line", steady("polymodal_log_lines_lost_total", 0)),
    fires("ApiKeysStale", "for hours", steady("polymodal_api_keys_stale", 1)),
    silent("ApiKeysStale", "for two minutes", series("polymodal_api_keys_stale", "0x27 1x2")),
    fires("IndexUnusable", "for hours", steady("polymodal_index_usable", 0, index="things")),
    silent("IndexUnusable", "during a rollout", series("polymodal_index_usable", "1x20 0x9 1x20", index="things")),
    fires(
        "RateLimitStorageFails", "five failures per minute", series("polymodal_rate_limit_storage_failures_total", "0+5x600")
    ),
    silent("RateLimitStorageFails", "one failure", series("polymodal_rate_limit_storage_failures_total", "0x20 1x20")),
]
# fmt: on


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case.alert}-{'fires' if case.fires else 'silent'}-{case.situation}") for case in CASES],
)
def test_an_alert_fires_when_it_should_and_only_then(case, promtool, tmp_path):
    firing = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}}) or vector(0)'
    test = {
        "rule_files": [str(path) for path in PROMETHEUS.glob("rules/*.yml")],
        "evaluation_interval": f"{case.every}m",
        "tests": [
            {
                "interval": f"{case.every}m",
                "input_series": case.series,
                "promql_expr_test": [
                    {
                        "expr": firing,
                        "eval_time": f"{case.after}m",
                        "exp_samples": [{"labels": "{}", "value": int(case.fires)}],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test), encoding="utf-8")
    result = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
def test_every_alert_has_a_case(alerts, fires):
    assert {case.alert for case in CASES if case.fires is fires} == set(alerts)


def test_prometheus_accepts_its_configuration_and_rules(promtool):
    result = subprocess.run(
        [promtool, "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_severity_an_area_and_a_runbook(alerts):
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["labels"]["area"] in AREAS, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"].endswith(f"/alerts.md#{name.lower()}"), name


def test_every_alert_has_a_runbook_with_its_severity_and_area(alerts):
    paragraphs = re.split(r"^### ", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    runbooks = {name: text for name, _, text in (paragraph.partition("\n") for paragraph in paragraphs)}
    assert len(runbooks) == len(paragraphs)
    assert runbooks.keys() == alerts.keys()
    for name, text in runbooks.items():
        labels = alerts[name]["labels"]
        assert text.strip().startswith(f"*{labels['severity']} · {labels['area']}.*"), name


def test_rules_have_one_latency_threshold(rules):
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    (threshold,) = re.findall(r"vector\(([\d.]+)\)", recorded["polymodal:latency:threshold_seconds"])
    assert re.findall(r'le="([\d.]+)"', recorded["job:polymodal_classifications_late:rate5m"]) == [threshold]


def test_windows_waits_and_intervals_are_shortened_and_names_are_not():
    text = "interval: 2m\nfor: 15m\nexpr: rate(x[5m]) > job:y:rate5m{a='1h'} and z[7d] offset 6h\nscrape_interval: 15s"
    assert shorten(text, 60) == (
        "interval: 2000ms\nfor: 15000ms\nexpr: rate(x[5000ms]) > job:y:rate5m{a='1h'} and z[10080000ms] offset 360000ms\n"
        "scrape_interval: 250ms"
    )


def test_a_duration_is_not_shortened_to_zero():
    with pytest.raises(ValueError, match="for: 1s"):
        shorten("for: 1s", 10_000)


def test_every_window_of_the_real_rules_is_shortened():
    for path in PROMETHEUS.rglob("*.yml"):
        left = re.findall(r"(?:\[|offset |for: |interval: )\d+(?:s|m|h|d)\b", shorten(path.read_text("utf-8"), 60))
        assert not left, path
