"""Prepared rows of a manifest: computed once, with the code that serving uses, and kept on disk to bound memory.

N rows, M modalities, B rows of a batch.
"""

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from polymodal.model.digest import file_sha256
from polymodal.model.errors import InputError, NothingGiven
from polymodal.model.faults import fault_of_input
from polymodal.model.manifest import Manifest, ManifestError, Row, read_inputs
from polymodal.model.modalities import Input, prepare
from polymodal.model.progress import track
from polymodal.model.targets import TARGETS
from polymodal.model.types import Array

CHUNK: Final = 256  # rows prepared before they are written; bounds memory


@dataclass(frozen=True, slots=True)
class Examples:
    """A prepared manifest. Rows are addressed by their number."""

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    inputs: Mapping[str, Input]
    stores: Mapping[str, "ArrayStore"]
    targets: Array
    """Targets of the rows: label indices (N,), 0 or 1 (N, K), or numbers in standard deviations (N,)."""

    def split(self, name: str) -> list[int]:
        """Return the numbers of the rows of one split."""
        return [number for number, row in enumerate(self.rows) if row.split == name]

    def present(self, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return the presence (B, M) of modalities, in the order of `inputs`."""
        return np.asarray([[store.has(row) for store in self.stores.values()] for row in rows], dtype=np.bool_)

    def collate(self, modality: str, rows: Sequence[int]) -> dict[str, Array]:
        """Collate one modality's batch for the encoder; every row must have that modality."""
        return self.inputs[modality].collate([self.stores[modality][row] for row in rows])


class ArrayStore:
    """Arrays of one type and different shapes in one flat file, mapped into memory, by row number."""

    def __init__(self, path: Path, index: Mapping[str, Any]) -> None:
        self._items: dict[int, tuple[int, tuple[int, ...]]] = {
            int(row): (offset, tuple(shape)) for row, (offset, shape) in index["items"].items()
        }
        self._data = np.memmap(path, dtype=index["dtype"], mode="r") if self._items else np.empty(0)

    def __getitem__(self, row: int) -> Array:
        offset, shape = self._items[row]
        return np.asarray(self._data[offset : offset + int(np.prod(shape))]).reshape(shape)

    def has(self, row: int) -> bool:
        """Return whether the store has an array of that row."""
        return row in self._items

    def place(self, row: int) -> int:
        """Return where a row's array begins, which is the same for rows with the same input."""
        return self._items[row][0]

    def only(self, rows: Sequence[int]) -> Self:
        """Return a store of these rows, numbered in this order."""
        chosen = copy.copy(self)
        chosen._items = {number: self._items[row] for number, row in enumerate(rows) if row in self._items}
        return chosen


class _Writer:
    """Appends arrays to a store's file and indexes them."""

    def __init__(self, file: BinaryIO, dtype: str) -> None:
        self._file = file
        self._written: dict[Path | str, Any] = {}
        self.index: dict[str, Any] = {"dtype": dtype, "items": {}}
        self._offset = 0

    def add(self, row: int, value: Path | str, array: Array) -> None:
        """Add the array of a row's input, which is written once if several rows have it."""
        if value not in self._written:
            self._file.write(np.ascontiguousarray(array).tobytes())
            self._written[value] = [self._offset, list(array.shape)]
            self._offset += array.size
        self.index["items"][str(row)] = self._written[value]


def input_fingerprint(inputs: Mapping[str, Input]) -> str:
    """Return the SHA-256 of all inputs' settings and files, which changes with preprocessing."""
    with TemporaryDirectory() as folder:
        for entry in inputs.values():
            entry.save(Path(folder))
        files = {path.name: file_sha256(path) for path in Path(folder).iterdir()}
    settings = {name: entry.settings() for name, entry in inputs.items()}
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()


def prepare_examples(
    manifest: Manifest, inputs: Mapping[str, Input], fingerprint: str, folder: Path, *, workers: int
) -> Examples:
    """Decode and preprocess every row, unless `folder` has the results of an earlier call.

    Rows are prepared again if the data or `fingerprint`, which `input_fingerprint` returns, have changed. Raises ManifestError
    with every row that serving would reject.
    """
    key = hashlib.sha256(f"{manifest.digest} {fingerprint}".encode()).hexdigest()
    index_file = folder / "index.json"
    index = json.loads(index_file.read_bytes()) if index_file.exists() else {}
    if index.get("key") != key:
        folder.mkdir(parents=True, exist_ok=True)
        index_file.unlink(missing_ok=True)
        written, problems = _write(manifest.rows, manifest.root, inputs, folder, workers)
        if problems:
            raise ManifestError(manifest.root, problems)
        index = {"key": key, **written}
        index_file.write_text(json.dumps(index), encoding="utf-8")
    stores = {name: ArrayStore(folder / f"{name}.bin", index[name]) for name in inputs}
    labels = manifest.labels
    targets = TARGETS[manifest.target].cells.array(manifest.cells(), labels, manifest.scale)
    return Examples(manifest.rows, labels, inputs, stores, targets)


def prepared(
    rows: Sequence[Row], root: Path, inputs: Mapping[str, Input], workers: int, what: str
) -> Iterator[tuple[int, dict[str, Array] | str]]:
    """Yield each row's number with its preprocessed arrays, or with its error; at most CHUNK rows are in memory.

    Errors show paths relative to `root`; the progress bar shows `what`.
    """

    def arrays_of(number: int) -> dict[str, Array] | str:
        try:
            return _arrays_of(rows[number], inputs)
        except InputError as problem:
            return fault_of_input(problem, _file_name(problem, rows[number], root)).at(f"row {rows[number].id}")

    chunks = (range(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK))
    with ThreadPoolExecutor(workers) as pool:
        results = (result for chunk in chunks for result in zip(chunk, pool.map(arrays_of, chunk), strict=True))
        yield from track(results, what, len(rows), "rows")


def _file_name(problem: InputError, row: Row, root: Path) -> str:
    """Return the path of the file that the error is about, "" for a text."""
    value = row.inputs.get(problem.input)
    return os.path.relpath(value, root) if isinstance(value, Path) else ""


def write_arrays(
    rows: Sequence[Row], root: Path, inputs: Mapping[str, Input], folder: Path, workers: int
) -> tuple[dict[str, ArrayStore], list[str]]:
    """Decode and preprocess rows into `folder`; return a store for each modality, and the errors of rows left out."""
    index, problems = _write(rows, root, inputs, folder, workers)
    return {name: ArrayStore(folder / f"{name}.bin", entry) for name, entry in index.items()}, problems


def _write(
    rows: Sequence[Row], root: Path, inputs: Mapping[str, Input], folder: Path, workers: int
) -> tuple[dict[str, Any], list[str]]:
    """Write the arrays of all rows that can be read; return the stores' indexes, and the errors of the others."""
    problems: list[str] = []
    files = {name: (folder / f"{name}.bin").open("wb") for name in inputs}
    writers = {name: _Writer(files[name], inputs[name].blank().dtype.str) for name in inputs}
    try:
        for number, arrays in prepared(rows, root, inputs, workers, "preparing"):
            if isinstance(arrays, str):
                problems.append(arrays)
                continue
            for name, array in arrays.items():
                writers[name].add(number, rows[number].inputs[name], array)
    finally:
        for file in files.values():
            file.close()
    return {name: writer.index for name, writer in writers.items()}, problems


def _arrays_of(row: Row, inputs: Mapping[str, Input]) -> dict[str, Array]:
    contents = read_inputs(row, inputs)
    arrays = prepare(inputs, contents)
    if contents and not arrays:
        raise NothingGiven(" and ".join(contents), "only blanks", "something in at least one of the row's inputs")
    return arrays
