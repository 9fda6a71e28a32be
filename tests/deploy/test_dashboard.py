"""The dashboard and the compose profile, as far as they can be checked without Grafana and without Docker."""

import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import promql_parser
import pytest
import yaml

from scripts import dashboard as source
from scripts.observe import fill_in, queries_of

PROJECT = Path(__file__).parents[2]
ROWS = ["At a glance", "Clients", "Queue", "Model", "Machine"]
BUILT_IN_VARIABLES = {"__rate_interval"}
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.fixture(scope="module")
def compose():
    return read("docker-compose.yml")["services"]


@pytest.fixture(scope="module")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def recorded(rules):
    return {rule["record"]: rule["expr"] for rule in rules if "record" in rule}


def read(path):
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8"))


# --- dashboard ---


def test_the_file_is_up_to_date_with_its_script():
    assert source.OUT.read_text(encoding="utf-8") == source.text(), "python scripts/dashboard.py"


def test_the_rows_are_in_order(dashboard):
    assert [panel["title"].split(":")[0] for panel in dashboard["panels"] if panel["type"] == "row"] == ROWS


def test_the_first_row_has_the_overview(dashboard):
    first, second, *_ = (at for at, panel in enumerate(dashboard["panels"]) if panel["type"] == "row")
    titles = {panel["title"] for panel in dashboard["panels"][first + 1 : second]}
    overview = {"Ready", "Alerts firing", "Classifications", "Failed", "Latency", "Utilisation", "Burn of availability"}
    assert overview <= titles


def test_panels_have_unique_ids_and_do_not_overlap(dashboard):
    ids = {panel["id"] for panel in dashboard["panels"]}
    assert len(ids) == len(dashboard["panels"])
    for one, other in combinations(dashboard["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart_in_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_in_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_in_x or apart_in_y, f"{one['title']} overlaps {other['title']}"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])


def test_every_panel_has_a_title_a_description_a_unit_and_rising_thresholds(panels):
    for panel in panels:
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] != "text":
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["unit"], panel["title"]
            first, *steps = defaults["thresholds"]["steps"]
            assert first["value"] is None, panel["title"]
            assert all(lower["value"] < higher["value"] for lower, higher in pairwise(steps)), panel["title"]


def test_every_query_uses_the_selected_data_source(panels):
    for panel in panels:
        if panel["type"] != "text":
            assert all(source["datasource"] == DATA_SOURCE for source in (panel, *panel["targets"])), panel["title"]


def test_the_used_variables_are_the_defined_ones(dashboard):
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - BUILT_IN_VARIABLES
    assert used - {"__all"} == defined


def test_lines_have_legends(panels):
    for panel in panels:
        if panel["type"] == "timeseries":
            assert "__auto" not in [target["legendFormat"] for target in panel["targets"]], panel["title"]


def test_every_query_is_promql(dashboard):
    for query in queries_of(dashboard):
        promql_parser.parse(fill_in(query.expr))


def test_panels_link_to_the_runbooks_of_all_alerts_and_to_no_others(panels, alerts):
    links = {link["url"] for panel in panels for link in panel.get("links", ())}
    assert links == {f"${{runbooks}}#{name.lower()}" for name in alerts}


def test_dashboard_and_rules_have_the_same_definition_of_failed(recorded):
    assert source.COUNTED in recorded["job:polymodal_classifications:rate5m"]
    assert source.FAILED in recorded["job:polymodal_classifications_failed:rate5m"]


def test_colours_change_at_the_objectives(recorded):
    assert recorded["polymodal:availability:objective"] == f"vector({1 - source.FAILURES})"
    assert recorded["polymodal:latency:threshold_seconds"] == f"vector({source.THRESHOLD_S})"


def test_the_dashboard_has_the_schema_and_the_panels_of_grafana_11(dashboard, panels):
    assert dashboard["schemaVersion"] == 39
    assert dashboard["uid"] == "polymodal"
    assert "id" not in dashboard
    kinds = {panel["type"] for panel in panels}
    assert kinds <= {"text", "stat", "bargauge", "table", "timeseries", "heatmap"}


# --- compose ---


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_observability_is_optional_pinned_confined_and_local(compose, name):
    service = compose[name]
    assert service["profiles"] == ["observability"]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["healthcheck"]["test"][0] == "CMD"
    for volume in service["volumes"]:
        if volume.startswith("./"):
            assert volume.endswith(":ro"), volume
            assert (PROJECT / volume.split(":")[0]).exists(), volume


def test_grafana_is_read_only_for_everybody(compose):
    environment = compose["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_grafana_has_the_dashboard_and_prometheus(compose):
    mounted = {volume.split(":")[1] for volume in compose["grafana"]["volumes"]}
    (provider,) = read("deploy/grafana/provisioning/dashboards/polymodal.yml")["providers"]
    folder = provider["options"]["path"]
    assert folder in mounted
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{source.OUT.name}"
    (datasource,) = read("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    scraping = read("deploy/prometheus/prometheus.yml")["global"]
    assert datasource["jsonData"]["timeInterval"] == scraping["scrape_interval"]


def test_prometheus_scrapes_the_service_under_the_name_in_the_rules(compose):
    jobs = {job["job_name"]: job for job in read("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    port = compose["polymodal"]["environment"]["POLYMODAL_PORT"]
    assert jobs["polymodal"]["static_configs"] == [{"targets": [f"polymodal:{port}"]}]


def test_prometheus_serves_the_runbooks_at_the_address_in_alerts_and_dashboard(compose, alerts):
    addresses = {rule["annotations"]["runbook_url"].split("#")[0] for rule in alerts.values()}
    assert addresses == {source.RUNBOOKS} == {"http://127.0.0.1:9090/user/alerts.md"}
    command, volumes = compose["prometheus"]["command"], compose["prometheus"]["volumes"]
    (assets,) = (word.split("=")[1] for word in command if word.startswith("--web.user-assets"))
    assert f"./docs/alerts.md:{assets}/alerts.md:ro" in volumes
    assert compose["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
