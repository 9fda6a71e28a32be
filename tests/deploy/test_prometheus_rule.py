import pytest
import yaml

from scripts import prometheus_rule

RULES = """\
# Alerts that page.
groups:
  - name: polymodal-alerts
    rules:
      # No instance answers.
      - alert: NotServing
        expr: |
          up{job="polymodal"}
            == 0

"""


def test_rules_become_prometheus_rules_with_their_comments(tmp_path):
    (tmp_path / "alerts.yml").write_text(RULES)
    files = prometheus_rule.component(tmp_path)
    document = yaml.safe_load(files["alerts.yaml"])
    assert (document["kind"], document["metadata"]["name"]) == ("PrometheusRule", "polymodal-alerts")
    assert document["spec"] == yaml.safe_load(RULES)
    assert "# No instance answers." in files["alerts.yaml"]
    assert yaml.safe_load(files["kustomization.yaml"])["resources"] == ["alerts.yaml"]


@pytest.mark.parametrize(
    ("text", "problem"), [(None, "has no rules"), ("rules: []\n", "no line `groups:`")], ids=["no-file", "no-group"]
)
def test_a_folder_without_rules_is_rejected(tmp_path, text, problem):
    if text:
        (tmp_path / "alerts.yml").write_text(text)
    with pytest.raises(SystemExit, match=problem):
        prometheus_rule.component(tmp_path)


def test_the_component_is_up_to_date_with_the_rules():
    files = {path.name: path.read_text(encoding="utf-8") for path in prometheus_rule.COMPONENT.glob("*.yaml")}
    assert files == prometheus_rule.component(prometheus_rule.RULES), "run `python3 scripts/prometheus_rule.py`"
