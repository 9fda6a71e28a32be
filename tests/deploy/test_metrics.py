"""Rules and dashboard ask for what the service really exports, and what it exports is asked for."""

import asyncio
import re
from pathlib import Path

import httpx
import promql_parser as promql
import pytest
from prometheus_client.parser import text_string_to_metric_families

from polymodal.app.main import create_app
from polymodal.app.settings import Settings
from scripts import dashboard as source
from scripts.observe import filled_in, queries
from tests.refusals import REFUSALS

PROJECT = Path(__file__).parents[2]
BY_PROMETHEUS = {"job", "instance"}
"""Labels that scraping adds."""
PROMETHEUS_OWN = {
    "up": set(),
    "scrape_duration_seconds": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "area"},
}
UNUSED: dict[str, str] = {}
"""What is exported and shown nowhere, and why."""


async def scraped(app):
    """What Prometheus would read from a service that has seen what it can see."""
    picture = (PROJECT / "examples" / "boat.png").read_bytes()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        for sent in (picture, b"no picture"):
            await client.post("/v1/classify", files={"image": sent}, data={"text": "a small boat"})
        await client.post("/v1/classify/batch", json={"items": [{"text": "a small boat"}]})
        app.state.metrics.closed("evicted")
        app.state.metrics.cached("image", hit=True)
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


@pytest.fixture(scope="module")
def families():
    """What the service exports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polymodal.app.observe.metrics.throttled_seconds", lambda: 1.5)  # this machine may have no limit
        return asyncio.run(scraped(create_app(Settings(workers=0))))


@pytest.fixture(scope="module")
def exported(families):
    """Family and labels of each name that can be asked for."""
    found = {}
    for family in families:
        assert family.samples, f"{family.name} was never counted: its labels can't be seen"
        for name in names_of(family):
            labels = {label for sample in family.samples if sample.name == name for label in sample.labels}
            found[name] = (family.name, labels)
    return found


def values(families, label):
    return {sample.labels[label] for family in families for sample in family.samples if label in sample.labels}


def names_of(family):
    match family.type:
        case "counter":
            return [f"{family.name}_total"]
        case "histogram":
            return [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
    return [family.name]


@pytest.fixture(scope="module")
def expressions(dashboard, rules):
    """All of them, by where they stand."""
    shown = {f"{asked.panel}: {asked.expr}": filled_in(asked.expr) for asked in queries(dashboard)}
    noted = {each["name"]: filled_in(each["expr"]) for each in dashboard["annotations"]["list"]}
    chosen = {
        variable["name"]: filled_in(re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])[1])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    ruled = {(rule.get("record") or rule["alert"], *rule.get("labels", {}).values()): rule["expr"] for rule in rules}
    return {**shown, **noted, **chosen, **ruled}


@pytest.fixture(scope="module")
def recorded(rules):
    """Labels of the recorded series, which the first part of their names and the rule's own labels tell."""
    levels = {"polymodal": set(), "job": {"job"}, "instance": BY_PROMETHEUS, "job_model": {"job", "model"}}
    levels["job_model_label"] = {"job", "model", "label"}
    return {
        rule["record"]: levels[rule["record"].split(":")[0]] | set(rule.get("labels", ()))
        for rule in rules
        if "record" in rule
    }


def parts(expr, kind):
    """Nodes of one kind in a parsed expression."""
    found = []

    def visit(node):
        if isinstance(node, kind):
            found.append(node)
        return True

    promql.walk(expr, visit)
    return found


@pytest.fixture(scope="module")
def labels_of(exported, recorded):
    """The labels that a metric has when Prometheus has scraped it."""

    def labels(name):
        if name in recorded:
            return recorded[name]
        return BY_PROMETHEUS | (PROMETHEUS_OWN[name] if name in PROMETHEUS_OWN else exported[name][1])

    return labels


def test_what_rules_and_dashboard_ask_for_is_exported_or_recorded(expressions, exported, recorded):
    known = exported.keys() | recorded.keys() | PROMETHEUS_OWN.keys()
    for place, expr in expressions.items():
        asked = {selector.name for selector in parts(promql.parse(expr), promql.VectorSelector)}
        assert asked <= known, f"{place}: {asked - known}"


def test_labels_that_are_matched_are_labels_of_that_metric(expressions, labels_of):
    for place, expr in expressions.items():
        for selector in parts(promql.parse(expr), promql.VectorSelector):
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= labels_of(selector.name), (
                f"{place}: {selector.name} has no {matched - labels_of(selector.name)}"
            )


def test_labels_that_are_grouped_by_are_labels_of_what_is_summed(expressions, labels_of):
    for place, expr in expressions.items():
        for sum_ in parts(promql.parse(expr), promql.AggregateExpr):
            inside = set().union(*(labels_of(each.name) for each in parts(sum_.expr, promql.VectorSelector)))
            grouped = set(sum_.modifier.labels) if sum_.modifier else set()
            assert grouped <= inside, f"{place}: {grouped - inside}"


def test_legends_and_texts_name_labels_that_the_series_have(dashboard, alerts, labels_of):
    said = [(asked.legend, r"{{(\w+)}}", filled_in(asked.expr)) for asked in queries(dashboard)]
    said += [
        (text, r"\$labels\.(\w+)", rule["expr"]) for rule in alerts.values() for text in rule["annotations"].values()
    ]
    for text, pattern, expr in said:
        tree = promql.parse(expr)
        present = set().union(*(labels_of(each.name) for each in parts(tree, promql.VectorSelector)))
        assert set(re.findall(pattern, text)) <= present, f"{text}: {expr}"


def test_what_is_exported_is_shown_or_deliberately_not(expressions, exported):
    used = {
        exported[selector.name][0]
        for expr in expressions.values()
        for selector in parts(promql.parse(expr), promql.VectorSelector)
        if selector.name in exported
    }
    assert used | UNUSED.keys() == {family for family, _ in exported.values()}
    assert not used & UNUSED.keys()


def test_every_recorded_series_is_asked_for(expressions, recorded):
    asked = {
        selector.name for expr in expressions.values() for selector in parts(promql.parse(expr), promql.VectorSelector)
    }
    assert recorded.keys() <= asked


def test_every_stage_is_somebodys_time_and_nobody_has_it_twice(families):
    for stage in values(families, "stage"):
        assert len([whose for whose, stages in source.OURS.items() if re.fullmatch(stages, stage)]) == 1, stage


def test_routes_and_codes_that_are_asked_for_exist(expressions, families):
    codes = {kind.code for kind in REFUSALS} | {"client_gone", "evicted"}
    for place, expr in expressions.items():
        for selector in parts(promql.parse(expr), promql.VectorSelector):
            for matcher in selector.matchers.matchers:
                if matcher.name in {"error_type", "reason"}:
                    assert set(matcher.value.split("|")) <= codes, f"{place}: {matcher.value}"
                if matcher.name == "http_route":
                    assert any(re.fullmatch(matcher.value, route) for route in values(families, "http_route")), place


def test_the_threshold_of_latency_is_a_bucket(rules, families):
    (late,) = (rule["expr"] for rule in rules if rule.get("record") == "job:polymodal_classifications_late:rate5m")
    (threshold,) = re.findall(r'le="([\d.]+)"', late)
    durations = [family for family in families if family.name == source.REQUESTS]
    assert threshold in values(durations, "le")
