"""What the machine could do at all: the same decoding and the same graphs in a bare loop on all cores, without HTTP."""

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Final

from benchmarks.bodies import items
from polymodal.model import load_bundle

BATCH: Final = 8
START_S: Final = 60.0
"""That a process may take to load the models."""


def throughput(bundle: Path, cores: int, seconds: float) -> float:
    """Items per second of one process for each core, each with batches of 8 on one thread."""
    context = multiprocessing.get_context("spawn")
    found, ready = context.Queue(), context.Barrier(cores)
    workers = [context.Process(target=_work, args=(bundle, seconds, found, ready)) for _ in range(cores)]
    for worker in workers:
        worker.start()
    total = sum(found.get(timeout=seconds + START_S) for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def service_time(bundle: Path) -> float:
    """Seconds that one item takes by itself, on one thread."""
    predictor = load_bundle(bundle, threads=1)
    predictor.warm_up()
    asked = [{"image": each.image, "text": each.text} for each in items()]
    for parts in asked[:8]:
        predictor.predict([predictor.prepare(parts)])
    started = time.perf_counter()
    for parts in asked:
        predictor.predict([predictor.prepare(parts)])
    return (time.perf_counter() - started) / len(asked)


def _work(bundle: Path, seconds: float, found: "Queue[float]", ready: Barrier) -> None:
    predictor = load_bundle(bundle, threads=1)
    predictor.warm_up()
    asked = [{"image": each.image, "text": each.text} for each in items()]
    done = 0
    ready.wait()
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        batch = [asked[(done + index) % len(asked)] for index in range(BATCH)]
        predictor.predict([predictor.prepare(parts) for parts in batch])
        done += BATCH
    found.put(done / passed)
