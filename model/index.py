"""Search indexes: folders with the aligned vectors of items, which are searched exactly, by comparing the query with all of them.

index.json    format, name and version of the model, number and width of the vectors, columns of metadata, SHA-256 of the files
vectors.npy   float32 (N, V); each row has length 1, or is zero if its item has no direction
items.jsonl   for each row an object with id, modalities and metadata

N items, V width of a vector.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polymodal.model.alignment import EVEN, calibration_of, cosines, match_of
from polymodal.model.capabilities import Space
from polymodal.model.config import MatchConfig
from polymodal.model.digest import file_sha256
from polymodal.model.errors import InvalidParameter, SearchIndexError
from polymodal.model.metrics import Indices
from polymodal.model.replacing import replacing
from polymodal.model.types import Description, FloatArray

FORMAT: Final = 1
MOST_ITEMS: Final = 100_000
"""Most items of an index; with 256 numbers each, their vectors take 100 MB and a search some 10 ms."""
LARGER: Final = "docs/search.md has an example with a vector database"
"""Advice for more items."""
HEADER, VECTORS, ITEMS = "index.json", "vectors.npy", "items.jsonl"
MODALITIES_KEY: Final = "modalities"
"""Key of filters for an item's set of modalities, as "image+text"; no column of metadata has it."""
DECIMALS: Final = 6
"""Of a cosine and a match."""
TOLERANCE: Final = 1e-3
"""Largest difference of a vector's length from 1."""
LAST: Final = -1e6
"""Added to the cosine of an item without a match, so that it is ranked after those with one."""

Value: TypeAlias = str | int | float | bool
"""A value of metadata and of filters."""


@dataclass(frozen=True, slots=True)
class IndexItem:
    """One item of an index."""

    id: str
    modalities: tuple[str, ...]
    """The inputs that its vector was computed from, sorted."""
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit(IndexItem):
    """An item that a search has returned."""

    cosine: float = 0.0
    """Similarity with the query, from -1 to 1."""
    match: float | None = None
    """Probability that query and item belong together; None where their sets of modalities were not calibrated."""


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    model: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    width: int = Field(ge=1)
    count: int = Field(ge=0, le=MOST_ITEMS)
    columns: tuple[str, ...]
    files: Mapping[str, str]


