"""The machine's limit: the service's decoding and graphs in a plain loop on all cores, without HTTP."""

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Final

from benchmarks.bodies import items
from polymodal.model import Network, load_bundle

BATCH: Final = 8
START_S: Final = 60.0
"""Time that a process may take to load the models."""


def throughput(bundle: Path, cores: int, seconds: float) -> float:
    """Return the items per second of one process per core, each with batches of 8 on one thread."""
    context = multiprocessing.get_context("spawn")
    rates, ready = context.Queue(), context.Barrier(cores)
    workers = [context.Process(target=_work, args=(bundle, seconds, rates, ready)) for _ in range(cores)]
    for worker in workers:
        worker.start()
    total = sum(rates.get(timeout=seconds + START_S) for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def service_time(bundle: Path) -> float:
    """Return the mean seconds of an item that is computed alone, on one thread."""
    predictor, inputs = _load(bundle), [item.inputs for item in items()]
    for item in inputs[:8]:
        predictor.predict([predictor.prepare(item)])
    started = time.perf_counter()
    for item in inputs:
        predictor.predict([predictor.prepare(item)])
    return (time.perf_counter() - started) / len(inputs)


def _load(bundle: Path) -> Network:
    predictor = load_bundle(bundle, threads=1)
    predictor.warm_up()
    return predictor


def _work(bundle: Path, seconds: float, rates: "Queue[float]", ready: Barrier) -> None:
    predictor, inputs = _load(bundle), [item.inputs for item in items()]
    done = 0
    ready.wait()
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        batch = [inputs[(done + index) % len(inputs)] for index in range(BATCH)]
        predictor.predict([predictor.prepare(item) for item in batch])
        done += BATCH
    rates.put(done / elapsed)
