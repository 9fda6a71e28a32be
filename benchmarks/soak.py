"""Whether anything grows in a long run: `make soak`, or `SOAK_SECONDS=86400 make soak`.

    python -m benchmarks.soak [--seconds 600] [--share 0.4]

The real service with two workers and default settings gets everything at once, steadily: good questions whose answers are
checked, broken pictures, hostile bodies, batches, clients that leave, probes and scrapes. Memory, descriptors, threads, time of
the processors and latency are sampled every few seconds, and the last window is compared with the first one after the warm-up.
It exits with 1 when anything has grown, was lost or was wrong.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import uvloop
from PIL import Image

from benchmarks.asking import Client, Fate, Load, Question, Tally, capacity, get, known
from benchmarks.bodies import Item, items
from benchmarks.run import BUNDLE, conditions
from benchmarks.servers import FORM, POLYMODAL, Running, processes, running
from polymodal.app.workers.__main__ import NICENESS
from polymodal.cores import available_cpus
from polymodal.model import Network, load_bundle

WORKERS: Final = 2
WARM_UP_S: Final = 30.0
"""Before the first window: memory that is taken once is no growth."""
WINDOW_S: Final = 60.0
"""At the beginning and at the end; less where the run has no two of them."""
SAMPLE_S: Final = 3.0
PIECES: Final = 4
"""Of the yardstick, some 12 ms each: long enough to feel that the machine is busy."""
GROWTH: Final = 1.05
"""The last window's median over the first one's, from which on something has grown, ..."""
CHANCE: Final = 0.01
"""... unless samples that are dealt out to the two windows at random are so far apart more often than this."""
SHUFFLES: Final = 10_000
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen in a few seconds."""

    at_s: float
    memory_mib: float
    """PSS of all processes."""
    descriptors: int
    threads: int
    cpu_ms: float
    """Of all processes, for each answer."""
    p50_ms: float
    """Of good questions, as are the next ones."""
    p95_ms: float
    yardstick_ms: float
    """Of a fixed classification by a model of our own at that time: how slow the machine was."""
    yardstick_cpu_ms: float
    """And of a processor."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that must not grow."""

    name: str
    read: Callable[[Sample], float]
    of_samples: Callable[[Sequence[float]], float] = median
    """What stands for a window."""


QUANTITIES: Final = (
    Quantity("memory, MiB", lambda sample: sample.memory_mib),
    # The lowest, as open connections come and go: what was leaked stays also in the quietest moment.
    Quantity("file descriptors", lambda sample: sample.descriptors, min),
    Quantity("threads", lambda sample: sample.threads, min),
    Quantity("processor time of an answer ÷ yardstick", lambda sample: sample.cpu_ms / sample.yardstick_cpu_ms),
    Quantity("latency p50 ÷ yardstick", lambda sample: sample.p50_ms / sample.yardstick_ms),
    Quantity("latency p95 ÷ yardstick", lambda sample: sample.p95_ms / sample.yardstick_ms),
)
SHOWN: Final = (
    Quantity("processor time of an answer, ms", lambda sample: sample.cpu_ms),
    Quantity("latency p50, ms", lambda sample: sample.p50_ms),
    Quantity("latency p95, ms", lambda sample: sample.p95_ms),
    Quantity("yardstick, ms", lambda sample: sample.yardstick_ms),
    Quantity("yardstick, ms of a processor", lambda sample: sample.yardstick_cpu_ms),
)
"""For a reader only: other work on the machine moves them."""


# --- what is sent ---


