"""Break things while the service is under load, and count what clients notice: `make chaos`.

    python -m benchmarks.chaos [--seed 0] [--share 0.5] [--only NAME …]

The real service with two workers and default settings gets a steady load of questions whose right answers are known. No request may
be lost, no answer wrong, and all workers must be back after each fault; else it exits with 1.
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import uvloop

from benchmarks.asking import Client, Fate, Load, Question, Tally, capacity, get, known
from benchmarks.bodies import Item, items
from benchmarks.run import BUNDLE, conditions
from benchmarks.servers import POLYMODAL, Running, running
from polymodal.cores import available_cpus

WORKERS: Final = 2
POLL_S: Final = 0.1
"""Between looks at /readyz and /metrics."""
NOTICE_S: Final = 20.0
"""Seconds that a fault may take to be reported and repaired; then it counts as never."""
AT_ONCE_S: Final = 3.0
"""That a service may take to end after a second SIGTERM: it ends its workers, and says goodbye."""
DAY_S: Final = 86_400
FAKETIME: Final = "libfaketime.so.1"


class Skipped(Exception):
    """What this machine can't do, and why."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the service said of itself at one moment."""

    at: float
    ready: int
    """Status of /readyz; 0 when nobody answered."""
    workers: int

    @property
    def well(self) -> bool:
        """As if nothing had happened."""
        return self.ready == 200 and self.workers == WORKERS


class Watch:
    """Looks at a service all the time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.looks: list[Look] = []

    async def __aenter__(self) -> "Watch":
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        await asyncio.wait((self._looking,))

    async def _look(self) -> None:
        while True:
            at = time.perf_counter()
            ready, metrics = await get(self._port, "/readyz"), await get(self._port, "/metrics")
            found = re.search(rb"^polymodal_workers (\d+)", metrics.body, re.MULTILINE) if metrics else None
            self.looks.append(Look(at, ready.status if ready else 0, int(found[1]) if found else 0))
            await asyncio.sleep(POLL_S)

    async def until(self, condition: Callable[[Look], bool], since: float) -> float:
        """Seconds from `since` to the first look that meets the condition; NaN when none does in time."""
        seen = 0
        while time.perf_counter() < since + NOTICE_S:
            for look in self.looks[seen:]:
                if look.at >= since and condition(look):
                    return look.at - since
            seen = len(self.looks)
            await asyncio.sleep(POLL_S / 2)
        return math.nan

    async def reported_and_back(self, since: float) -> tuple[float, float]:
        """Seconds until it said that something is wrong, and until all was well again."""
        reported = await self.until(lambda look: not look.well, since)
        if math.isnan(reported):
            return reported, reported
        return reported, reported + await self.until(lambda look: look.well, since + reported)


@dataclass(slots=True)
class Row:
    """One fault, and what was seen of it."""

    name: str
    tally: Tally = field(default_factory=Tally)
    reported_s: float | None = None
    back_s: float | None = None
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What must not be, beside lost and wrong."""
    skipped: str = ""

    def saw(self, reported_s: float, back_s: float) -> None:
        """The longest of several times; NaN (never) is longer than any."""
        self.reported_s, self.back_s = _longer(self.reported_s, reported_s), _longer(self.back_s, back_s)
        if math.isnan(reported_s) or math.isnan(back_s):
            self.broken.append(f"not noticed or not repaired within {NOTICE_S:.0f} s")


def _longer(one: float | None, other: float) -> float:
    return other if one is None or math.isnan(other) or other > one else one


@dataclass(slots=True)
class Scene:
    """What faults are made of."""

    stack: ExitStack
    asked: Sequence[Item]
    chance: random.Random
    place: Path
    """A folder of our own; in it, the folder `disk` for the service's temporary files."""
    no_disk: str
    """Why `disk` is no small file system, where it could not be."""
    client: Client
    questions: Sequence[Question]
    per_s: float
    """What the service can do."""
    service: Running

    async def start(self, *, port: int | None = None, **environ: str) -> Running:
        """Another one; returns when it answers."""
        service = running(POLYMODAL, self.asked, BUNDLE, WORKERS, port=port, **settings(self.place), **environ)
        return await asyncio.to_thread(self.stack.enter_context, service)

    def stop(self, service: Running) -> None:
        """SIGTERM."""
        self.client.leaving[service.port] = service.output
        os.kill(service.pid, signal.SIGTERM)

    def worker(self) -> int:
        """Any of them."""
        return self.chance.choice(self.service.workers)


