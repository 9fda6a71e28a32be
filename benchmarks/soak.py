"""Check that nothing grows in a long run: `make soak`, or `SOAK_SECONDS=86400 make soak`.

    python -m benchmarks.soak [--seconds 600] [--share 0.4]

The service with two workers and default settings gets a steady mix of requests: good ones whose responses are checked, broken
images, hostile bodies, batches, clients that hang up, probes and scrapes. Memory, descriptors, threads, processor time and
latency are sampled every few seconds, and the last window is compared with the first one after the warm-up. The exit code is 1
when anything has grown, was lost or was wrong.
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
from functools import partial
from statistics import median
from typing import Final

import numpy as np
import uvloop
from PIL import Image

from benchmarks.bodies import BOUNDARY, Item, items
from benchmarks.client import Client, Load, Request, Result, Tally, capacity, get, record_requests
from benchmarks.run import BUNDLE, conditions
from benchmarks.servers import FORM, POLYMODAL, Running, processes, running
from polymodal.app.workers.__main__ import NICENESS
from polymodal.cores import available_cpus
from polymodal.model import Network, load_bundle

WORKERS: Final = 2
WARM_UP_S: Final = 30.0
"""Before the first window, because memory that is allocated once is no growth."""
WINDOW_S: Final = 60.0
"""Length of the first and of the last window; shorter where the run is too short for two of them."""
SAMPLE_S: Final = 3.0
PIECES: Final = 4
"""Number of pieces of the yardstick; one takes about 12 ms, long enough to show that the machine is busy."""
GROWTH: Final = 1.05
"""A quantity has grown when the last window's median divided by the first one's is above this, ..."""
P_VALUE: Final = 0.01
"""... and when random permutations of the samples give such a difference less often than this."""
PERMUTATIONS: Final = 10_000
JSON: Final = "application/json"

log = partial(print, flush=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of a few seconds."""

    at_s: float
    memory_mib: float
    """PSS of all processes."""
    descriptors: int
    threads: int
    cpu_ms: float
    """Processor time of all processes, per response."""
    p50_ms: float
    """Latency of the good requests, as p95_ms."""
    p95_ms: float
    yardstick_ms: float
    """Wall time of a fixed classification in this process at that time: how slow the machine was."""
    yardstick_cpu_ms: float
    """Processor time of the same classification."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that must not grow."""

    name: str
    read: Callable[[Sample], float]
    summarize: Callable[[Sequence[float]], float] = median
    """Reduces a window to one number."""


