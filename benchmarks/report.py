"""Write what was measured into docs/benchmarks.md: the table, the peers, latency against load.

python -m benchmarks.report [runs/bench/results.json]
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.servers import PROJECT

PAGE: Final = PROJECT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: made by make bench -->", "<!-- end of results -->"


def tables(results: Mapping[str, Any]) -> str:
    """Markdown of everything that was measured."""
    parts = [_conditions(results["conditions"])]
    if "rounds" in results:
        parts += ["### Summary", _summary(results), "### Throughput and latency", _closed(results["rounds"])]
    if "open" in results:
        parts += ["### Latency and goodput against load", _open(results["open"])]
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
        loads = results["open"]["loads"]
        p99 = loads["0.8"]["ok_ms"]["p99"]
        rows.append(("p99 latency at 80 % load ÷ service time of one item", f"{p99 / results['service_ms']:.1f}", "3"))
        goodput = loads["3.0"]["goodput_per_s"] / results["open"]["capacity_per_s"]
        rows.append(("goodput at 300 % load ÷ at capacity", f"{goodput:.2f}", "0.98"))
        refused = loads["3.0"]["refused_ms"].get("p99")
        rows.append(("time to refuse at 300 % load, p99", "–" if refused is None else f"{refused:.0f} ms", "10 ms"))
    if "cache" in results:
        rows.append(
            ("known pictures with new texts: throughput ÷ without the cache", f"{results['cache']['ratio']:.2f}", "5")
        )
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


def _open(told: Mapping[str, Any]) -> str:
    rows = []
    for load, each in told["loads"].items():
        ok, refused = each["ok_ms"], each["refused_ms"]
        rows.append(
            (
                f"{100 * float(load):.0f} % ({each['offered_per_s']:.0f}/s)",
                f"{each['goodput_per_s']:.0f}",
                " / ".join(f"{ok[key]:.0f}" for key in ("p50", "p95", "p99")) if ok else "–",
                " / ".join(f"{refused[key]:.0f}" for key in ("p50", "p95", "p99")) if refused else "–",
                ", ".join(f"{count:,} × {status}" for status, count in each["answers"].items()),
            )
        )
    head = (
        "load",
        "answers/s",
        "answered: p50 / p95 / p99 ms",
        "refused: p50 / p95 / p99 ms",
        "by status (0: no connection)",
    )
    return f"Capacity {told['capacity_per_s']:.0f}/s.\n\n" + _table(head, rows)


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
    text = tables(json.loads(source.read_bytes()))
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
