"""Write deploy/prometheus/rules/*.yml as PrometheusRules, a kustomize component of deploy/kubernetes, for the Prometheus operator.

The text of the rules, with its comments, is copied unchanged.
"""

import sys
from pathlib import Path

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
COMPONENT = DEPLOY / "kubernetes" / "components" / "prometheus-rule"

HEADER = """\
# Made by scripts/prometheus_rule.py from deploy/prometheus/rules/{name}.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: polymodal-{name}
  labels:
    app.kubernetes.io/name: polymodal
spec:
  groups:
"""
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component

# Needs the Prometheus operator. Where its Prometheus looks for a label, add it
# with a patch: often it is `release`.

resources:
"""


def main() -> None:
    """Replace the files of the component."""
    COMPONENT.mkdir(parents=True, exist_ok=True)
    for path in COMPONENT.iterdir():
        path.unlink()
    for name, text in component(RULES).items():
        (COMPONENT / name).write_text(text, encoding="utf-8")


def component(rules: Path) -> dict[str, str]:
    """Return the files of the component by name. Ends the process when there are no rules."""
    sources = sorted(rules.glob("*.yml"))
    if not sources:
        sys.exit(f"{rules} has no rules (*.yml)")
    files = {f"{path.stem}.yaml": HEADER.format(name=path.stem) + _groups(path) for path in sources}
    return {"kustomization.yaml": KUSTOMIZATION + "".join(f"  - {name}\n" for name in files)} | files


def _groups(path: Path) -> str:
    _, begin, groups = path.read_text(encoding="utf-8").partition("groups:\n")
    if not begin:
        sys.exit(f"{path} has no line `groups:`")
    return "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))


if __name__ == "__main__":
    main()
