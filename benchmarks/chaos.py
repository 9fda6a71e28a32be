"""Inject faults while the service is under load, and count the effects on clients: `make chaos`.

    python -m benchmarks.chaos [--seed 0] [--share 0.5] [--only NAME …]

The service with two workers and default settings gets a steady load of requests with known scores. No request may be lost, no
response wrong, and all workers must be back after each fault; otherwise the exit code is 1.
"""

import argparse
import asyncio
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import uvloop

from benchmarks.bodies import Item, items
from benchmarks.client import Client, Load, Request, Result, Tally, capacity, get, record_requests
from benchmarks.run import BUNDLE, conditions
from benchmarks.servers import POLYMODAL, Running, running
from polymodal.cores import available_cpus

WORKERS: Final = 2
POLL_S: Final = 0.1
"""Between requests for /readyz and /metrics."""
REPAIR_S: Final = 20.0
"""Limit for a fault to be reported, and for it to be repaired."""
FAST_STOP_S: Final = 3.0
"""Limit for the service to end after a second SIGTERM."""
DAY_S: Final = 86_400
FAKETIME: Final = "libfaketime.so.1"

log = partial(print, flush=True)


class Skipped(Exception):
    """A fault that this machine can't inject, with the reason."""


@dataclass(frozen=True, slots=True)
class State:
    """State of the service at one moment, from its probes and metrics."""

    at: float
    ready: int
    """Status code of /readyz; 0 without a response."""
    workers: int

    @property
    def healthy(self) -> bool:
        """Whether it is ready with all workers."""
        return self.ready == 200 and self.workers == WORKERS


class Monitor:
    """Polls the state of a service while the context is open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.states: list[State] = []

    async def __aenter__(self) -> "Monitor":
        self._polling = asyncio.create_task(self._poll())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._polling.cancel()
        await asyncio.wait((self._polling,))

    async def _poll(self) -> None:
        while True:
            at = time.perf_counter()
            ready, metrics = await get(self._port, "/readyz"), await get(self._port, "/metrics")
            workers = re.search(rb"^polymodal_workers (\d+)", metrics.body, re.MULTILINE) if metrics else None
            self.states.append(State(at, ready.status if ready else 0, int(workers[1]) if workers else 0))
            await asyncio.sleep(POLL_S)

    async def until(self, condition: Callable[[State], bool], since: float) -> float:
        """Return the seconds from `since` to the first state that meets the condition; NaN when none does in time."""
        seen = 0
        while time.perf_counter() < since + REPAIR_S:
            for state in self.states[seen:]:
                if state.at >= since and condition(state):
                    return state.at - since
            seen = len(self.states)
            await asyncio.sleep(POLL_S / 2)
        return math.nan

    async def report_and_recovery(self, since: float) -> tuple[float, float]:
        """Return the seconds until the service reported the fault, and until it was healthy again."""
        reported = await self.until(lambda state: not state.healthy, since)
        if math.isnan(reported):
            return reported, reported
        return reported, reported + await self.until(lambda state: state.healthy, since + reported)


@dataclass(slots=True)
class Row:
    """A fault and its effects."""

    name: str
    tally: Tally = field(default_factory=Tally)
    reported_s: float | None = None
    recovered_s: float | None = None
    notes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """Violations in addition to lost and wrong responses."""
    skipped: str = ""

    def add_times(self, reported_s: float, recovered_s: float) -> None:
        """Keep the longest of several times; NaN (never) is longer than any."""
        self.reported_s, self.recovered_s = _longer(self.reported_s, reported_s), _longer(self.recovered_s, recovered_s)
        if math.isnan(reported_s) or math.isnan(recovered_s):
            self.violations.append(f"not reported or not repaired within {REPAIR_S:.0f} s")


def _longer(first: float | None, second: float) -> float:
    return second if first is None or math.isnan(second) or second > first else first


@dataclass(slots=True)
class Scene:
    """The service under test, its clients and the resources of the faults."""

    stack: ExitStack
    items: Sequence[Item]
    rng: random.Random
    folder: Path
    """A temporary folder with the folder `disk`, which has the service's temporary files."""
    no_disk: str
    """Why `disk` is not a small file system; empty if it is."""
    client: Client
    requests: Sequence[Request]
    per_s: float
    """Capacity of the service."""
    service: Running

    async def start(self, *, port: int | None = None, **environ: str) -> Running:
        """Start another instance, and return when it answers."""
        service = running(POLYMODAL, self.items, BUNDLE, WORKERS, port=port, **settings(self.folder), **environ)
        return await asyncio.to_thread(self.stack.enter_context, service)

    def stop(self, service: Running) -> None:
        """Send SIGTERM."""
        self.client.terminating[service.port] = service.output
        os.kill(service.pid, signal.SIGTERM)

    def worker(self) -> int:
        """Return the id of a random worker."""
        return self.rng.choice(self.service.workers)