class SearchIndex:
    """An index in memory. Thread-safe, because it never changes."""

    def __init__(self, folder: Path, header: _Header, vectors: FloatArray, lines: Sequence[bytes]) -> None:
        """`lines`: those of items.jsonl. Raises SearchIndexError for lines that are no items."""
        self.folder = folder
        self.model, self.digest, self.width = header.model, header.digest, header.width
        """Name, version and vector width of the model that it was built with."""
        self.columns = (*header.columns, MODALITIES_KEY)
        """Keys of filters."""
        self._vectors, self._lines = vectors, lines
        # For filters, the hashes of the values' texts; hashes of 64 bits are as good as unique. 0 is that of "": no value.
        self._hashes = {name: np.zeros(len(lines), dtype=np.int64) for name in self.columns}
        sets: dict[str, int] = {}
        self._set_of = np.zeros(len(lines), dtype=np.int64)
        for row in range(len(lines)):
            item = self._item(row)
            key = "+".join(item.modalities)
            self._set_of[row] = sets.setdefault(key, len(sets))
            for name, value in {**item.metadata, MODALITIES_KEY: key}.items():
                if name in self._hashes:
                    self._hashes[name][row] = hash(text_of(value))
        self._sets = tuple(sets)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._lines)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of items by set of modalities, as "image+text"."""
        return dict(zip(self._sets, np.bincount(self._set_of, minlength=len(self._sets)).tolist(), strict=True))

    def check_model(self, description: Description, rebuild: str) -> None:
        """Raise SearchIndexError for a model of another version; `rebuild`: the command that builds the index again."""
        if description.digest != self.digest:
            raise SearchIndexError(
                f"{self.folder}: an index of the model {self.model}, version {self.digest[:12]}…; this one is {description.name}, "
                f"version {description.digest[:12]}…; allowed: the bundle of that version, or a new index: {rebuild}"
            )

    def search(
        self,
        query: FloatArray | Sequence[float],
        modalities: Iterable[str],
        matches: Mapping[str, MatchConfig],
        *,
        top_k: int = 10,
        filter: Mapping[str, Value] | None = None,
        min_match: float | None = None,
        prior: float = EVEN,
    ) -> list[Hit]:
        """Return the items that are most similar to a query (V,) with these modalities, best first.

        Items are sorted by match, because cosines of different sets of modalities are not comparable; items without a match follow,
        sorted by cosine. `matches`: calibration of the model. `filter`: values that metadata must have. Raises InvalidParameter for
        a key that no item can have, and for `min_match` where no item can have a match.
        """
        rows = self._filtered(filter or {})
        used = tuple(modalities)
        calibrations = [calibration_of(matches, used, key.split("+")) for key in self._sets]
        if min_match is not None and calibrations and not any(calibrations):
            value = f"{min_match} for {' and '.join(used)}, whose match with the items of this index was not calibrated"
            raise InvalidParameter("min_match", value, ", ".join(sorted(matches)) or "no min_match for this model")
        every = self._cosines(np.asarray(query, dtype=np.float32), rows)
        sets = self._set_of[rows]
        scores = every
        if len(calibrations) > 1:
            lines = [(entry.slope, entry.intercept) if entry else (1.0, LAST) for entry in calibrations]
            slopes, intercepts = np.asarray(lines).T
            scores = every * slopes[sets] + intercepts[sets]
        hits = []
        for position in _best(scores, top_k):
            cosine, calibration = float(every[position]), calibrations[sets[position]]
            match = None if calibration is None else round(match_of(cosine, calibration, prior), DECIMALS)
            if min_match is None or (match is not None and match >= min_match):
                item = self._item(position if isinstance(rows, slice) else int(rows[position]))
                hits.append(Hit(item.id, item.modalities, item.metadata, round(cosine, DECIMALS), match))
        return hits

    def check_filter(self, filter: Mapping[str, Value]) -> None:
        """Raise InvalidParameter for a key that no item can have."""
        for key in filter:
            if key not in self._hashes:
                raise InvalidParameter("filter", f"key {key[:64]!r}", ", ".join(self.columns))

    def _cosines(self, query: FloatArray, rows: Indices | slice) -> FloatArray:
        """Return the cosines of these rows with a query; copying a few rows is faster than comparing all."""
        if not isinstance(rows, slice) and len(rows) < len(self) // 4:
            return cosines(query, self._vectors[rows])
        return cosines(query, self._vectors)[rows]

    def _filtered(self, filter: Mapping[str, Value]) -> Indices | slice:
        """Return the numbers of the rows that pass a filter; all rows as a slice."""
        if not filter:
            return slice(None)
        self.check_filter(filter)
        passing = np.ones(len(self), dtype=np.bool_)
        for key, value in filter.items():
            passing &= self._hashes[key] == hash(text_of(value))
        return np.flatnonzero(passing)

    def _item(self, row: int) -> IndexItem:
        try:
            content = json.loads(self._lines[row])
            return IndexItem(content["id"], tuple(content["modalities"]), content["metadata"])
        except (ValueError, LookupError, TypeError) as problem:
            raise SearchIndexError(f"{self.folder}: line {row + 1} of {ITEMS} is no item: {problem!r}") from problem


def text_of(value: Value) -> str:
    """Return a value as filters compare it: as JSON writes it, but a text without quotes, and 3.0 as 3."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _best(scores: npt.NDArray[np.floating[Any]], top_k: int) -> list[int]:
    """Return the positions of the highest scores, best first; the first of equal ones is first."""
    most = min(top_k, len(scores))
    if most == 0:
        return []
    lowest = np.partition(scores, len(scores) - most)[len(scores) - most]
    positions = np.flatnonzero(scores >= lowest)  # more than `most` if several are equal to the lowest
    best: list[int] = positions[np.lexsort((positions, -scores[positions]))][:most].tolist()
    return best


def check_aligned(description: Description) -> None:
    """Raise SearchIndexError for a model without aligned vectors."""
    if Space.ALIGNED not in description.spaces:
        spaces = ", ".join(description.spaces) or "none"
        raise SearchIndexError(
            f"{description.name}: a model whose vector spaces are: {spaces}; allowed: one with the space {Space.ALIGNED}"
        )


def check_number(items: int) -> None:
    """Raise SearchIndexError for more than MOST_ITEMS items."""
    if items > MOST_ITEMS:
        raise SearchIndexError(f"{items:,} items; allowed: at most {MOST_ITEMS:,} in an index; {LARGER}")


