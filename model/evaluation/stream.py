"""A manifest's rows on their way into a bundle: decoded by threads while the network runs, and never all in memory."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from model.errors import InputError, NothingGiven
from model.faults import fault_of_input, joined
from model.manifest import Row, read_parts
from model.predictor import Predictor
from model.types import Sample

BATCH: Final = 32
AHEAD: Final = 3  # batches in memory: the one that is computed, and what is decoded meanwhile

Found = tuple[Row, tuple[str, ...]]
"""A row, and what is wrong with it in the table."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that is ready for the network, or the reason why it is not."""

    row: Row
    sample: Sample | None
    problem: str = ""


def prepared(
    predictor: Predictor, rows: Iterable[Found], *, workers: int, size: int = BATCH
) -> Iterator[list[Prepared]]:
    """Batches of rows in their order, `workers` threads decoding ahead; a bad row never spoils its batch."""
    names = {spec.name for spec in predictor.description.inputs}
    source = iter(rows)
    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                room = AHEAD * size - len(waiting)
                waiting.extend(pool.submit(_prepare, predictor, names, *found) for found in islice(source, room))
                if not waiting:
                    return
                yield [waiting.popleft().result() for _ in range(min(size, len(waiting)))]
        finally:
            for each in waiting:
                each.cancel()


def _prepare(predictor: Predictor, names: set[str], row: Row, wrong: tuple[str, ...]) -> Prepared:
    if wrong:
        return Prepared(row, None, joined(wrong))
    try:
        return Prepared(row, predictor.prepare(read_parts(row, names)))
    except NothingGiven as problem:
        return Prepared(row, None, f"row: {problem.problem}; allowed: {problem.allowed}")
    except InputError as problem:
        return Prepared(row, None, fault_of_input(problem))
    except OSError as problem:
        return Prepared(row, None, f"image: cannot be read: {problem.strerror}; allowed: a file that can be read")