def settings(folder: Path) -> dict[str, str]:
    """Return the service's settings: the defaults, but two workers on every machine."""
    return {"POLYMODAL_WORKERS": str(WORKERS), "TMPDIR": str(folder / "disk")}


# --- the faults ---


async def calm(scene: Scene, row: Row) -> None:
    """No fault."""
    await asyncio.sleep(5)


async def kill_workers(scene: Scene, row: Row) -> None:
    """Kill a worker three times, at random moments."""
    async with Monitor(scene.service.port) as monitor:
        for _ in range(3):
            await asyncio.sleep(scene.rng.uniform(0.3, 1.5))
            since = time.perf_counter()
            os.kill(scene.worker(), signal.SIGKILL)
            row.add_times(*await monitor.report_and_recovery(since))


async def kill_all_workers(scene: Scene, row: Row) -> None:
    """Kill both workers at the same time: requests are refused meanwhile."""
    async with Monitor(scene.service.port) as monitor:
        await asyncio.sleep(0.5)
        since = time.perf_counter()
        for pid in scene.service.workers:
            os.kill(pid, signal.SIGKILL)
        row.add_times(*await monitor.report_and_recovery(since))


async def freeze_for_a_while(scene: Scene, row: Row) -> None:
    """SIGSTOP, then SIGCONT before and after the service notices."""
    async with Monitor(scene.service.port) as monitor:
        for seconds in (0.5, 4.0):
            since, pid = time.perf_counter(), scene.worker()
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            replaced = pid not in scene.service.workers
            if not replaced:
                os.kill(pid, signal.SIGCONT)
            unhealthy = (state.at - since for state in monitor.states if state.at > since and not state.healthy)
            reported = next((f"reported after {after_s:.1f} s" for after_s in unhealthy), "not reported")
            row.notes.append(f"{seconds} s: {reported}, {'replaced' if replaced else 'waited for'}")
            recovered_s = await monitor.until(lambda state: state.healthy, time.perf_counter() + POLL_S)
            row.recovered_s = _longer(row.recovered_s, recovered_s)


async def freeze_for_good(scene: Scene, row: Row) -> None:
    """SIGSTOP without SIGCONT: the service must replace the worker."""
    async with Monitor(scene.service.port) as monitor:
        await asyncio.sleep(0.5)
        since, pid = time.perf_counter(), scene.worker()
        os.kill(pid, signal.SIGSTOP)
        row.add_times(*await monitor.report_and_recovery(since))
        if pid in scene.service.workers:
            row.notes.append("killed by this test, to continue")
            os.kill(pid, signal.SIGKILL)
            await monitor.until(lambda state: state.healthy, time.perf_counter() + 1)


async def fill_the_disk(scene: Scene, row: Row) -> None:
    """Fill the folder for temporary files, and kill a worker, which must start again without disk space."""
    if scene.no_disk:
        raise Skipped(scene.no_disk)
    disk = scene.folder / "disk"
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    row.notes.append(f"{os.statvfs(disk).f_bavail} bytes left")
    async with Monitor(scene.service.port) as monitor:
        await asyncio.sleep(2)
        since = time.perf_counter()
        os.kill(scene.worker(), signal.SIGKILL)
        row.add_times(*await monitor.report_and_recovery(since))
    filler.unlink()
    if left := [path.name for path in disk.iterdir()]:
        row.violations.append(f"the service left {', '.join(left)} behind")


async def overload(scene: Scene, row: Row) -> None:
    """Send three times the capacity for 5 s: the service refuses the excess, and is healthy immediately afterwards."""
    async with Monitor(scene.service.port) as monitor:
        async with Load(scene.client, scene.requests, 3 * scene.per_s, scene.rng.randrange(2**32)):
            await asyncio.sleep(5)
        since = time.perf_counter()
        longest = max((after.at - before.at for before, after in pairwise(monitor.states)), default=0)
        row.notes.append(f"longest time between two probes {longest:.2f} s")
        row.recovered_s = await monitor.until(lambda state: state.healthy, since)
    await asyncio.sleep(1)


async def drop_clients(scene: Scene, row: Row) -> None:
    """Half of the clients hang up."""
    async with Load(scene.client, scene.requests, scene.per_s / 2, scene.rng.randrange(2**32), drops=1.0):
        await asyncio.sleep(6)


