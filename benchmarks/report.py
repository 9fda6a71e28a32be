"""Write what was measured into docs/benchmarks.md: the table, the peers, latency against load.

python -m benchmarks.report [runs/bench/results.json]
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.servers import PROJECT

PAGE: Final = PROJECT / "docs" / "benchmarks.md"
PLOT: Final = PROJECT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- results: made by make bench -->", "<!-- end of results -->"


def tables(results: Mapping[str, Any]) -> str:
    """Markdown of everything that was measured."""
    parts = [_conditions(results["conditions"])]
    if "rounds" in results:
        parts += ["### Summary", _summary(results), "### Throughput and latency", _closed(results["rounds"])]
    if "open" in results:
        parts += ["### Latency and goodput against load", _open(results["open"])]
        parts.append("![Goodput and latency against load](benchmarks.svg)")
    return "\n\n".join(parts)


def _conditions(told: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {each}" for name, each in told["versions"].items())
    return (
        f"{told['date']}, {told['cores']} cores ({told['cpu']}), Python {told['python']}, {versions}; "
        f"revision `{told['revision'][:12]}`."
    )


def _summary(results: Mapping[str, Any]) -> str:
    rows = [("throughput ÷ the machine's limit", f"{results['summary']['of_limit']:.2f}", "0.97")]
    goals = {"torch": "8", "onnx-int8": "1.5"}
    words = {"torch": "peers in torch eager", "onnx-int8": "peers with our own graphs and decoding"}
    for runtime, goal in goals.items():
        of_peers: Mapping[str, float] = results["summary"][f"of_peers_{runtime}"]
        if of_peers:
            best = min(of_peers, key=lambda name: of_peers[name])
            rows.append((f"throughput ÷ best of {words[runtime]}", f"{of_peers[best]:.2f} ({best})", goal))
    if "open" in results:
        rounds = results["open"]
        for arrivals in ("random", "regular"):
            slow = median(each[arrivals]["0.8"]["ok_ms"]["p99"] / each["service_ms"] for each in rounds)
            what = f"p99 latency at 80 % load ÷ service time of one item, requests at {arrivals} moments"
            rows.append((what, f"{slow:.1f}", "3"))
        goodput = median(each["random"]["3.0"]["goodput_per_s"] / each["capacity_per_s"] for each in rounds)
        rows.append(("goodput at 300 % load ÷ at capacity", f"{goodput:.2f}", "0.98"))
        refused = median(each["random"]["3.0"]["refused_ms"]["p99"] for each in rounds)
        rows.append(("time to refuse at 300 % load, p99", f"{refused:.0f} ms", "10 ms"))
    if "cache" in results:
        ratio = median(each["ratio"] for each in results["cache"])
        rows.append(("known pictures with new texts: throughput ÷ without the cache", f"{ratio:.2f}", "5"))
    if "memory" in results:
        memory = results["memory"]
        rows.append(("process start to first answer", f"{memory['ready_s']:.1f} s", "1.5 s"))
        rows.append(("memory (PSS of all processes) when ready", f"{memory['ready_mib']:.0f} MiB", "250 MB"))
        rows.append((f"and after {memory['requests']:,.0f} requests", f"{memory['soaked_mib']:.0f} MiB", "same"))
    return _table(("figure", "measured", "goal"), rows)


def _closed(rounds: list[Mapping[str, Any]]) -> str:
    rows = [("the machine's limit", "–", *_spread(each["limit_per_s"] for each in rounds), "–", "–", "–")]
    for name, pick in _servers(rounds).items():
        for count in pick(rounds[0])["connections"]:
            told = [pick(each)["connections"][count] for each in rounds]
            latencies = (f"{median(each[key] for each in told):.0f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
            rows.append((name, count, *_spread(each["per_s"] for each in told), *latencies))
    return _table(("service", "connections", "answers/s", "lowest … highest", "p50 ms", "p95 ms", "p99 ms"), rows)


def _servers(rounds: list[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"polymodal": lambda each: each["polymodal"]}
    for runtime, peers in rounds[0]["peers"].items():
        for name in peers:
            found[f"{name}, {runtime}"] = lambda each, runtime=runtime, name=name: each["peers"][runtime][name]
    return found


def _open(rounds: list[Mapping[str, Any]]) -> str:
    rows = []
    for arrivals in ("random", "regular"):
        for load in rounds[0][arrivals]:
            told = [each[arrivals][load] for each in rounds]
            answered = sum(each["answers"].get("200", 0) for each in told)
            refused = sum(sum(each["answers"].get(status, 0) for status in ("429", "503")) for each in told)
            sent = sum(each["sent"] + each["not_sent"] for each in told)
            rows.append(
                (
                    f"{100 * float(load):.0f} % ({median(each['offered_per_s'] for each in told):.0f}/s)",
                    arrivals,
                    f"{median(each['goodput_per_s'] for each in told):.0f}",
                    _percentiles([each["ok_ms"] for each in told]),
                    _percentiles([each["refused_ms"] for each in told]),
                    f"{answered:,} / {refused:,} / {sent - answered - refused:,}",
                )
            )
    head = (
        "load",
        "moments",
        "answers/s",
        "answered: p50 / p95 / p99 ms",
        "refused: p50 / p95 / p99 ms",
        "answered / refused / lost, over all rounds",
    )
    capacity = median(each["capacity_per_s"] for each in rounds)
    service = median(each["service_ms"] for each in rounds)
    return f"Capacity {capacity:.0f}/s; one item takes {service:.1f} ms by itself on one core.\n\n" + _table(head, rows)


def _percentiles(told: list[Mapping[str, float]]) -> str:
    known = [each for each in told if each]
    return " / ".join(f"{median(each[key] for each in known):.0f}" for key in ("p50", "p95", "p99")) if known else "–"


def plot(rounds: list[Mapping[str, Any]], path: Path) -> None:
    """Goodput and latency against load, requests at random moments."""
    loads = list(rounds[0]["random"])
    shares = [100 * float(load) for load in loads]

    def medians(pick: Callable[[Mapping[str, Any]], float]) -> list[float]:
        return [
            median(pick({**each["random"][load], "capacity": each["capacity_per_s"]}) for each in rounds)
            for load in loads
        ]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    goodput, latency = figure.subplots(1, 2)
    goodput.plot(
        shares, [min(share, 100.0) for share in shares], color="0.75", linestyle="--", label="what could be answered"
    )
    goodput.plot(
        shares,
        medians(lambda told: 100 * told["goodput_per_s"] / told["capacity"]),
        marker="o",
        label="answered in time",
    )
    goodput.set(xlabel="load, % of capacity", ylabel="goodput, % of capacity", ylim=(0, None))
    for key in ("p50", "p95", "p99"):
        latency.plot(shares, medians(lambda told, key=key: told["ok_ms"][key]), marker="o", label=key)
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
    found = sorted(values)
    return f"{median(found):.0f}", f"{found[0]:.0f} … {found[-1]:.0f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    """Replace what stands between the marks."""
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
