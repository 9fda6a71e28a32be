"""The benchmark: Polymodal with default settings compared with the machine's limit and with its peers, all in one run.

    python -m benchmarks.run [--out runs/bench] [--seconds 8] [--repeats 3] [--only NAME …]

The measurements are written to OUT/results.json. Rounds are repeated and interleaved, because no machine is equally fast all the
time; every figure is the median of its rounds, and every ratio the median of the rounds' ratios.
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
RUNTIMES = ("torch", "onnx-int8")
LOADS = (0.25, 0.5, 0.8, 1.0, 1.2, 2.0, 3.0)
"""Shares of the capacity at which requests arrive at random moments."""
REGULAR_LOADS = (0.5, 0.8, 1.2, 3.0)
"""Shares of the capacity at which requests arrive at regular moments."""
WARM_UP_S = 2
MEMORY_REQUESTS = 10_000
"""Requests before the second measurement of memory."""


def measure_closed(
    server: Server, bodies: Sequence[Item], cores: int, seconds: float, connections: Iterable[int] = CONNECTIONS
) -> dict[str, Any]:
    """Start a server; return throughput and latency by number of connections."""
    with running(server, bodies, BUNDLE, cores) as service:
        target = server.target(service.port, bodies)
        closed_loop(target, 8, WARM_UP_S)
        loops = {str(count): closed_loop(target, count, seconds) for count in connections}
        return {"ready_s": service.ready_s, "memory_mib": service.memory_mib(), "connections": loops}


def measure_open(bodies: Sequence[Item], cores: int, seconds: float) -> dict[str, Any]:
    """Return Polymodal's latency at shares of its throughput at 32 connections."""
    service_ms = 1000 * service_time(BUNDLE)
    with running(POLYMODAL, bodies, BUNDLE, cores) as service:
        target = POLYMODAL.target(service.port, bodies)
        closed_loop(target, 8, WARM_UP_S)
        capacity = closed_loop(target, 32, seconds)["per_s"]
        return {
            "service_ms": service_ms,
            "capacity_per_s": capacity,
            "random": {str(load): open_loop(target, load * capacity, seconds) for load in LOADS},
            "regular": {str(load): open_loop(target, load * capacity, seconds, regular=True) for load in REGULAR_LOADS},
        }


def measure_cache(bodies: Sequence[Item], cores: int, seconds: float) -> dict[str, float]:
    """Return the throughput for the same images with a new text in every request, with and without the cache."""
    per_s = {}
    for name, size in (("without", "0"), ("with", "100000000")):
        with running(POLYMODAL, bodies, BUNDLE, cores, POLYMODAL_EMBEDDING_CACHE_BYTES=size) as service:
            target = POLYMODAL.target(service.port, bodies)
            closed_loop(target, 8, WARM_UP_S, new_texts=True)
            per_s[name] = closed_loop(target, 32, seconds, new_texts=True)["per_s"]
    return {**per_s, "ratio": per_s["with"] / per_s["without"]}


def measure_memory(bodies: Sequence[Item], cores: int) -> dict[str, float]:
    """Return the time to ready, and the memory when ready and after many requests."""
    with running(POLYMODAL, bodies, BUNDLE, cores) as service:
        ready = service.memory_mib()
        target, sent = POLYMODAL.target(service.port, bodies), 0.0
        while sent < MEMORY_REQUESTS:
            sent += closed_loop(target, 32, 10)["requests"]
        return {"ready_s": service.ready_s, "ready_mib": ready, "soaked_mib": service.memory_mib(), "requests": sent}


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return Polymodal's throughput divided by the limit's and by each peer's."""
    ratios: dict[str, Any] = {"of_limit": median(_best(entry["polymodal"]) / entry["limit_per_s"] for entry in rounds)}
    for runtime in RUNTIMES:
        names = sorted({name for entry in rounds for name in entry["peers"].get(runtime, {})})
        ratios[f"of_peers_{runtime}"] = {
            name: median(_best(entry["polymodal"]) / _best(entry["peers"][runtime][name]) for entry in rounds)
            for name in names
        }
    return ratios


def _best(measured: dict[str, Any]) -> float:
    return max(loop["per_s"] for loop in measured["connections"].values())


def conditions(cores: int) -> dict[str, Any]:
    """Return the machine, the versions, the revision and the date."""
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
    """Measure, print, and write the results after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "runs" / "bench", help="folder for results.json")
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="number of rounds")
    parser.add_argument("--only", nargs="*", default=[], help="of closed, open, cache, memory; default: all")
    options = parser.parse_args()
    selected = options.only or ["closed", "open", "cache", "memory"]
    options.out.mkdir(parents=True, exist_ok=True)
    file, cores, bodies, seconds = options.out / "results.json", available_cpus(), items(), options.seconds
    results: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    results["conditions"] = conditions(cores)

    def save(name: str, value: Any) -> None:  # noqa: ANN401 — JSON
        results[name] = value
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(value)[:400], flush=True)

    if "closed" in selected:
        rounds: list[dict[str, Any]] = []
        for number in range(options.repeats):
            print(f"round {number + 1} of {options.repeats}", flush=True)
            entry: dict[str, Any] = {
                "limit_per_s": throughput(BUNDLE, cores, seconds),
                "polymodal": measure_closed(POLYMODAL, bodies, cores, seconds),
                "peers": {runtime: {} for runtime in RUNTIMES},
            }
            print(f"limit {entry['limit_per_s']:.0f}/s, polymodal {_best(entry['polymodal']):.0f}/s", flush=True)
            for runtime in RUNTIMES:
                for peer in peers(runtime):
                    measured = measure_closed(peer, bodies, cores, seconds, (8, 32))
                    entry["peers"][runtime][peer.name] = measured
                    print(f"{peer.name}, {runtime}: {_best(measured):.0f}/s", flush=True)
            rounds.append(entry)
            save("rounds", rounds)
        save("summary", summary(rounds))
    if "open" in selected:
        save("open", [measure_open(bodies, cores, seconds) for _ in range(options.repeats)])
    if "cache" in selected:
        save("cache", [measure_cache(bodies, cores, seconds) for _ in range(options.repeats)])
    if "memory" in selected:
        save("memory", measure_memory(bodies, cores))


if __name__ == "__main__":
    main()
