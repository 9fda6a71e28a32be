"""Does the dashboard answer, and do the alerts fire? What the tests and docs/alerts.md ask a real Prometheus for.

python scripts/observe.py check http://127.0.0.1:9090            # each query of each panel: what does it return?
python scripts/observe.py draw http://127.0.0.1:9090 now.png     # the panels' own queries, drawn without Grafana
python scripts/observe.py shorten build/prometheus --by 60 --target 127.0.0.1:8000   # hours become minutes
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "polymodal.json"
PROMETHEUS: Final = DEPLOY / "prometheus"

# --- shorter windows ---

MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION: Final = r"(\d+)(ms|s|m|h|d|w)"
_WINDOW: Final = re.compile(
    rf"(?P<before>\[|\boffset |\bfor: |\binterval: |_interval: |keep_firing_for: ){_DURATION}(?![\w])"
)


def shortened(text: str, factor: float) -> str:
    """Rules or a configuration with every window, wait and interval divided; names such as :rate5m stay."""

    def shorter(found: re.Match[str]) -> str:
        milliseconds = round(int(found[2]) * MILLISECONDS[found[3]] / factor)
        if not milliseconds:
            raise ValueError(f"{found[0]} ÷ {factor}: nothing is left; allowed: a millisecond or more")
        return f"{found['before']}{milliseconds}ms"

    return _WINDOW.sub(shorter, text)


def write_shortened(folder: Path, factor: float, target: str) -> None:
    """A copy of deploy/prometheus that scrapes this target and lives faster, by the same rules."""
    for path in PROMETHEUS.rglob("*.yml"):
        text = shortened(path.read_text(encoding="utf-8"), factor).replace("polymodal:8000", target)
        copy = folder / path.relative_to(PROMETHEUS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")


# --- the dashboard's queries ---


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one panel."""

    panel: str
    kind: str
    unit: str
    expr: str
    legend: str
    now: bool


def queries(dashboard: Mapping[str, Any]) -> Iterator[Asked]:
    """Of all panels, in their order, with their variables."""
    for panel in dashboard["panels"]:
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
        for target in panel.get("targets", ()):
            yield Asked(panel["title"], panel["type"], unit, target["expr"], target["legendFormat"], target["instant"])


def filled_in(expr: str, rate_interval: str = "1m", **variables: str) -> str:
    """With values in the place of variables, as Grafana would put them; everything unless told otherwise."""
    values = {"job": "polymodal", "instance": ".*", "model": ".*", **variables, "__rate_interval": rate_interval}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str, **parameters: Any) -> Any:  # noqa: ANN401 — JSON
        """The data of an answer of its HTTP interface. Raises RuntimeError."""
        given = {name: value for name, value in parameters.items() if value is not None}
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=given, timeout=30, trust_env=False).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{parameters}: {answer['error']}")
        return answer["data"]

    def now(self, expr: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Labels and values."""
        data = self.ask("query", query=expr, time=at)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def course(self, expr: str, start: float, end: float, step: float) -> list[tuple[dict[str, str], Any]]:
        """Labels, and pairs of a time and a value."""
        data = self.ask("query_range", query=expr, start=start, end=end, step=step)
        return [(each["metric"], [(at, float(value)) for at, value in each["values"]]) for each in data["result"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


def answers(prometheus: Prometheus, dashboard: Mapping[str, Any], rate_interval: str) -> Iterator[tuple[Asked, int]]:
    """How many series with a number each query returns, all at this moment."""
    at = time.time()
    for asked in queries(dashboard):
        found = prometheus.now(filled_in(asked.expr, rate_interval), at)
        yield asked, sum(value == value for _, value in found)  # noqa: PLR0124 — NaN is no number


def check(prometheus: Prometheus, rate_interval: str) -> bool:
    """Say what each query returns, and whether all return something."""
    silent = 0
    for asked, series in answers(prometheus, load(), rate_interval):
        silent += not series
        say(f"{series or 'NOTHING':>7}  {asked.panel}: {asked.legend}" + ("" if series else f"\n         {asked.expr}"))
    say(f"{silent} queries return nothing" if silent else "every query returns data")
    return not silent


def load() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


# --- drawn without Grafana ---

DRAWN: Final = (
    "Classifications",
    "Failed",
    "Latency",
    "Burn",
    "Where the time goes",
    "Requests by status",
    "Waiting",
    "Utilisation",
    "Examples without an answer",
    "Mean time of an example",
    "Workers",
    "Processor",
)
"""The panels that a picture has room for."""


def draw(prometheus: Prometheus, out: Path, rate_interval: str, seconds: float, step: float) -> None:
    """The course of some panels' queries as a PNG; its title says that this is not Grafana."""
    import matplotlib as mpl  # noqa: PLC0415 — slow, and only here

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels: dict[str, list[Asked]] = {}
    for asked in queries(load()):
        panels.setdefault(asked.panel, []).append(asked)
    end = time.time()
    figure, places = plt.subplots(4, 3, figsize=(13, 11), layout="constrained")
    for title, place in zip(DRAWN, places.flat, strict=True):
        asked_here = panels[title]
        for asked in asked_here:
            for labels, values in prometheus.course(filled_in(asked.expr, rate_interval), end - seconds, end, step):
                name = re.sub(r"{{(\w+)}}", lambda found, said=labels: said.get(found[1], ""), asked.legend)  # type: ignore[misc]
                place.plot([at - end for at, _ in values], [value for _, value in values], label=name, linewidth=1.2)
        place.set_title(f"{title} ({asked_here[0].unit})", fontsize=9)
        place.set_ylim(bottom=0)
        place.tick_params(labelsize=7)
        place.legend(fontsize=6, loc="upper left")
    moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(end))
    figure.suptitle(
        f"The dashboard's queries, answered by a real Prometheus and drawn by scripts/observe.py (not Grafana);"
        f" seconds before {moment}",
        fontsize=10,
    )
    figure.savefig(out, dpi=72, pil_kwargs={"optimize": True})


# --- the command ---


def say(line: str) -> None:
    """At once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "draw"):
        command = commands.add_parser(name)
        command.add_argument("url", help="of Prometheus")
        command.add_argument("--rate-interval", default="1m", help="in the place of $__rate_interval: four scrapes")
    command.add_argument("out", type=Path, help="a PNG")
    command.add_argument("--seconds", type=float, default=3600, help="until now")
    command.add_argument("--step", type=float, default=15, help="seconds between two points")
    command = commands.add_parser("shorten")
    command.add_argument("folder", type=Path)
    command.add_argument("--by", type=float, required=True, metavar="FACTOR")
    command.add_argument("--target", required=True, metavar="HOST:PORT", help="of the service")
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "check":
            return 0 if check(Prometheus(chosen.url), chosen.rate_interval) else 1
        case "draw":
            draw(Prometheus(chosen.url), chosen.out, chosen.rate_interval, chosen.seconds, chosen.step)
        case "shorten":
            write_shortened(chosen.folder, chosen.by, chosen.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
