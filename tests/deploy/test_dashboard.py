"""The dashboard and the compose profile, as far as they can be judged without Grafana and without Docker."""

import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import promql_parser
import pytest
import yaml

from scripts import dashboard as source
from scripts.observe import filled_in, queries

PROJECT = Path(__file__).parents[2]
ROWS = ["At a glance", "Clients", "Queue", "Model", "Machine"]
GRAFANAS_OWN = {"__rate_interval"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((PROJECT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def read(path):
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8"))


# --- dashboard ---


def test_the_file_is_what_its_script_writes():
    assert source.OUT.read_text(encoding="utf-8") == source.text(), "python scripts/dashboard.py"


def test_rows_are_in_the_order_in_which_an_operator_asks(dashboard):
    assert [panel["title"].split(":")[0] for panel in dashboard["panels"] if panel["type"] == "row"] == ROWS


def test_the_first_row_holds_what_one_glance_needs(dashboard):
    first, second, *_ = (at for at, panel in enumerate(dashboard["panels"]) if panel["type"] == "row")
    seen = " ".join(panel["title"] for panel in dashboard["panels"][first + 1 : second])
    for each in (
        "Ready",
        "Alerts firing",
        "Classifications",
        "Failed",
        "Latency",
        "Utilisation",
        "Burn of availability",
    ):
        assert each in seen


def test_panels_have_a_number_of_their_own_and_share_no_place(dashboard):
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for one, other in combinations(every, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one['title']} lies on {other['title']}"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in every)


def test_every_panel_says_what_it_shows_and_in_which_unit(dashboard):
    for panel in panels(dashboard):
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] != "text":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None, panel["title"]


def test_thresholds_rise(dashboard):
    for panel in panels(dashboard):
        steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
        assert all(lower["value"] < higher["value"] for lower, higher in pairwise(steps[1:])), panel["title"]


def test_every_question_goes_to_the_data_source_that_was_chosen(dashboard):
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asked = [panel for panel in panels(dashboard) if panel["type"] != "text"]
    assert all(panel["datasource"] == chosen for panel in asked)
    assert all(target["datasource"] == chosen for panel in asked for target in panel["targets"])


def test_variables_that_are_used_are_those_that_there_are(dashboard):
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - GRAFANAS_OWN
    assert used - {"__all"} == known


def test_lines_of_one_panel_can_be_told_apart(dashboard):
    for panel in panels(dashboard):
        legends = [target["legendFormat"] for target in panel.get("targets", ())]
        if panel["type"] == "timeseries":
            assert "__auto" not in legends, panel["title"]


def test_every_query_is_promql(dashboard):
    for asked in queries(dashboard):
        promql_parser.parse(filled_in(asked.expr))


def test_every_alert_is_linked_from_a_panel_and_links_lead_to_no_others(dashboard, alerts):
    links = [link["url"] for panel in panels(dashboard) for link in panel.get("links", ())]
    anchors = {f"${{runbooks}}#{name.lower()}" for name in alerts}
    assert set(links) == anchors


def test_dashboard_and_rules_mean_the_same_by_failed(rules):
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    assert source.COUNTED in recorded["job:polymodal_classifications:rate5m"]
    assert source.FAILED in recorded["job:polymodal_classifications_failed:rate5m"]


def test_colours_change_where_the_objectives_are(rules):
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    assert recorded["polymodal:availability:objective"] == f"vector({1 - source.FAILURES})"
    assert recorded["polymodal:latency:threshold_seconds"] == f"vector({source.THRESHOLD_S})"


def test_the_dashboard_is_of_a_version_that_grafana_11_reads(dashboard):
    assert dashboard["schemaVersion"] == 39
    assert dashboard["uid"] == "polymodal"
    assert "id" not in dashboard
    assert {panel["type"] for panel in panels(dashboard)} <= {
        "text",
        "stat",
        "bargauge",
        "table",
        "timeseries",
        "heatmap",
    }


# --- compose ---


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_observability_is_asked_for_pinned_confined_and_of_this_machine_alone(compose, service):
    said = compose[service]
    assert said["profiles"] == ["observability"]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", said["image"])
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in said["ports"])
    assert all(volume.endswith(":ro") for volume in said["volumes"] if volume.startswith("./"))
    assert said["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_what_is_mounted_is_there(compose, service):
    for volume in compose[service]["volumes"]:
        here = volume.split(":")[0]
        assert not here.startswith("./") or (PROJECT / here).exists(), volume


def test_nobody_can_change_anything_in_grafana(compose):
    said = compose["grafana"]["environment"]
    assert said["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert said["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert said["GF_AUTH_BASIC_ENABLED"] == "false"
    assert said["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_grafana_is_given_the_dashboard_and_prometheus(compose):
    mounted = {volume.split(":")[1] for volume in compose["grafana"]["volumes"]}
    (provider,) = read("deploy/grafana/provisioning/dashboards/polymodal.yml")["providers"]
    assert provider["options"]["path"] in mounted
    assert compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == (
        f"{provider['options']['path']}/{source.OUT.name}"
    )
    (datasource,) = read("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    assert (
        datasource["jsonData"]["timeInterval"] == read("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]
    )


def test_prometheus_scrapes_the_service_under_the_name_that_the_rules_expect(compose):
    scraped = {job["job_name"]: job for job in read("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    port = compose["polymodal"]["environment"]["POLYMODAL_PORT"]
    assert scraped["polymodal"]["static_configs"] == [{"targets": [f"polymodal:{port}"]}]


def test_runbooks_are_where_alerts_and_dashboard_say(compose, alerts):
    addresses = {rule["annotations"]["runbook_url"].split("#")[0] for rule in alerts.values()}
    assert addresses == {source.RUNBOOKS}
    command, volumes = compose["prometheus"]["command"], compose["prometheus"]["volumes"]
    (assets,) = (word.split("=")[1] for word in command if word.startswith("--web.user-assets"))
    assert f"./docs/alerts.md:{assets}/alerts.md:ro" in volumes
    assert compose["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert source.RUNBOOKS == "http://127.0.0.1:9090/user/alerts.md"
