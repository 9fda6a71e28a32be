"""The benchmark: Polymodal with its default settings against the machine's limit and against its peers, all in one run.

    python -m benchmarks.run [--out runs/bench] [--seconds 8] [--repeats 3] [--only NAME …]

What it measured goes to OUT/results.json. Rounds are repeated and interleaved, as no machine is equally quick all the time; every
figure is the median of its rounds, and every ratio the median of the rounds' ratios.
"""

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bodies import Item, items
from benchmarks.limit import service_time, throughput
from benchmarks.load import closed_loop, open_loop
from benchmarks.servers import POLYMODAL, PROJECT, Server, peers, running
from polymodal.cores import available_cpus
from polymodal.model import processor

BUNDLE = PROJECT / "model" / "bundles" / "illustrations"
CONNECTIONS = (1, 8, 32)
LOADS = (0.25, 0.5, 0.8, 1.0, 1.2, 2.0, 3.0)
"""Shares of the capacity at which requests arrive at random moments."""
REGULAR_LOADS = (0.5, 0.8, 1.2, 3.0)
"""And at regular ones."""
WARM_UP_S = 2
SOAKED = 10_000


def measured_closed(
    server: Server, asked: Sequence[Item], cores: int, seconds: float, connections: Iterable[int] = CONNECTIONS
) -> dict[str, Any]:
    """Throughput and latency by number of connections, of a server of its own."""
    with running(server, asked, BUNDLE, cores) as service:
        target = server.target(service.port, asked)
        closed_loop(target, 8, WARM_UP_S)
        rounds = {str(count): closed_loop(target, count, seconds) for count in connections}
        return {"ready_s": service.ready_s, "memory_mib": service.memory_mib(), "connections": rounds}


def measured_open(asked: Sequence[Item], cores: int, seconds: float) -> dict[str, Any]:
    """Polymodal at shares of what it does at 32 connections."""
    service_ms = 1000 * service_time(BUNDLE)
    with running(POLYMODAL, asked, BUNDLE, cores) as service:
        target = POLYMODAL.target(service.port, asked)
        closed_loop(target, 8, WARM_UP_S)
        capacity = closed_loop(target, 32, seconds)["per_s"]
        return {
            "service_ms": service_ms,
            "capacity_per_s": capacity,
            "random": {str(load): open_loop(target, load * capacity, seconds) for load in LOADS},
            "regular": {str(load): open_loop(target, load * capacity, seconds, regular=True) for load in REGULAR_LOADS},
        }


def measured_cache(asked: Sequence[Item], cores: int, seconds: float) -> dict[str, float]:
    """The same pictures with a new text in every request, with and without the cache."""
    found = {}
    for name, size in (("without", "0"), ("with", "100000000")):
        with running(POLYMODAL, asked, BUNDLE, cores, POLYMODAL_EMBEDDING_CACHE_BYTES=size) as service:
            target = POLYMODAL.target(service.port, asked)
            closed_loop(target, 8, WARM_UP_S, new_texts=True)
            found[name] = closed_loop(target, 32, seconds, new_texts=True)["per_s"]
    return {**found, "ratio": found["with"] / found["without"]}


def measured_memory(asked: Sequence[Item], cores: int) -> dict[str, float]:
    """From start to ready, and memory then and after many requests."""
    with running(POLYMODAL, asked, BUNDLE, cores) as service:
        ready = service.memory_mib()
        target, answered = POLYMODAL.target(service.port, asked), 0.0
        while answered < SOAKED:
            answered += closed_loop(target, 32, 10)["requests"]
        return {
            "ready_s": service.ready_s,
            "ready_mib": ready,
            "soaked_mib": service.memory_mib(),
            "requests": answered,
        }


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The table's ratios, from whatever was measured."""
    rounds = results["rounds"]
    ratios: dict[str, Any] = {"of_limit": median(_ratio(each, each["limit_per_s"]) for each in rounds)}
    for runtime in ("torch", "onnx-int8"):
        names = sorted({name for each in rounds for name in each["peers"].get(runtime, {})})
        of_peers = {
            name: median(_ratio(each, _best(each["peers"][runtime][name])) for each in rounds) for name in names
        }
        ratios[f"of_peers_{runtime}"] = of_peers
    return ratios


def _best(measured: dict[str, Any]) -> float:
    return max(each["per_s"] for each in measured["connections"].values())


def _ratio(each: dict[str, Any], other: float) -> float:
    return _best(each["polymodal"]) / other


def conditions(cores: int) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = processor()
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False)
    return {
        "cpu": ", ".join([cpu.name, *cpu.dot_products]),
        "cores": cores,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("onnxruntime", "fastapi", "uvicorn", "pillow", "numpy")},
        "revision": revision.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Measure, say what was found, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "runs" / "bench")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the comparison")
    parser.add_argument("--only", nargs="*", default=[], help="closed, open, cache, memory; all without it")
    chosen = parser.parse_args()
    parts = chosen.only or ["closed", "open", "cache", "memory"]
    chosen.out.mkdir(parents=True, exist_ok=True)
    file, cores, asked = chosen.out / "results.json", available_cpus(), items()
    results: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    results["conditions"] = conditions(cores)

    def keep(name: str, found: Any) -> None:  # noqa: ANN401 — JSON
        results[name] = found
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found)[:400], flush=True)

    if "closed" in parts:
        rounds: list[dict[str, Any]] = []
        for number in range(chosen.repeats):
            print(f"round {number + 1} of {chosen.repeats}", flush=True)
            each: dict[str, Any] = {
                "limit_per_s": throughput(BUNDLE, cores, chosen.seconds),
                "polymodal": measured_closed(POLYMODAL, asked, cores, chosen.seconds),
                "peers": {},
            }
            print(f"limit {each['limit_per_s']:.0f}/s, polymodal {_best(each['polymodal']):.0f}/s", flush=True)
            for runtime in ("torch", "onnx-int8"):
                each["peers"][runtime] = {}
                for peer in peers(runtime):
                    found = measured_closed(peer, asked, cores, chosen.seconds, (8, 32))
                    each["peers"][runtime][peer.name] = found
                    print(f"{peer.name}, {runtime}: {_best(found):.0f}/s", flush=True)
            rounds.append(each)
            keep("rounds", rounds)
        keep("summary", summary(results))
    if "open" in parts:
        keep("open", [measured_open(asked, cores, chosen.seconds) for _ in range(chosen.repeats)])
    if "cache" in parts:
        keep("cache", [measured_cache(asked, cores, chosen.seconds) for _ in range(chosen.repeats)])
    if "memory" in parts:
        keep("memory", measured_memory(asked, cores))


if __name__ == "__main__":
    main()
