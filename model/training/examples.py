"""Every row of a manifest, prepared once by the code that serves, and kept on disk so that memory stays bounded.

N rows, M modalities, B rows of a batch.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from model.errors import InputError, NothingGiven
from model.faults import fault_of_input
from model.manifest import Manifest, ManifestError, Row, read_parts
from model.modalities import Input, prepare
from model.targets import TARGETS
from model.training.progress import bar
from model.types import Array

CHUNK: Final = 256  # rows prepared before they are written; bounds memory


@dataclass(frozen=True, slots=True)
class Examples:
    """A prepared manifest. Rows are addressed by their number."""

    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    inputs: Mapping[str, Input]
    stores: Mapping[str, "ArrayStore"]
    targets: Array
    """What the network is to say of each row: label numbers (N,), 0 or 1 (N, K), or numbers in standard deviations (N,)."""

    def split(self, name: str) -> list[int]:
        """Numbers of the rows of one split."""
        return [number for number, row in enumerate(self.rows) if row.split == name]

    def present(self, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which modalities each row has: (B, M), in the order of `inputs`."""
        return np.asarray([[store.has(row) for store in self.stores.values()] for row in rows], dtype=np.bool_)

    def collate(self, modality: str, rows: Sequence[int]) -> dict[str, Array]:
        """One modality's batch, as the encoder takes it; every row must have that modality."""
        return self.inputs[modality].collate([self.stores[modality][row] for row in rows])


class ArrayStore:
    """Arrays of one type and any shapes in one flat file, by row number, mapped into memory rather than read."""

    def __init__(self, path: Path, index: Mapping[str, Any]) -> None:
        self._items: dict[int, tuple[int, tuple[int, ...]]] = {
            int(row): (offset, tuple(shape)) for row, (offset, shape) in index["items"].items()
        }
        self._data = np.memmap(path, dtype=index["dtype"], mode="r") if self._items else np.empty(0)

    def __getitem__(self, row: int) -> Array:
        offset, shape = self._items[row]
        return np.asarray(self._data[offset : offset + int(np.prod(shape))]).reshape(shape)

    def has(self, row: int) -> bool:
        """Whether that row has this modality."""
        return row in self._items


class _Writer:
    """Appends arrays to a store's file and remembers where they stand."""

    def __init__(self, file: BinaryIO, dtype: str) -> None:
        self._file = file
        self.index: dict[str, Any] = {"dtype": dtype, "items": {}}
        self._offset = 0

    def add(self, row: int, array: Array) -> None:
        self._file.write(np.ascontiguousarray(array).tobytes())
        self.index["items"][str(row)] = [self._offset, list(array.shape)]
        self._offset += array.size


def input_fingerprint(inputs: Mapping[str, Input]) -> str:
    """Changes whenever preprocessing does: SHA-256 over every input's settings and files."""
    with TemporaryDirectory() as folder:
        for each in inputs.values():
            each.save(Path(folder))
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}
    settings = {name: each.settings() for name, each in inputs.items()}
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()


def prepare_examples(
    manifest: Manifest, inputs: Mapping[str, Input], fingerprint: str, folder: Path, *, workers: int
) -> Examples:
    """Decode and preprocess every row, unless `folder` holds them already.

    `fingerprint` is `input_fingerprint`'s: another one, or other data, and the rows are prepared anew. Raises
    ManifestError with every row that serving would refuse.
    """
    key = hashlib.sha256(f"{manifest.digest} {fingerprint}".encode()).hexdigest()
    index_file = folder / "index.json"
    index = json.loads(index_file.read_bytes()) if index_file.exists() else {}
    if index.get("key") != key:
        folder.mkdir(parents=True, exist_ok=True)
        index_file.unlink(missing_ok=True)
        index = {"key": key, **_write(manifest, inputs, folder, workers)}
        index_file.write_text(json.dumps(index), encoding="utf-8")
    stores = {name: ArrayStore(folder / f"{name}.bin", index[name]) for name in inputs}
    labels = manifest.labels
    targets = TARGETS[manifest.task].array(manifest.cells(), labels, manifest.scale)
    return Examples(manifest.rows, labels, inputs, stores, targets)


def prepared(
    rows: Sequence[Row], root: Path, inputs: Mapping[str, Input], workers: int, what: str
) -> Iterator[tuple[int, dict[str, Array] | str]]:
    """Each row's number with its preprocessed arrays, or with one line that says why it has none; only some are in memory.

    `root` is what the pictures' paths are told relative to, `what` is said beside the progress bar.
    """

    def arrays_of(number: int) -> dict[str, Array] | str:
        try:
            return _arrays_of(rows[number], inputs)
        except InputError as problem:
            return fault_of_input(problem, _name(problem, rows[number], root)).at(f"row {rows[number].id}")

    with ThreadPoolExecutor(workers) as pool, bar() as progress:
        task = progress.add_task(what, total=len(rows), unit="rows")
        for chunk in _chunks(range(len(rows))):
            for number, arrays in zip(chunk, pool.map(arrays_of, chunk), strict=True):
                yield number, arrays
                progress.advance(task)


def _name(problem: InputError, row: Row, root: Path) -> str:
    return os.path.relpath(row.image, root) if problem.modality == "image" and row.image else ""


def _write(manifest: Manifest, inputs: Mapping[str, Input], folder: Path, workers: int) -> dict[str, Any]:
    problems: list[str] = []
    files = {name: (folder / f"{name}.bin").open("wb") for name in inputs}
    writers = {name: _Writer(files[name], inputs[name].blank().dtype.str) for name in inputs}
    try:
        for number, arrays in prepared(manifest.rows, manifest.root, inputs, workers, "preparing"):
            if isinstance(arrays, str):
                problems.append(arrays)
                continue
            for name, array in arrays.items():
                writers[name].add(number, array)
    finally:
        for file in files.values():
            file.close()
    if problems:
        raise ManifestError(manifest.root, problems)
    return {name: writer.index for name, writer in writers.items()}


def _arrays_of(row: Row, inputs: Mapping[str, Input]) -> dict[str, Array]:
    parts = read_parts(row, inputs)
    arrays = prepare(inputs, parts)
    if parts and not arrays:
        raise NothingGiven(" and ".join(parts), "only blanks", "something in at least one of the row's inputs")
    return arrays


def _chunks(numbers: range) -> Iterable[range]:
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]
