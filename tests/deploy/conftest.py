"""Contents of deploy/, parsed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "deploy" / "prometheus" / "rules"


@pytest.fixture(scope="session")
def promtool():
    """Path of Prometheus' tool that checks rules."""
    if not (program := shutil.which("promtool")):
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return program


@pytest.fixture(scope="session")
def rules():
    """All recording rules and alerts."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules):
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


@pytest.fixture(scope="session")
def dashboard():
    """The dashboard's JSON."""
    path = PROJECT / "deploy" / "grafana" / "dashboards" / "polymodal.json"
    return json.loads(path.read_text(encoding="utf-8"))
