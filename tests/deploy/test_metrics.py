"""Rules and dashboard use metrics that the service exports, and every exported metric is used."""

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
from scripts.observe import fill_in, queries_of
from tests.app.conftest import write_toy_index
from tests.refusals import REFUSALS

PROJECT = Path(__file__).parents[2]
BY_PROMETHEUS = {"job", "instance"}
"""Labels that scraping adds."""
OF_PROMETHEUS = {
    "up": set(),
    "scrape_duration_seconds": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "area"},
}
UNUSED: dict[str, str] = {}
"""Exported metrics that are shown nowhere, with the reason."""


async def scraped(app):
    """Return the metric families of a service after requests of all kinds."""
    image = (PROJECT / "examples" / "boat.png").read_bytes()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        for content in (image, b"no image"):
            await client.post("/v1/classify", files={"image": content}, data={"text": "a small boat"})
        await client.post("/v1/classify/batch", json={"items": [{"text": "a small boat"}]})
        app.state.metrics.closed("evicted")
        app.state.metrics.cached("image", hit=True)
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Metric families that the service exports."""
    index = write_toy_index(tmp_path_factory.mktemp("indexes") / "things")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polymodal.app.observe.metrics.throttled_seconds", lambda: 1.5)  # this machine may have no limit
        return asyncio.run(scraped(create_app(Settings(workers=0, indexes=(index,)))))


@pytest.fixture(scope="module")
def exported(families):
    """Family and labels by the name of a series."""
    result = {}
    for family in families:
        assert family.samples, f"{family.name} was never counted, so it has no labels"
        for name in names_of(family):
            labels = {label for sample in family.samples if sample.name == name for label in sample.labels}
            result[name] = (family.name, labels)
    return result


def values(families, label):
    return {sample.labels[label] for family in families for sample in family.samples if label in sample.labels}


def names_of(family):
    match family.type:
        case "counter":
            return [f"{family.name}_total"]
        case "histogram":
            return [f"{family.name}_{suffix}" for suffix in ("bucket", "sum", "count")]
    return [family.name]


@pytest.fixture(scope="module")
def expressions(dashboard, rules):
    """All expressions of rules and dashboard, by their place."""
    of_panels = {f"{query.panel}: {query.expr}": fill_in(query.expr) for query in queries_of(dashboard)}
    of_annotations = {note["name"]: fill_in(note["expr"]) for note in dashboard["annotations"]["list"]}
    of_variables = {
        variable["name"]: fill_in(re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])[1])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    of_rules = {(rule.get("record") or rule["alert"], *rule.get("labels", {}).values()): rule["expr"] for rule in rules}
    return {**of_panels, **of_annotations, **of_variables, **of_rules}


@pytest.fixture(scope="module")
def recorded(rules):
    """Labels of the recorded series, by the level in their names and the rule's own labels."""
    levels = {"polymodal": set(), "job": {"job"}, "instance": BY_PROMETHEUS, "job_model": {"job", "model"}}
    levels["job_model_label"] = {"job", "model", "label"}
    return {
        rule["record"]: levels[rule["record"].split(":")[0]] | set(rule.get("labels", ()))
        for rule in rules
        if "record" in rule
    }


def nodes(tree, kind):
    """Return the nodes of one kind in a parsed expression."""
    result = []

    def visit(node):
        if isinstance(node, kind):
            result.append(node)
        return True

    promql.walk(tree, visit)
    return result


def selectors_in(expr):
    return nodes(promql.parse(expr), promql.VectorSelector)


@pytest.fixture(scope="module")
def labels_of(exported, recorded):
    """Returns the labels of a series in Prometheus."""

    def labels(name):
        if name in recorded:
            return recorded[name]
        return BY_PROMETHEUS | (OF_PROMETHEUS[name] if name in OF_PROMETHEUS else exported[name][1])

    return labels


def test_queried_series_are_exported_or_recorded(expressions, exported, recorded):
    known = exported.keys() | recorded.keys() | OF_PROMETHEUS.keys()
    for place, expr in expressions.items():
        names = {selector.name for selector in selectors_in(expr)}
        assert names <= known, f"{place}: {names - known}"


def test_matched_labels_are_labels_of_the_metric(expressions, labels_of):
    for place, expr in expressions.items():
        for selector in selectors_in(expr):
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= labels_of(selector.name), (
                f"{place}: {selector.name} has no {matched - labels_of(selector.name)}"
            )


def test_grouping_labels_are_labels_of_the_aggregated_metrics(expressions, labels_of):
    for place, expr in expressions.items():
        for aggregate in nodes(promql.parse(expr), promql.AggregateExpr):
            present = set().union(*(labels_of(node.name) for node in nodes(aggregate.expr, promql.VectorSelector)))
            grouped = set(aggregate.modifier.labels) if aggregate.modifier else set()
            assert grouped <= present, f"{place}: {grouped - present}"


def test_legends_and_annotations_name_labels_of_the_series(dashboard, alerts, labels_of):
    texts = [(query.legend, r"{{(\w+)}}", fill_in(query.expr)) for query in queries_of(dashboard)]
    texts += [
        (text, r"\$labels\.(\w+)", rule["expr"]) for rule in alerts.values() for text in rule["annotations"].values()
    ]
    for text, pattern, expr in texts:
        present = set().union(*(labels_of(selector.name) for selector in selectors_in(expr)))
        assert set(re.findall(pattern, text)) <= present, f"{text}: {expr}"


def test_exported_metrics_are_shown_or_listed_as_unused(expressions, exported):
    used = {
        exported[selector.name][0]
        for expr in expressions.values()
        for selector in selectors_in(expr)
        if selector.name in exported
    }
    assert used | UNUSED.keys() == {family for family, _ in exported.values()}
    assert not used & UNUSED.keys()


def test_every_recorded_series_is_queried(expressions, recorded):
    queried = {selector.name for expr in expressions.values() for selector in selectors_in(expr)}
    assert recorded.keys() <= queried


def test_every_stage_belongs_to_one_row_of_the_dashboard(families):
    for stage in values(families, "stage"):
        assert len([row for row, stages in source.OURS.items() if re.fullmatch(stages, stage)]) == 1, stage


def test_queried_routes_and_codes_exist(expressions, families):
    codes = {kind.code for kind in REFUSALS} | {"client_gone", "evicted"}
    for place, expr in expressions.items():
        for selector in selectors_in(expr):
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
