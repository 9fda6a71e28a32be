"""The time of one search in an index, on one core and without embedding the query:

.venv/bin/python -m benchmarks.search [ITEMS] [WIDTH]
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from polymodal.model import Description, Hit, MatchConfig, SearchIndex, read_index
from polymodal.model.index import MOST_ITEMS, IndexItem, write_index

RUNS: Final = 200
MATCHES: Final = {"image~text": MatchConfig(slope=10.0, intercept=-5.0, threshold=0.5)}


def make(folder: Path, items: int, width: int) -> None:
    """Write an index of images with random vectors, and a label of ten for each."""
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((items, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = Description("random", "0" * 64, "", (), (), "", "", {}, spaces={"aligned": width})

    def rows() -> Iterator[tuple[IndexItem, np.ndarray]]:
        for row, vector in enumerate(vectors):
            metadata = {"label": f"label {row % 10}", "text": f"a caption of number {row}"}
            yield IndexItem(str(row), ("image",), metadata), vector

    write_index(folder, rows(), model, ("label", "text"))


def measure(index: SearchIndex, search: Callable[[np.ndarray], list[Hit]]) -> str:
    """Return how long searches take, in milliseconds: on the clock, and of the processor, which other programs delay less."""
    chance = np.random.default_rng(1)
    queries = chance.standard_normal((RUNS, index.width), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    search(queries[0])
    clock, processor = [], []
    for query in queries:
        started, used = time.perf_counter(), time.process_time()
        search(query)
        clock.append((time.perf_counter() - started) * 1000)
        processor.append((time.process_time() - used) * 1000)
    return " | ".join(
        f"{statistics.median(times):5.1f} {min(times):5.1f} {statistics.quantiles(times, n=20)[-1]:5.1f}"
        for times in (clock, processor)
    )


def main() -> None:
    """Print how long an index takes to load, and to search with and without a filter."""
    items, width = (*map(int, sys.argv[1:]), *(MOST_ITEMS, 256)[len(sys.argv) - 1 :])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "index", items, width)
        started = time.perf_counter()
        index = read_index(Path(folder) / "index")
        print(f"{items:,} items of {width} numbers, on one core; loaded in {time.perf_counter() - started:.1f} s")
    print("milliseconds   clock: median, fastest, 95 % | processor: the same")
    print("all items:    ", measure(index, lambda query: index.search(query, ["text"], MATCHES)))
    filters = {"label": "label 3"}
    print("with a filter:", measure(index, lambda query: index.search(query, ["text"], MATCHES, filter=filters)))
    if Path("/proc/self/task").is_dir():
        print("threads:      ", len(os.listdir("/proc/self/task")))


if __name__ == "__main__":
    main()