def settings(place: Path) -> dict[str, str]:
    """Of the service: those by default, two workers whatever the machine."""
    return {"POLYMODAL_WORKERS": str(WORKERS), "TMPDIR": str(place / "disk")}


# --- the faults ---


async def calm(scene: Scene, row: Row) -> None:
    """Nothing happens."""
    await asyncio.sleep(5)


async def kill_workers(scene: Scene, row: Row) -> None:
    """Three times, at random moments."""
    async with Watch(scene.service.port) as watch:
        for _ in range(3):
            await asyncio.sleep(scene.chance.uniform(0.3, 1.5))
            since = time.perf_counter()
            os.kill(scene.worker(), signal.SIGKILL)
            row.saw(*await watch.reported_and_back(since))


async def kill_all_workers(scene: Scene, row: Row) -> None:
    """Both at once: what comes meanwhile is refused."""
    async with Watch(scene.service.port) as watch:
        await asyncio.sleep(0.5)
        since = time.perf_counter()
        for pid in scene.service.workers:
            os.kill(pid, signal.SIGKILL)
        row.saw(*await watch.reported_and_back(since))


async def freeze_for_a_while(scene: Scene, row: Row) -> None:
    """SIGSTOP, and SIGCONT before or after anybody noticed."""
    async with Watch(scene.service.port) as watch:
        for seconds in (0.5, 4.0):
            since, pid = time.perf_counter(), scene.worker()
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            replaced = pid not in scene.service.workers
            if not replaced:
                os.kill(pid, signal.SIGCONT)
            reported = next(
                (
                    f"reported after {look.at - since:.1f} s"
                    for look in watch.looks
                    if look.at > since and not look.well
                ),
                "not reported",
            )
            row.notes.append(f"{seconds} s: {reported}, {'replaced' if replaced else 'waited for'}")
            continued = time.perf_counter()
            row.back_s = _longer(row.back_s, await watch.until(lambda look: look.well, continued + POLL_S))


async def freeze_for_good(scene: Scene, row: Row) -> None:
    """SIGSTOP, and nothing more: the service must notice by itself."""
    async with Watch(scene.service.port) as watch:
        await asyncio.sleep(0.5)
        since, pid = time.perf_counter(), scene.worker()
        os.kill(pid, signal.SIGSTOP)
        row.saw(*await watch.reported_and_back(since))
        if pid in scene.service.workers:
            row.notes.append("killed by us, to go on")
            os.kill(pid, signal.SIGKILL)
            await watch.until(lambda look: look.well, time.perf_counter() + 1)


async def fill_the_disk(scene: Scene, row: Row) -> None:
    """No byte is left in the folder for temporary files, while requests come and a worker must start again."""
    if scene.no_disk:
        raise Skipped(scene.no_disk)
    disk = scene.place / "disk"
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    row.notes.append(f"{os.statvfs(disk).f_bavail} bytes left")
    async with Watch(scene.service.port) as watch:
        await asyncio.sleep(2)
        since = time.perf_counter()
        os.kill(scene.worker(), signal.SIGKILL)
        row.saw(*await watch.reported_and_back(since))
    filler.unlink()
    if left := [path.name for path in disk.iterdir()]:
        row.broken.append(f"the service left {', '.join(left)} behind")


async def overload(scene: Scene, row: Row) -> None:
    """Three times of what it can do for 5 s: it refuses, and is as before at once."""
    async with Watch(scene.service.port) as watch:
        async with Load(scene.client, scene.questions, 3 * scene.per_s, scene.chance.randrange(2**32)):
            await asyncio.sleep(5)
        since = time.perf_counter()
        worst = max(
            (after.at - before.at for before, after in zip(watch.looks, watch.looks[1:], strict=False)), default=0
        )
        row.notes.append(f"longest time between two looks at the probes {worst:.2f} s")
        row.back_s = await watch.until(lambda look: look.well, since)
    await asyncio.sleep(1)


async def drop_clients(scene: Scene, row: Row) -> None:
    """Clients that leave, as many as stay."""
    async with Load(scene.client, scene.questions, scene.per_s / 2, scene.chance.randrange(2**32), drops=1.0):
        await asyncio.sleep(6)