def bad_questions(good: Sequence[Question], chance: random.Random) -> list[Question]:
    """Pictures and bodies that must be refused, each with its status."""
    photograph = items(1)[0].image
    cut = [_form(photograph[: len(photograph) * part // 10]) for part in range(2, 9)]
    noise = [_form(b"\xff\xd8\xff" + chance.randbytes(5000)) for _ in range(4)]
    wide = io.BytesIO()
    Image.new("L", (20_000, 10)).save(wide, "PNG")
    broken = [Question(body, status=422) for body in [*cut, *noise, _form(wide.getvalue()), _form(b"")]]
    other = [
        Question(_form(b"GIF89b" + chance.randbytes(200)), status=415),
        Question(_form(chance.randbytes(3000)), status=415),
        Question(b"{" * 100_000, JSON, status=400),
        Question(b'{"text": "' + b"\xff" * 50 + b'"}', JSON, status=400),
        Question(b'{"text": "a", "text": "b"}', JSON, status=400),
        Question(json.dumps({"image": "no base64!"}).encode(), JSON, status=400),
        Question(json.dumps({"text": "a\0b"}).encode(), JSON, status=422),
        Question(json.dumps({"text": "x" * 300_000}).encode(), JSON, status=413),
        Question(b"<a/>", "application/xml", status=415),
        Question(good[0].body[:-40], FORM, status=400),
        Question(b"--x\r\n" * 5000, "multipart/form-data; boundary=x", status=400),
    ]
    return broken + other


def batches() -> list[Question]:
    """Requests of eight items, one of them bad, in JSON."""
    asked = items(14)
    several = [[*map(_as_json, asked[start : start + 7]), {"image": "bm8="}] for start in (0, 7)]
    return [Question(json.dumps({"items": each}).encode(), JSON, "/v1/classify/batch") for each in several]


def _as_json(item: Item) -> dict[str, str]:
    return {"image": base64.b64encode(item.image).decode(), "text": item.text}


def _form(image: bytes) -> bytes:
    boundary = FORM.partition("boundary=")[2]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head.encode() + image + f"\r\n--{boundary}--\r\n".encode()


# --- what is measured ---


def sample(service: Running, began: float, tally: Tally, cpu_s: float, machine: tuple[float, float]) -> Sample:
    """Of all processes at this moment, and of the answers in a tally."""
    alive = processes(service.pid)
    latencies = [1000 * each for each in tally.latencies_s] or [float("nan")]
    return Sample(
        at_s=time.perf_counter() - began,
        memory_mib=service.memory_mib(),
        descriptors=sum(process.num_fds() for process in alive),
        threads=sum(process.num_threads() for process in alive),
        cpu_ms=1000 * cpu_s / max(1, tally.sent),
        p50_ms=float(np.percentile(latencies, 50)),
        p95_ms=float(np.percentile(latencies, 95)),
        yardstick_ms=1000 * machine[0],
        yardstick_cpu_ms=1000 * machine[1],
    )


def cpu_seconds(service: Running) -> float:
    """Of all processes since they began."""
    times = [process.cpu_times() for process in processes(service.pid)]
    return sum(used.user + used.system for used in times)


def yardstick(predictor: Network, item: Item) -> tuple[float, float]:
    """Seconds, and seconds of a processor, of one classification: means of a few, on a thread that is no more urgent than a worker.

    The same work as the service's: neighbours on the machine slow down what needs memory and caches more than mere arithmetic.
    """
    began, cpu = time.perf_counter(), time.thread_time()
    for _ in range(PIECES):
        predictor.predict([predictor.prepare({"image": item.image, "text": item.text})])
    return (time.perf_counter() - began) / PIECES, (time.thread_time() - cpu) / PIECES


def _be_patient() -> None:
    """Linux has niceness by thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


# --- what it means ---


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity at the beginning and at the end."""

    name: str
    first: float
    last: float
    chance: float
    """That windows of the same kind would be so far apart."""

    @property
    def ratio(self) -> float:
        """Of the end to the beginning."""
        return self.last / self.first

    @property
    def grown(self) -> bool:
        """By more than noise and more than a twentieth."""
        return self.ratio > GROWTH and self.chance < CHANCE


def compare(quantity: Quantity, first: Sequence[Sample], last: Sequence[Sample]) -> Finding:
    """Two windows; chance by shuffling, one-sided, with a fixed seed."""
    before, after = [quantity.read(each) for each in first], [quantity.read(each) for each in last]
    gap = quantity.of_samples(after) - quantity.of_samples(before)
    chance, every = np.random.default_rng(0), np.array([*before, *after])
    shuffled = chance.permuted(np.tile(every, (SHUFFLES, 1)), axis=1)
    of_rows = np.median if quantity.of_samples is median else np.min
    gaps = of_rows(shuffled[:, len(before) :], axis=1) - of_rows(shuffled[:, : len(before)], axis=1)
    return Finding(quantity.name, quantity.of_samples(before), quantity.of_samples(after), float((gaps >= gap).mean()))


def windows(samples: Sequence[Sample], seconds: float) -> tuple[list[Sample], list[Sample]]:
    """The first and the last one after the warm-up."""
    warm_up_s, end_s = min(WARM_UP_S, seconds / 4), samples[-1].at_s
    length_s = min(WINDOW_S, (end_s - warm_up_s) / 2)
    first = [each for each in samples if warm_up_s < each.at_s <= warm_up_s + length_s]
    return first, [each for each in samples if each.at_s > end_s - length_s]


def table(findings: Sequence[Finding], shown: Sequence[Finding]) -> str:
    """Markdown."""
    lines = ["| | first window | last window | last ÷ first | by chance | |", "| --- | --- | --- | --- | --- | --- |"]
    for each in (*findings, *shown):
        said = "**grown**" if each.grown and each in findings else "" if each in findings else "for reading"
        lines.append(
            f"| {each.name} | {each.first:.2f} | {each.last:.2f} | {each.ratio:.3f} | {each.chance:.3f} | {said} |"
        )
    return "\n".join(lines)


# --- the run ---


async def soak(service: Running, seconds: float, share: float) -> tuple[list[Sample], Tally, Tally]:
    """Samples, what became of good questions, and of all else."""
    chance = random.Random(0)
    good = await known(service.port, items())
    predictor, (fixed,) = load_bundle(BUNDLE, threads=1), items(1)
    asking, other = Client([service.port]), Client([service.port])
    per_s = share * await capacity(asking, good, 16, 4)
    say(f"{per_s:.0f} good questions per second, and others, for {seconds:.0f} s")
    every_good, every_other, samples = Tally(), Tally(), []
    other.tally = every_other
    bad, many = bad_questions(good, chance), batches()
    began, cpu_s = time.perf_counter(), cpu_seconds(service)
    loop, measuring = asyncio.get_running_loop(), ThreadPoolExecutor(1, initializer=_be_patient)
    async with (
        Load(asking, good, per_s, 1),
        Load(other, bad, per_s / 4, 2),
        Load(other, many, per_s / 80, 3),
        Load(other, good, per_s / 8, 4, drops=1.0),
    ):
        while time.perf_counter() < began + seconds:
            asking.tally = Tally()
            answered = every_other.sent
            await asyncio.sleep(SAMPLE_S)
            for path in ("/livez", "/readyz", "/metrics", "/v1/models", "/openapi.json"):
                await get(service.port, path)
            machine = await loop.run_in_executor(measuring, yardstick, predictor, fixed)
            used_s = cpu_seconds(service)
            whole = Tally(latencies_s=asking.tally.latencies_s)
            whole.fates.update(asking.tally.fates)
            every_good.fates.update(asking.tally.fates)
            every_good.odd += asking.tally.odd
            whole.fates[Fate.DROPPED] += every_other.sent - answered  # they cost time too
            samples.append(sample(service, began, whole, used_s - cpu_s, machine))
            cpu_s = used_s
            if len(samples) % 20 == 0:
                say(f"{samples[-1].at_s:.0f} s: {samples[-1].memory_mib:.0f} MiB, p50 {samples[-1].p50_ms:.0f} ms")
    return samples, every_good, every_other


def say(line: str) -> None:
    """At once, as a run takes long."""
    print(line, flush=True)


def main() -> None:
    """Run, compare, print, and exit with 1 when something grew, was lost or was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument(
        "--share", type=float, default=0.4, help="of the capacity, as good questions; others are half as many"
    )
    chosen = parser.parse_args()
    if chosen.seconds < 12 * SAMPLE_S:
        parser.error(f"--seconds {chosen.seconds:g}; allowed: at least {12 * SAMPLE_S:.0f}, for two windows of samples")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with ExitStack() as stack:
        service = stack.enter_context(running(POLYMODAL, items(1), BUNDLE, WORKERS, POLYMODAL_WORKERS=str(WORKERS)))
        try:
            samples, good, other = uvloop.run(soak(service, chosen.seconds, chosen.share))
        except KeyboardInterrupt:
            raise SystemExit("interrupted; the service is being stopped") from None
    first, last = windows(samples, chosen.seconds)
    told = conditions(available_cpus())
    say(f"\n{told['date']}, {told['cores']} cores ({told['cpu']}), revision {told['revision'][:12]}")
    say(f"{samples[-1].at_s:.0f} s; windows of {len(first)} and {len(last)} samples\n")
    findings = [compare(each, first, last) for each in QUANTITIES]
    say(table(findings, [compare(each, first, last) for each in SHOWN]))
    for name, tally in (("good questions", good), ("others", other)):
        counts = ", ".join(f"{number} {fate.value}" for fate, number in tally.fates.items())
        say(f"\n{name}: {counts}" + "".join(f"\n  {each}" for each in tally.odd[:5]))
    bad = sum(tally.fates[fate] for tally in (good, other) for fate in (Fate.LOST, Fate.WRONG))
    if grown := [each.name for each in findings if each.grown]:
        say(f"\ngrown by more than {100 * GROWTH - 100:.0f} %: {', '.join(grown)}")
    if bad:
        say(f"\n{bad} lost or wrong")
    sys.exit(bool(grown or bad))


if __name__ == "__main__":
    main()