async def hand_over(scene: Scene, row: Row) -> None:
    """SIGTERM when a second instance is ready; clients send to the first one until it refuses."""
    old, scene.service = scene.service, await scene.start()
    scene.client.ports = [old.port, scene.service.port]
    async with Monitor(old.port) as monitor:
        since = time.perf_counter()
        scene.stop(old)
        row.reported_s = await monitor.until(lambda state: state.ready != 200, since)
        await _ended(row, old, since, expected=0)
    scene.client.ports = [scene.service.port]
    await asyncio.sleep(2)


async def move_the_clock(scene: Scene, row: Row) -> None:
    """Move the clock of an instance under libfaketime a day forwards and backwards."""
    if (library := _faketime()) is None:
        raise Skipped("libfaketime is not installed (Debian: apt-get install faketime)")
    clock = scene.folder / "clock"
    clock.write_text("+0\n")
    preload = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    old, scene.service = scene.service, await scene.start(**preload, FAKETIME_DONT_FAKE_MONOTONIC="1")
    scene.client.ports = [scene.service.port]
    scene.stop(old)
    workers = sorted(scene.service.workers)
    async with Monitor(scene.service.port) as monitor:
        for offset_s in (DAY_S, -DAY_S, 0):
            clock.write_text(f"{offset_s:+d}\n")
            await asyncio.sleep(2)
            probe = await get(scene.service.port, "/livez")
            row.notes.append(f"{offset_s:+d} s: {probe.headers['date'] if probe else 'no answer'}")
        row.recovered_s = await monitor.until(lambda state: state.healthy, time.perf_counter())
    if workers != sorted(scene.service.workers):
        row.violations.append("workers were replaced")


async def stop_at_once(scene: Scene, row: Row) -> None:
    """Two SIGTERM while requests are inside: they are given up, and their clients retry at another instance."""
    old, scene.service = scene.service, await scene.start()
    burst = [asyncio.create_task(scene.client.send(request)) for request in scene.requests[:40]]
    await asyncio.sleep(0.1)
    scene.client.ports = [old.port, scene.service.port]
    since = time.perf_counter()
    scene.stop(old)
    await asyncio.sleep(0.05)
    scene.stop(old)
    if await _ended(row, old, since) > FAST_STOP_S:
        row.violations.append(f"a second SIGTERM does not stop it within {FAST_STOP_S} s")
    scene.client.ports = [scene.service.port]
    await asyncio.wait(burst)


async def restart_in_place(scene: Scene, row: Row) -> None:
    """SIGTERM, and a new process at the same port: clients whose connections are refused meanwhile retry."""
    old = scene.service
    since = time.perf_counter()
    scene.stop(old)
    await _ended(row, old, since, expected=0)
    scene.service = await scene.start(port=old.port)
    del scene.client.terminating[old.port]
    row.recovered_s = time.perf_counter() - since
    await asyncio.sleep(2)


FAULTS: Final[dict[str, Callable[[Scene, Row], Awaitable[None]]]] = {
    "calm": calm,
    "kill -9 of a worker, 3 times": kill_workers,
    "kill -9 of all workers": kill_all_workers,
    "SIGSTOP, later SIGCONT": freeze_for_a_while,
    "SIGSTOP for good": freeze_for_good,
    "full disk, and kill -9": fill_the_disk,
    "three times the load": overload,
    "clients that leave": drop_clients,
    "SIGTERM, another instance": hand_over,
    "clock a day off": move_the_clock,
    "two SIGTERM": stop_at_once,
    "SIGTERM, again at its port": restart_in_place,
}


async def _ended(row: Row, service: Running, since: float, expected: int | None = None) -> float:
    """Return the seconds until a process has ended, without reaping it."""
    while time.perf_counter() < since + REPAIR_S + 10:
        end = os.waitid(os.P_PID, service.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)  # noqa: ASYNC222 — WNOHANG: no wait
        if end:
            elapsed_s = time.perf_counter() - since
            row.notes.append(f"ended after {elapsed_s:.1f} s with {end.si_status}")
            if expected is not None and end.si_status != expected:
                row.violations.append(f"ended with {end.si_status}; allowed: {expected}")
            return elapsed_s
        await asyncio.sleep(0.02)
    row.violations.append("did not end")
    return math.inf


def _faketime() -> Path | None:
    return next((path for root in ("/usr/lib", "/usr/local/lib") for path in Path(root).rglob(FAKETIME)), None)


# --- the run ---


@contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Mount a file system of 1 MiB at this folder; yield the reason where that is not possible, else an empty string."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        yield "only root may mount a small file system"
        return
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "chaos", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield f"no small file system: {done.stderr.strip()}"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def chaos(stack: ExitStack, folder: Path, no_disk: str, options: argparse.Namespace) -> list[Row]:
    """Inject the faults one after another under a steady load; return their effects."""
    bodies = items()
    service = await asyncio.to_thread(
        stack.enter_context, running(POLYMODAL, bodies, BUNDLE, WORKERS, **settings(folder))
    )
    requests, client = await record_requests(service.port, bodies), Client([service.port])
    per_s = await capacity(client, requests, 16, 4)
    log(f"{len(requests)} requests; capacity {per_s:.0f}/s with this client; steady load {options.share * per_s:.0f}/s")
    rng = random.Random(options.seed)
    scene = Scene(stack, bodies, rng, folder, no_disk, client, requests, per_s, service)
    rows: list[Row] = []
    async with Load(client, requests, options.share * per_s, options.seed):
        for name in options.only or FAULTS:
            row = Row(name)
            rows.append(row)
            client.tally = row.tally
            started = time.perf_counter()
            try:
                await FAULTS[name](scene, row)
            except Skipped as reason:
                row.skipped = str(reason)
            log(f"{name}: {time.perf_counter() - started:.0f} s" + (f", skipped: {row.skipped}" if row.skipped else ""))
    rows.append(last := Row("afterwards, one by one"))
    client.tally = last.tally
    for request in requests:
        await client.send(request)
    metrics = await get(scene.service.port, "/metrics")
    for gauge in ("polymodal_requests_inside", "polymodal_queue_length"):
        if metrics is None or f"\n{gauge} 0.0\n" not in metrics.body.decode():
            last.violations.append(f"{gauge} is not 0")
    if last.tally.results[Result.RIGHT] != len(requests):
        last.violations.append("not every request has the right response")
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return Markdown with a line for each fault and one for the total."""
    head = ["fault", "sent", *(result.value for result in Result), "tried again", "unread", "p50 / p99 ms"]
    head += ["reported after s", "well after s", "notes"]
    total = Tally()
    for row in rows:
        total.results.update(row.tally.results)
        total.retries += row.tally.retries
        total.unread += row.tally.unread
        total.not_sent += row.tally.not_sent
        total.latencies_s += row.tally.latencies_s
    notes = [f"{total.not_sent} not sent"] if total.not_sent else []
    lines = [head, ["---"] * len(head), *map(_cells, [*rows, Row("all", total, notes=notes)])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    latencies = "–"
    if row.tally.latencies_s:
        latencies = " / ".join(
            f"{1000 * latency_s:.0f}" for latency_s in np.percentile(row.tally.latencies_s, (50, 99))
        )
    notes = [*row.notes, *(f"**{violation}**" for violation in dict.fromkeys(row.violations))]
    if row.skipped:
        notes = [f"skipped: {row.skipped}"]
    counts = [row.tally.sent, *(row.tally.results[result] for result in Result), row.tally.retries, row.tally.unread]
    times = [_seconds(row.reported_s), _seconds(row.recovered_s)]
    return [row.name, *map(str, counts), latencies, *times, "; ".join(notes)]


def _seconds(value: float | None) -> str:
    return "–" if value is None else "never" if math.isnan(value) else f"{value:.1f}"


def violations(rows: Sequence[Row]) -> list[str]:
    """Return a line for each fault with lost or wrong responses, and for each other violation."""
    lines = []
    for row in rows:
        bad = [result for result in (Result.LOST, Result.WRONG) if row.tally.results[result]]
        if bad:
            counts = ", ".join(f"{row.tally.results[result]} {result.value}" for result in bad)
            lines.append(f"{row.name}: {counts}: {'; '.join(row.tally.errors[:3])}")
        lines += [f"{row.name}: {violation}" for violation in dict.fromkeys(row.violations)]
    return lines


def main() -> None:
    """Inject the faults and print the table; exit with 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of moments, workers and requests")
    parser.add_argument("--share", type=float, default=0.5, help="steady load as a share of the capacity")
    parser.add_argument(
        "--only", nargs="*", choices=FAULTS, default=[], metavar="FAULT", help=f"of: {'; '.join(FAULTS)}"
    )
    options = parser.parse_args()
    # SIGTERM ends the run like Ctrl-C, so that the started services are stopped.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "disk").mkdir()
        no_disk = stack.enter_context(small_disk(folder / "disk"))
        try:
            rows = uvloop.run(chaos(stack, folder, no_disk, options))
        except KeyboardInterrupt:
            raise SystemExit("interrupted; the started services are being stopped") from None
    machine = conditions(available_cpus())
    log(
        f"\n{machine['date']}, {machine['cores']} cores ({machine['cpu']}), "
        f"revision {machine['revision'][:12]}, seed {options.seed}\n"
    )
    log(table(rows))
    if lines := violations(rows):
        log("\n" + "\n".join(lines))
        sys.exit(1)
    log("\nnothing lost, nothing wrong, and all was well again")


if __name__ == "__main__":
    main()
