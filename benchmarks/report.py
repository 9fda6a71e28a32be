"""Write the measurements into docs/benchmarks.md: the tables, and the plot of latency against load.

python -m benchmarks.report [runs/bench/results.json]
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.servers import PROJECT

PAGE: Final = PROJECT / "docs" / "benchmarks.md"
PLOT: Final = PROJECT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- results: made by make bench -->", "<!-- end of results -->"
RUNTIMES: Final = {
    "torch": ("peers in torch eager", "8"),
    "onnx-int8": ("peers with our own graphs and decoding", "1.5"),
}
"""Description and goal of a comparison with the peers, by their runtime."""

Json = Mapping[str, Any]


def tables(results: Json) -> str:
    """Return the Markdown of all measurements."""
    sections = [_conditions(results["conditions"])]
    if "rounds" in results:
        sections += ["### Summary", _summary(results), "### Throughput and latency", _closed_loop(results["rounds"])]
    if "open" in results:
        sections += ["### Latency and goodput against load", _open_loop(results["open"])]
        sections.append("![Goodput and latency against load](benchmarks.svg)")
    return "\n\n".join(sections)


def _conditions(conditions: Json) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    return (
        f"{conditions['date']}, {conditions['cores']} cores ({conditions['cpu']}), Python {conditions['python']}, "
        f"{versions}; revision `{conditions['revision'][:12]}`."
    )


def _summary(results: Json) -> str:
    rows = [("throughput ÷ the machine's limit", f"{results['summary']['of_limit']:.2f}", "0.97")]
    for runtime, (description, goal) in RUNTIMES.items():
        of_peers: Mapping[str, float] = results["summary"][f"of_peers_{runtime}"]
        if of_peers:
            best = min(of_peers, key=lambda name: of_peers[name])
            rows.append((f"throughput ÷ best of {description}", f"{of_peers[best]:.2f} ({best})", goal))
    if "open" in results:
        rounds = results["open"]
        for arrivals in ("random", "regular"):
            ratio = median(entry[arrivals]["0.8"]["ok_ms"]["p99"] / entry["service_ms"] for entry in rounds)
            name = f"p99 latency at 80 % load ÷ service time of one item, requests at {arrivals} moments"
            rows.append((name, f"{ratio:.1f}", "3"))
        goodput = median(entry["random"]["3.0"]["goodput_per_s"] / entry["capacity_per_s"] for entry in rounds)
        rows.append(("goodput at 300 % load ÷ at capacity", f"{goodput:.2f}", "0.98"))
        refused = median(entry["random"]["3.0"]["refused_ms"]["p99"] for entry in rounds)
        rows.append(("time to refuse at 300 % load, p99", f"{refused:.0f} ms", "10 ms"))
    if "cache" in results:
        ratio = median(entry["ratio"] for entry in results["cache"])
        rows.append(("known pictures with new texts: throughput ÷ without the cache", f"{ratio:.2f}", "5"))
    if "memory" in results:
        memory = results["memory"]
        rows.append(("process start to first answer", f"{memory['ready_s']:.1f} s", "1.5 s"))
        rows.append(("memory (PSS of all processes) when ready", f"{memory['ready_mib']:.0f} MiB", "250 MB"))
        rows.append((f"and after {memory['requests']:,.0f} requests", f"{memory['soaked_mib']:.0f} MiB", "same"))
    return _markdown(("figure", "measured", "goal"), rows)


def _closed_loop(rounds: Sequence[Json]) -> str:
    rows = [("the machine's limit", "–", *_spread(entry["limit_per_s"] for entry in rounds), "–", "–", "–")]
    servers = {"polymodal": [entry["polymodal"] for entry in rounds]}
    for runtime, peers in rounds[0]["peers"].items():
        servers |= {f"{name}, {runtime}": [entry["peers"][runtime][name] for entry in rounds] for name in peers}
    for name, measurements in servers.items():
        for count in measurements[0]["connections"]:
            loops = [measurement["connections"][count] for measurement in measurements]
            latencies = (f"{median(loop[key] for loop in loops):.0f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
            rows.append((name, count, *_spread(loop["per_s"] for loop in loops), *latencies))
    return _markdown(("service", "connections", "answers/s", "lowest … highest", "p50 ms", "p95 ms", "p99 ms"), rows)


def _open_loop(rounds: Sequence[Json]) -> str:
    rows = []
    for arrivals in ("random", "regular"):
        for load in rounds[0][arrivals]:
            loops = [entry[arrivals][load] for entry in rounds]
            answered, refused = (
                sum(loop["answers"].get(status, 0) for loop in loops for status in statuses)
                for statuses in (("200",), ("429", "503"))
            )
            lost = sum(loop["sent"] + loop["not_sent"] for loop in loops) - answered - refused
            rows.append(
                (
                    f"{100 * float(load):.0f} % ({median(loop['offered_per_s'] for loop in loops):.0f}/s)",
                    arrivals,
                    f"{median(loop['goodput_per_s'] for loop in loops):.0f}",
                    _percentiles([loop["ok_ms"] for loop in loops]),
                    _percentiles([loop["refused_ms"] for loop in loops]),
                    f"{answered:,} / {refused:,} / {lost:,}",
                )
            )
    latencies = [f"{kind}: p50 / p95 / p99 ms" for kind in ("answered", "refused")]
    head = ("load", "moments", "answers/s", *latencies, "answered / refused / lost, over all rounds")
    capacity, service = (median(entry[key] for entry in rounds) for key in ("capacity_per_s", "service_ms"))
    return f"Capacity {capacity:.0f}/s; one item takes {service:.1f} ms by itself on one core.\n\n" + _markdown(
        head, rows
    )


def _percentiles(latencies: Sequence[Mapping[str, float]]) -> str:
    measured = [latency for latency in latencies if latency]
    if not measured:
        return "–"
    return " / ".join(f"{median(latency[key] for latency in measured):.0f}" for key in ("p50", "p95", "p99"))


def plot(rounds: Sequence[Json], path: Path) -> None:
    """Draw goodput and latency against load, for requests at random moments."""
    loads = list(rounds[0]["random"])
    shares = [100 * float(load) for load in loads]

    def medians(value: Callable[[Json, Json], float]) -> list[float]:
        return [median(value(entry, entry["random"][load]) for entry in rounds) for load in loads]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    goodput, latency = figure.subplots(1, 2)
    ideal = [min(share, 100.0) for share in shares]
    goodput.plot(shares, ideal, color="0.75", linestyle="--", label="what could be answered")
    measured = medians(lambda entry, loop: 100 * loop["goodput_per_s"] / entry["capacity_per_s"])
    goodput.plot(shares, measured, marker="o", label="answered in time")
    goodput.set(xlabel="load, % of capacity", ylabel="goodput, % of capacity", ylim=(0, None))
    for key in ("p50", "p95", "p99"):
        latency.plot(shares, medians(lambda _, loop, key=key: loop["ok_ms"][key]), marker="o", label=key)
    latency.set(xlabel="load, % of capacity", ylabel="latency of answers, ms", yscale="log")
    latency.set_yticks((20, 50, 100, 200, 500, 1000))
    latency.yaxis.set_major_formatter("{x:.0f}")
    latency.minorticks_off()
    for axes in (goodput, latency):
        axes.grid(alpha=0.3)
        axes.legend()
    with rc_context({"svg.hashsalt": "polymodal", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def _spread(values: Iterable[float]) -> tuple[str, str]:
    ordered = sorted(values)
    return f"{median(ordered):.0f}", f"{ordered[0]:.0f} … {ordered[-1]:.0f}"


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    """Replace the section between the marks."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "runs" / "bench" / "results.json"
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    results = json.loads(source.read_bytes())
    text = tables(results)
    if "open" in results:
        plot(results["open"], PLOT)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