def check_replaceable(folder: Path) -> None:
    """Raise SearchIndexError when `folder` has anything but an index, because it would be deleted."""
    if folder.is_dir() and ((folder / HEADER).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise SearchIndexError(f"{folder}: no index; allowed: a new or empty folder, or an older index")


def write_index(
    folder: Path, items: Iterable[tuple[IndexItem, FloatArray]], description: Description, columns: Sequence[str]
) -> None:
    """Write an index of items and their aligned vectors (V,), and replace an older one.

    `columns` are the keys that metadata may have. Raises SearchIndexError, also when the disk is full, and leaves an older index.
    """
    check_aligned(description)
    check_replaceable(folder)
    width = description.spaces[Space.ALIGNED]
    vectors: list[FloatArray] = []
    try:
        with replacing(folder) as fresh:
            with (fresh / ITEMS).open("w", encoding="utf-8", newline="\n") as file:
                for item, vector in islice(items, MOST_ITEMS + 1):
                    vectors.append(vector)
                    file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
            check_number(len(vectors))
            np.save(fresh / VECTORS, np.stack(vectors) if vectors else np.empty((0, width), np.float32))
            header = _Header(
                model=description.name,
                digest=description.digest,
                width=width,
                count=len(vectors),
                columns=tuple(columns),
                files={name: file_sha256(fresh / name) for name in (VECTORS, ITEMS)},
            )
            (fresh / HEADER).write_text(header.model_dump_json(indent=1) + "\n", encoding="utf-8")
            read_index(fresh)
    except OSError as problem:
        raise SearchIndexError(f"{folder}: cannot be written: {problem.strerror}; nothing was replaced") from problem
    except SearchIndexError as problem:  # its message names the folder that was removed
        raise SearchIndexError(str(problem).replace(str(fresh), str(folder))) from problem


def rebuild_command(folder: Path | str = "FOLDER") -> str:
    """Return the command that builds an index again, for messages."""
    return f"polymodal index build MANIFEST --out {folder} --bundle BUNDLE --restart"


def read_index(folder: Path) -> SearchIndex:
    """Read an index, and check its files against their digests. Raises SearchIndexError."""
    try:
        return _read(folder)
    except OSError as problem:
        raise SearchIndexError(f"{problem.filename or folder}: cannot be read: {problem.strerror}") from problem


def _read(folder: Path) -> SearchIndex:
    if not (folder / HEADER).is_file():
        raise SearchIndexError(f"{folder}: {HEADER} is missing; allowed: a folder written by `polymodal index build`")
    content = (folder / HEADER).read_bytes()
    try:
        header = _Header.model_validate_json(content)
    except ValidationError as problem:
        first: Any = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or HEADER
        raise SearchIndexError(f"{folder}: {HEADER} cannot be used: {where}: {first['msg']}") from problem
    for name in (VECTORS, ITEMS):
        if file_sha256(folder / name) != header.files.get(name):
            raise SearchIndexError(f"{folder}: {name} was altered: its SHA-256 is not the one in {HEADER}")
    try:
        vectors = np.load(folder / VECTORS, allow_pickle=False)
    except ValueError as problem:
        raise SearchIndexError(f"{folder}: {VECTORS} is no array: {problem}") from problem
    lines = (folder / ITEMS).read_bytes().splitlines()
    expected = (header.count, header.width)
    if vectors.dtype != np.float32 or vectors.shape != expected or len(lines) != header.count:
        shape = f"{vectors.dtype} {vectors.shape} for {len(lines)} items"
        raise SearchIndexError(f"{folder}: {VECTORS} is {shape}; allowed: float32 {expected} as in {HEADER}")
    index = SearchIndex(folder, header, np.ascontiguousarray(vectors), lines)
    _check_lengths(index, vectors)
    return index


def _check_lengths(index: SearchIndex, vectors: FloatArray) -> None:
    """Raise SearchIndexError for a vector that is not finite, or is neither zero nor of length 1."""
    lengths = np.sqrt(np.vecdot(vectors, vectors))
    good = (np.abs(lengths - 1) <= TOLERANCE) | (lengths == 0)  # False for NaN too
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        where = f"{VECTORS}: row {row}, of the item {index._item(row).id!r}, has the length {lengths[row]:.3g}"
        raise SearchIndexError(f"{index.folder}: {where}; allowed: finite vectors of length 1; build the index again")
