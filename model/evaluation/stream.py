"""Prepare a manifest's rows for a bundle: threads decode a few batches ahead, so that memory stays bounded."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from polymodal.model.capabilities import Model
from polymodal.model.errors import InputError, NothingGiven
from polymodal.model.faults import fault_of_input, joined
from polymodal.model.manifest import Row, read_inputs
from polymodal.model.types import Sample

BATCH: Final = 32
AHEAD: Final = 3  # batches in memory: one that is computed, the others decoded meanwhile

CheckedRow = tuple[Row, tuple[str, ...]]
"""A row and its errors in the table."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that is ready for the network, or the reason why it isn't."""

    row: Row
    sample: Sample | None
    problem: str = ""


def prepared(
    predictor: Model, rows: Iterable[CheckedRow], *, workers: int, size: int = BATCH
) -> Iterator[list[Prepared]]:
    """Yield batches of rows in their order, decoded ahead by `workers` threads; a bad row does not affect its batch."""
    names = {spec.name for spec in predictor.description.inputs}
    source = iter(rows)
    pending: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                free = AHEAD * size - len(pending)
                pending.extend(pool.submit(_prepare, predictor, names, *checked) for checked in islice(source, free))
                if not pending:
                    return
                yield [pending.popleft().result() for _ in range(min(size, len(pending)))]
        finally:
            for future in pending:
                future.cancel()


def _prepare(predictor: Model, names: set[str], row: Row, errors: tuple[str, ...]) -> Prepared:
    if errors:
        return Prepared(row, None, joined(errors))
    try:
        return Prepared(row, predictor.prepare(read_inputs(row, names)))
    except NothingGiven as problem:
        return Prepared(row, None, f"row: {problem.found}; allowed: {problem.allowed}")
    except InputError as problem:
        return Prepared(row, None, fault_of_input(problem))
    except OSError as problem:
        modality = next((name for name, value in row.inputs.items() if str(value) == str(problem.filename)), "row")
        return Prepared(row, None, f"{modality}: cannot be read: {problem.strerror}; allowed: a file that can be read")