async def hand_over(scene: Scene, row: Row) -> None:
    """SIGTERM when a second instance is ready; clients ask the first one until it refuses."""
    old, scene.service = scene.service, await scene.start()
    scene.client.ports = [old.port, scene.service.port]
    async with Watch(old.port) as watch:
        since = time.perf_counter()
        scene.stop(old)
        row.reported_s = await watch.until(lambda look: look.ready != 200, since)
        await _ended(row, old, since, expected=0)
    scene.client.ports = [scene.service.port]
    await asyncio.sleep(2)


async def move_the_clock(scene: Scene, row: Row) -> None:
    """A day forwards and backwards, by libfaketime, under which another instance takes over first."""
    if (library := _faketime()) is None:
        raise Skipped("no libfaketime here (Debian: apt-get install faketime)")
    clock = scene.place / "clock"
    clock.write_text("+0\n")
    preload = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    old, scene.service = scene.service, await scene.start(**preload, FAKETIME_DONT_FAKE_MONOTONIC="1")
    scene.client.ports = [scene.service.port]
    scene.stop(old)
    workers = sorted(scene.service.workers)
    async with Watch(scene.service.port) as watch:
        for offset_s in (DAY_S, -DAY_S, 0):
            clock.write_text(f"{offset_s:+d}\n")
            await asyncio.sleep(2)
            probe = await get(scene.service.port, "/livez")
            row.notes.append(f"{offset_s:+d} s: {probe.headers['date'] if probe else 'no answer'}")
        row.back_s = await watch.until(lambda look: look.well, time.perf_counter())
    if workers != sorted(scene.service.workers):
        row.broken.append("workers were replaced")


async def stop_at_once(scene: Scene, row: Row) -> None:
    """SIGTERM, and another one while much is inside, which is given up: its clients get an error, and send again elsewhere."""
    old, scene.service = scene.service, await scene.start()
    burst = [asyncio.create_task(scene.client.ask(question)) for question in scene.questions[:40]]
    await asyncio.sleep(0.1)
    scene.client.ports = [old.port, scene.service.port]
    since = time.perf_counter()
    scene.stop(old)
    await asyncio.sleep(0.05)
    scene.stop(old)
    if await _ended(row, old, since) > AT_ONCE_S:
        row.broken.append(f"a second SIGTERM does not stop it within {AT_ONCE_S} s")
    scene.client.ports = [scene.service.port]
    await asyncio.wait(burst)


async def restart_in_place(scene: Scene, row: Row) -> None:
    """SIGTERM, and a new process at the same port: clients whose connections are refused meanwhile try again."""
    old = scene.service
    since = time.perf_counter()
    scene.stop(old)
    await _ended(row, old, since, expected=0)
    scene.service = await scene.start(port=old.port)
    del scene.client.leaving[old.port]
    row.back_s = time.perf_counter() - since
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
    """Seconds until a process has ended, which whoever started it will learn too."""
    until = since + NOTICE_S + 10
    while time.perf_counter() < until:
        if end := _end_of(service.pid):
            took = time.perf_counter() - since
            row.notes.append(f"ended after {took:.1f} s with {end.si_status}")
            if expected is not None and end.si_status != expected:
                row.broken.append(f"ended with {end.si_status}; allowed: {expected}")
            return took
        await asyncio.sleep(0.02)
    row.broken.append("did not end")
    return math.inf