QUANTITIES: Final = (
    Quantity("memory, MiB", lambda sample: sample.memory_mib),
    # The minimum, because open connections come and go, and a leaked descriptor is there also in the quietest moment.
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
"""Not compared, because other work on the machine changes them."""


# --- requests ---


def bad_requests(good: Sequence[Request], rng: random.Random) -> list[Request]:
    """Return requests with images and bodies that must be rejected, each with its status."""
    photograph = items(1)[0].image
    cut = [_form(photograph[: len(photograph) * tenth // 10]) for tenth in range(2, 9)]
    noise = [_form(b"\xff\xd8\xff" + rng.randbytes(5000)) for _ in range(4)]
    wide = io.BytesIO()
    Image.new("L", (20_000, 10)).save(wide, "PNG")
    broken = [Request(body, status=422) for body in [*cut, *noise, _form(wide.getvalue()), _form(b"")]]
    other = [
        Request(_form(b"GIF89b" + rng.randbytes(200)), status=415),
        Request(_form(rng.randbytes(3000)), status=415),
        Request(b"{" * 100_000, JSON, status=400),
        Request(b'{"text": "' + b"\xff" * 50 + b'"}', JSON, status=400),
        Request(b'{"text": "a", "text": "b"}', JSON, status=400),
        Request(json.dumps({"image": "no base64!"}).encode(), JSON, status=400),
        Request(json.dumps({"text": "a\0b"}).encode(), JSON, status=422),
        Request(json.dumps({"text": "x" * 300_000}).encode(), JSON, status=413),
        Request(b"<a/>", "application/xml", status=415),
        Request(good[0].body[:-40], FORM, status=400),
        Request(b"--x\r\n" * 5000, "multipart/form-data; boundary=x", status=400),
    ]
    return broken + other


def batches() -> list[Request]:
    """Return batch requests of eight items in JSON, one of them bad."""
    good = [_as_json(item) for item in items(14)]
    bodies = [{"items": [*good[start : start + 7], {"image": "bm8="}]} for start in (0, 7)]
    return [Request(json.dumps(body).encode(), JSON, "/v1/classify/batch") for body in bodies]


def _as_json(item: Item) -> dict[str, str]:
    return {"image": base64.b64encode(item.image).decode(), "text": item.text}


def _form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


# --- measurements ---


def sample(service: Running, started: float, tally: Tally, cpu_s: float, machine: tuple[float, float]) -> Sample:
    """Measure all processes now; latency and number of responses come from the tally, the yardstick from `machine`."""
    alive = processes(service.pid)
    latencies_ms = 1000 * np.array(tally.latencies_s or [float("nan")])
    return Sample(
        at_s=time.perf_counter() - started,
        memory_mib=service.memory_mib(),
        descriptors=sum(process.num_fds() for process in alive),
        threads=sum(process.num_threads() for process in alive),
        cpu_ms=1000 * cpu_s / max(1, tally.sent),
        p50_ms=float(np.percentile(latencies_ms, 50)),
        p95_ms=float(np.percentile(latencies_ms, 95)),
        yardstick_ms=1000 * machine[0],
        yardstick_cpu_ms=1000 * machine[1],
    )


def cpu_seconds(service: Running) -> float:
    """Of all processes since they began."""
    times = [process.cpu_times() for process in processes(service.pid)]
    return sum(used.user + used.system for used in times)


def yardstick(predictor: Network, item: Item) -> tuple[float, float]:
    """Return wall time and processor time of a classification in seconds, as means of a few.

    It is the same work as the service's, because other load slows work that needs memory and caches more than plain arithmetic.
    It runs on a thread with the priority of a worker.
    """
    started, cpu = time.perf_counter(), time.thread_time()
    for _ in range(PIECES):
        predictor.predict([predictor.prepare(item.inputs)])
    return (time.perf_counter() - started) / PIECES, (time.thread_time() - cpu) / PIECES


def _lower_priority() -> None:
    """Set the workers' niceness for the current thread: Linux has niceness by thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


# --- comparison ---


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantity in the first and in the last window."""

    name: str
    first: float
    last: float
    p_value: float
    """Share of random permutations with at least this difference."""

    @property
    def ratio(self) -> float:
        """The last value divided by the first."""
        return self.last / self.first

    @property
    def grown(self) -> bool:
        """Whether the growth is significant and above the limit."""
        return self.ratio > GROWTH and self.p_value < P_VALUE


def compare(quantity: Quantity, first: Sequence[Sample], last: Sequence[Sample]) -> Comparison:
    """Compare two windows by a one-sided permutation test with a fixed seed."""
    before, after = [quantity.read(sample) for sample in first], [quantity.read(sample) for sample in last]
    difference = quantity.summarize(after) - quantity.summarize(before)
    shuffled = np.random.default_rng(0).permuted(np.tile([*before, *after], (PERMUTATIONS, 1)), axis=1)
    by_row = np.median if quantity.summarize is median else np.min
    differences = by_row(shuffled[:, len(before) :], axis=1) - by_row(shuffled[:, : len(before)], axis=1)
    p_value = float((differences >= difference).mean())
    return Comparison(quantity.name, quantity.summarize(before), quantity.summarize(after), p_value)


def windows(samples: Sequence[Sample], seconds: float) -> tuple[list[Sample], list[Sample]]:
    """Return the samples of the first window after the warm-up, and those of the last one."""
    warm_up_s, end_s = min(WARM_UP_S, seconds / 4), samples[-1].at_s
    length_s = min(WINDOW_S, (end_s - warm_up_s) / 2)
    first = [sample for sample in samples if warm_up_s < sample.at_s <= warm_up_s + length_s]
    return first, [sample for sample in samples if sample.at_s > end_s - length_s]


def table(compared: Sequence[Comparison], shown: Sequence[Comparison]) -> str:
    """Return Markdown."""
    lines = ["| | first window | last window | last ÷ first | by chance | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in (*compared, *shown):
        note = "for reading" if row not in compared else "**grown**" if row.grown else ""
        lines.append(
            f"| {row.name} | {row.first:.2f} | {row.last:.2f} | {row.ratio:.3f} | {row.p_value:.3f} | {note} |"
        )
    return "\n".join(lines)


# --- the run ---


async def soak(service: Running, seconds: float, share: float) -> tuple[list[Sample], Tally, Tally]:
    """Send load for this time; return the samples, the results of good requests, and those of all others."""
    good = await record_requests(service.port, items())
    predictor, (fixed,) = load_bundle(BUNDLE, threads=1), items(1)
    good_client, other_client = Client([service.port]), Client([service.port])
    per_s = share * await capacity(good_client, good, 16, 4)
    log(f"{per_s:.0f} good requests per second, and others, for {seconds:.0f} s")
    all_good, all_other, samples = Tally(), Tally(), []
    other_client.tally = all_other
    started, cpu_s = time.perf_counter(), cpu_seconds(service)
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, initializer=_lower_priority)
    async with (
        Load(good_client, good, per_s, 1),
        Load(other_client, bad_requests(good, random.Random(0)), per_s / 4, 2),
        Load(other_client, batches(), per_s / 80, 3),
        Load(other_client, good, per_s / 8, 4, drops=1.0),
    ):
        while time.perf_counter() < started + seconds:
            good_client.tally = Tally()
            others_before = all_other.sent
            await asyncio.sleep(SAMPLE_S)
            for path in ("/livez", "/readyz", "/metrics", "/v1/models", "/openapi.json"):
                await get(service.port, path)
            machine = await loop.run_in_executor(thread, yardstick, predictor, fixed)
            used_s = cpu_seconds(service)
            tally = good_client.tally
            all_good.results.update(tally.results)
            all_good.errors += tally.errors
            whole = Tally(tally.results.copy(), latencies_s=tally.latencies_s)
            whole.results[Result.DROPPED] += all_other.sent - others_before  # the others cost processor time too
            samples.append(sample(service, started, whole, used_s - cpu_s, machine))
            cpu_s = used_s
            if len(samples) % 20 == 0:
                log(f"{samples[-1].at_s:.0f} s: {samples[-1].memory_mib:.0f} MiB, p50 {samples[-1].p50_ms:.0f} ms")
    return samples, all_good, all_other


def main() -> None:
    """Run, compare and print; exit with 1 when something grew, was lost or was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="duration of the load")
    parser.add_argument(
        "--share", type=float, default=0.4, help="good requests as a share of the capacity; others are half as many"
    )
    options = parser.parse_args()
    if options.seconds < 12 * SAMPLE_S:
        parser.error(
            f"--seconds {options.seconds:g}; allowed: at least {12 * SAMPLE_S:.0f}, for two windows of samples"
        )
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with ExitStack() as stack:
        service = stack.enter_context(running(POLYMODAL, items(1), BUNDLE, WORKERS, POLYMODAL_WORKERS=str(WORKERS)))
        try:
            samples, good, other = uvloop.run(soak(service, options.seconds, options.share))
        except KeyboardInterrupt:
            raise SystemExit("interrupted; the service is being stopped") from None
    first, last = windows(samples, options.seconds)
    machine = conditions(available_cpus())
    log(f"\n{machine['date']}, {machine['cores']} cores ({machine['cpu']}), revision {machine['revision'][:12]}")
    log(f"{samples[-1].at_s:.0f} s; windows of {len(first)} and {len(last)} samples\n")
    compared = [compare(quantity, first, last) for quantity in QUANTITIES]
    log(table(compared, [compare(quantity, first, last) for quantity in SHOWN]))
    for name, tally in (("good requests", good), ("others", other)):
        counts = ", ".join(f"{number} {result.value}" for result, number in tally.results.items())
        log(f"\n{name}: {counts}" + "".join(f"\n  {error}" for error in tally.errors[:5]))
    bad = sum(tally.results[result] for tally in (good, other) for result in (Result.LOST, Result.WRONG))
    if grown := [row.name for row in compared if row.grown]:
        log(f"\ngrown by more than {100 * GROWTH - 100:.0f} %: {', '.join(grown)}")
    if bad:
        log(f"\n{bad} lost or wrong")
    sys.exit(bool(grown or bad))


if __name__ == "__main__":
    main()
