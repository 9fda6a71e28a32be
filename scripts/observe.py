"""Check and draw the dashboard's queries against a running Prometheus, and shorten the rules for tests.

python scripts/observe.py check http://127.0.0.1:9090            # print what each query of each panel returns
python scripts/observe.py draw http://127.0.0.1:9090 now.png     # draw the panels' own queries without Grafana
python scripts/observe.py shorten build/prometheus --by 60 --target 127.0.0.1:8000   # hours become minutes
"""

import argparse
import json
import math
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
_WINDOW: Final = re.compile(
    r"(?P<before>\[|\boffset |\bfor: |\binterval: |_interval: |keep_firing_for: )(\d+)(ms|s|m|h|d|w)(?![\w])"
)


def shorten(text: str, factor: float) -> str:
    """Divide every window, wait and interval of rules or a configuration; names such as :rate5m stay."""

    def shorter(match: re.Match[str]) -> str:
        milliseconds = round(int(match[2]) * MILLISECONDS[match[3]] / factor)
        if not milliseconds:
            raise ValueError(f"{match[0]} ÷ {factor}: nothing is left; allowed: a millisecond or more")
        return f"{match['before']}{milliseconds}ms"

    return _WINDOW.sub(shorter, text)


def write_shortened(folder: Path, factor: float, target: str) -> None:
    """Write a copy of deploy/prometheus that scrapes this target, with shortened windows."""
    for path in PROMETHEUS.rglob("*.yml"):
        text = shorten(path.read_text(encoding="utf-8"), factor).replace("polymodal:8000", target)
        copy = folder / path.relative_to(PROMETHEUS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")


# --- the dashboard's queries ---


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel."""

    panel: str
    unit: str
    expr: str
    legend: str


def queries_of(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Yield the queries of all panels, in order, with their variables."""
    for panel in dashboard["panels"]:
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
        for target in panel.get("targets", ()):
            yield Query(panel["title"], unit, target["expr"], target["legendFormat"])


def fill_in(expr: str, rate_interval: str = "1m") -> str:
    """Replace Grafana's variables by patterns for everything."""
    values = {"job": "polymodal", "instance": ".*", "model": ".*", "__rate_interval": rate_interval}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: Any) -> Any:  # noqa: ANN401 — JSON
        """Return the data of a response of its HTTP API. Raises RuntimeError."""
        parameters = {name: value for name, value in parameters.items() if value is not None}
        response = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30, trust_env=False).json()
        if response["status"] != "success":
            raise RuntimeError(f"{parameters}: {response['error']}")
        return response["data"]

    def now(self, expr: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series."""
        data = self.get("query", query=expr, time=at)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def course(self, expr: str, start: float, end: float, step: float) -> list[tuple[dict[str, str], Any]]:
        """Return labels and pairs of time and value of each series."""
        data = self.get("query_range", query=expr, start=start, end=end, step=step)
        return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in data["result"]]

    def firing(self) -> set[str]:
        """Return the names of the firing alerts."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"}


def count_series(prometheus: Prometheus, rate_interval: str) -> Iterator[tuple[Query, int]]:
    """Yield the dashboard's queries with the number of series that have a value at this moment."""
    at = time.time()
    for query in queries_of(load()):
        series = prometheus.now(fill_in(query.expr, rate_interval), at)
        yield query, sum(not math.isnan(value) for _, value in series)


def check(prometheus: Prometheus, rate_interval: str) -> bool:
    """Print the number of series of each query; return whether all queries have data."""
    empty = 0
    for query, series in count_series(prometheus, rate_interval):
        empty += not series
        line = f"{series or 'NOTHING':>7}  {query.panel}: {query.legend}"
        sys.stdout.write(f"{line}\n" if series else f"{line}\n         {query.expr}\n")
    sys.stdout.write(f"{empty} queries return nothing\n" if empty else "every query returns data\n")
    return not empty


def load() -> dict[str, Any]:
    """Return the dashboard."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return dashboard


# --- drawing without Grafana ---

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
"""The panels that are drawn, in a grid of 4 × 3."""


def draw(prometheus: Prometheus, out: Path, rate_interval: str, seconds: float, step: float) -> None:
    """Draw the queries of some panels over time as a PNG; its title states that this is not Grafana."""
    import matplotlib as mpl  # noqa: PLC0415 — slow, and only needed here

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels: dict[str, list[Query]] = {}
    for query in queries_of(load()):
        panels.setdefault(query.panel, []).append(query)
    end = time.time()
    figure, grid = plt.subplots(4, 3, figsize=(13, 11), layout="constrained")
    for title, axes in zip(DRAWN, grid.flat, strict=True):
        for query in panels[title]:
            for labels, values in prometheus.course(fill_in(query.expr, rate_interval), end - seconds, end, step):
                name = re.sub(r"{{(\w+)}}", lambda match, labels=labels: labels.get(match[1], ""), query.legend)  # type: ignore[misc]
                axes.plot([at - end for at, _ in values], [value for _, value in values], label=name, linewidth=1.2)
        axes.set_title(f"{title} ({panels[title][0].unit})", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6, loc="upper left")
    moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(end))
    figure.suptitle(
        "The dashboard's queries, answered by a real Prometheus and drawn by scripts/observe.py (not Grafana);"
        f" seconds before {moment}",
        fontsize=10,
    )
    figure.savefig(out, dpi=72, pil_kwargs={"optimize": True})


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "draw"):
        command = commands.add_parser(name)
        command.add_argument("url", help="of Prometheus")
        command.add_argument("--rate-interval", default="1m", help="replaces $__rate_interval: four scrapes")
    command.add_argument("out", type=Path, help="a PNG")
    command.add_argument("--seconds", type=float, default=3600, help="length of the time axis, until now")
    command.add_argument("--step", type=float, default=15, help="seconds between two points")
    command = commands.add_parser("shorten")
    command.add_argument("folder", type=Path)
    command.add_argument("--by", type=float, required=True, metavar="FACTOR")
    command.add_argument("--target", required=True, metavar="HOST:PORT", help="of the service")
    options = parser.parse_args(arguments)
    match options.command:
        case "check":
            return 0 if check(Prometheus(options.url), options.rate_interval) else 1
        case "draw":
            draw(Prometheus(options.url), options.out, options.rate_interval, options.seconds, options.step)
        case "shorten":
            write_shortened(options.folder, options.by, options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