def _end_of(pid: int) -> os.waitid_result | None:
    """How a child has ended, if it has."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)


def _faketime() -> Path | None:
    return next((path for root in ("/usr/lib", "/usr/local/lib") for path in Path(root).rglob(FAKETIME)), None)


# --- around them ---


@contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """A file system of 1 MiB at this folder until the block ends; why not, where that is not allowed."""
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


async def chaos(stack: ExitStack, place: Path, no_disk: str, chosen: argparse.Namespace) -> list[Row]:
    """Every fault in its turn, under a steady load."""
    asked, chance = items(), random.Random(chosen.seed)
    service = await asyncio.to_thread(
        stack.enter_context, running(POLYMODAL, asked, BUNDLE, WORKERS, **settings(place))
    )
    questions = await known(service.port, asked)
    client = Client([service.port])
    per_s = await capacity(client, questions, 16, 4)
    say(
        f"{len(questions)} questions; capacity {per_s:.0f}/s with this client beside it; steady load {chosen.share * per_s:.0f}/s"
    )
    scene = Scene(stack, asked, chance, place, no_disk, client, questions, per_s, service)
    rows: list[Row] = []
    async with Load(client, questions, chosen.share * per_s, chosen.seed):
        for name in chosen.only or FAULTS:
            row = Row(name)
            rows.append(row)
            client.tally = row.tally
            began = time.perf_counter()
            try:
                await FAULTS[name](scene, row)
            except Skipped as reason:
                row.skipped = str(reason)
            say(f"{name}: {time.perf_counter() - began:.0f} s" + (f", skipped: {row.skipped}" if row.skipped else ""))
    rows.append(last := Row("afterwards, one by one"))
    client.tally = last.tally
    for question in questions:
        await client.ask(question)
    metrics = await get(scene.service.port, "/metrics")
    for gauge in ("polymodal_requests_inside", "polymodal_queue_length"):
        if metrics is None or f"\n{gauge} 0.0\n" not in metrics.body.decode():
            last.broken.append(f"{gauge} is not 0")
    if last.tally.fates[Fate.RIGHT] != len(questions):
        last.broken.append("not every question has its right answer")
    return rows


def say(line: str) -> None:
    """At once, as a run takes minutes."""
    print(line, flush=True)


def table(rows: Sequence[Row]) -> str:
    """One line for each fault, and one for all, in Markdown."""
    head = [
        "fault",
        "sent",
        *(fate.value for fate in Fate),
        "tried again",
        "unread",
        "p50 / p99 ms",
        "reported after s",
        "well after s",
        "notes",
    ]
    every = Tally()
    for row in rows:
        every.fates.update(row.tally.fates)
        every.retries += row.tally.retries
        every.unread += row.tally.unread
        every.not_sent += row.tally.not_sent
        every.latencies_s += row.tally.latencies_s
    lines = [_cells(head), _cells(["---"] * len(head))]
    lines += [_line(row) for row in rows]
    lines.append(_line(Row("all", every, notes=[f"{every.not_sent} not sent" if every.not_sent else ""])))
    return "\n".join(lines)


def _line(row: Row) -> str:
    latencies = "–"
    if row.tally.latencies_s:
        latencies = " / ".join(f"{1000 * np.percentile(row.tally.latencies_s, each):.0f}" for each in (50, 99))
    said = (
        [f"skipped: {row.skipped}"]
        if row.skipped
        else [*row.notes, *(f"**{each}**" for each in dict.fromkeys(row.broken))]
    )
    counts = [str(row.tally.fates[fate]) for fate in Fate]
    times = [_seconds(row.reported_s), _seconds(row.back_s)]
    return _cells(
        [
            row.name,
            str(row.tally.sent),
            *counts,
            str(row.tally.retries),
            str(row.tally.unread),
            latencies,
            *times,
            "; ".join(filter(None, said)),
        ]
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else "never" if math.isnan(value) else f"{value:.1f}"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def verdict(rows: Sequence[Row]) -> list[str]:
    """Everything that must not be, a line each."""
    found = []
    for row in rows:
        bad = {fate.value: row.tally.fates[fate] for fate in (Fate.LOST, Fate.WRONG) if row.tally.fates[fate]}
        if bad:
            counts = ", ".join(f"{number} {fate}" for fate, number in bad.items())
            found.append(f"{row.name}: {counts}: {'; '.join(row.tally.odd[:3])}")
        found += [f"{row.name}: {each}" for each in dict.fromkeys(row.broken)]
    return found


def main() -> None:
    """Break things, print the table, and exit with 1 when anything was lost, wrong or stayed broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of moments, workers and questions")
    parser.add_argument("--share", type=float, default=0.5, help="of the capacity, as steady load")
    parser.add_argument(
        "--only", nargs="*", choices=FAULTS, default=[], metavar="FAULT", help=f"of: {'; '.join(FAULTS)}"
    )
    chosen = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )  # ends the same way, and stops what was started
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        (place / "disk").mkdir()
        no_disk = stack.enter_context(small_disk(place / "disk"))
        try:
            rows = uvloop.run(chaos(stack, place, no_disk, chosen))
        except KeyboardInterrupt:
            raise SystemExit("interrupted; all that was started is being stopped") from None
    machine = conditions(available_cpus())
    say(
        f"\n{machine['date']}, {machine['cores']} cores ({machine['cpu']}), "
        f"revision {machine['revision'][:12]}, seed {chosen.seed}\n"
    )
    say(table(rows))
    if broken := verdict(rows):
        say("\n" + "\n".join(broken))
        sys.exit(1)
    say("\nnothing lost, nothing wrong, and all was well again")


if __name__ == "__main__":
    main()
