"""Read, check and write manifests."""

import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polymodal.model.config import Scale
from polymodal.model.errors import ModelError
from polymodal.model.faults import Faults
from polymodal.model.manifest.digest import cells_of, data_digest, digests_of_files
from polymodal.model.manifest.forms import SPLITS, column_names, records_of
from polymodal.model.manifest.paths import FilePaths
from polymodal.model.manifest.result import CheckResult
from polymodal.model.manifest.rows import Row, Spellings, check_row, check_rows, column_problems, split_named
from polymodal.model.manifest.spreadsheets import csv_line
from polymodal.model.manifest.tables import READERS, unknown_format
from polymodal.model.spelling import spelled, visible
from polymodal.model.targets import DEFAULT_TARGET, TARGETS

LISTED = 20  # most kinds of problems in the message; the rest is counted


class ManifestError(ModelError):
    """A manifest that cannot be trained on; `problems` has a line for every error."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        kinds = Faults(problems).lines()
        lines = [f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}", *kinds[:LISTED]]
        if len(kinds) > LISTED:
            lines.append(f"… and {len(kinds) - LISTED} more; `polymodal check` lists them all")
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked table: every file exists, every id is unique, either all rows have a split or none has."""

    rows: tuple[Row, ...]
    root: Path
    """The folder that paths are relative to."""
    digest: str
    """The data digest, see `data_digest`: changes with any cell, any file's bytes, and the order of the rows."""
    file_digests: tuple[Mapping[str, str], ...] = field(repr=False, compare=False, default=())
    """SHA-256 of each row's files by modality; kept so that files are not read twice."""
    target: str = DEFAULT_TARGET
    """Name in the table TARGETS by which label cells were read."""
    split_seed: int | None = None
    """Seed of its splits; None if the manifest has its own splits, or none yet."""
    warnings: tuple[str, ...] = field(repr=False, compare=False, default=())
    """Rows, files and cells that were left out or changed, for users."""
    allowed: tuple[Path, ...] = field(repr=False, compare=False, default=())
    """Further folders that files may be below."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return every label that occurs, sorted; none for a regression."""
        return TARGETS[self.target].cells.labels(self.cells())

    @property
    def scale(self) -> Scale | None:
        """Return mean and standard deviation of the train split's numbers; None for labels."""
        return TARGETS[self.target].cells.scale(self.cells("train"))

    def cells(self, split: str | None = None) -> list[str]:
        """Return the label cells of one split or of all rows."""
        return [row.label for row in (self.rows if split is None else self.by_split(split))]

    def by_split(self, name: str) -> tuple[Row, ...]:
        """Return the rows of one split, in the manifest's order."""
        if name not in SPLITS:
            raise ValueError(f"split: {name!r}; allowed: {', '.join(SPLITS)}")
        return tuple(row for row in self.rows if row.split == name)


def read_manifest(
    path: Path, target: str = DEFAULT_TARGET, roots: Sequence[Path] = (), unlabelled: bool = False
) -> Manifest:
    """Read and check a manifest file or folder, its label cells as `target` has them.

    Files may be below the manifest's folder, and below `roots`. With `unlabelled`, rows without a label are left out.
    Raises ManifestError with every problem in it.
    """
    path = Path(os.path.abspath(path))  # not resolve(), which would follow a user's links
    rows, result = read_rows(path, target, roots, unlabelled)
    if result.errors:
        raise ManifestError(path, result.errors)
    root, allowed = folder_of(path), absolute(roots)
    digests = tuple(map(digests_of_files, rows))
    digest = data_digest(rows, (root, *allowed), digests)
    return Manifest(tuple(rows), root, digest, digests, target, warnings=tuple(result.warnings), allowed=allowed)


def folder_of(path: Path) -> Path:
    """Return the folder that a manifest's paths are relative to."""
    return path if path.is_dir() else path.parent


def absolute(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders' absolute paths, without following links."""
    return tuple(Path(os.path.abspath(root)) for root in roots)


def read_rows(
    path: Path, target: str = DEFAULT_TARGET, roots: Sequence[Path] = (), unlabelled: bool = False
) -> tuple[list[Row], CheckResult]:
    """Return the rows of a manifest and the check result; rows with errors are only for finding more errors."""
    path = Path(os.path.abspath(path))
    result = CheckResult()
    records = list(records_of(path, result))
    if not records and not result.errors:
        result.errors.append("no rows; allowed: at least one")
    paths = FilePaths(folder_of(path), absolute(roots))
    return check_rows(records, paths, TARGETS[target].cells, result, unlabelled), result


@dataclass(frozen=True, slots=True)
class Table:
    """A manifest that is read row by row and never held in memory. Rows with errors don't stop the reading."""

    path: Path
    digest: str
    """SHA-256 over every row's unchecked cells, without the files."""
    length: int
    """Number of rows."""
    columns: frozenset[str]
    split_folders: bool
    """Whether folders named after splits define the rows' splits."""
    warnings: tuple[str, ...] = ()
    """Files and columns that were left out or changed."""
    allowed: tuple[Path, ...] = ()
    """Further folders that files may be below."""

    @property
    def has_splits(self) -> bool:
        """Whether rows have splits."""
        return "split" in self.columns or self.split_folders

    def rows(self, target: str | None) -> Iterator[tuple[Row, tuple[str, ...]]]:
        """Yield each row with its errors; a row with errors only has an id. Ids may occur twice.

        Label cells are read by `target`, or are texts as they are. Raises ManifestError when the file has changed.
        """
        paths = FilePaths(folder_of(self.path), self.allowed)
        columns = self.columns if target else self.columns - {"label"}
        result = CheckResult()
        for number, record in enumerate(records_of(self.path, result), start=1):
            row, errors = check_row(number, record, paths, columns, TARGETS[target or DEFAULT_TARGET].cells)
            yield row, tuple(errors)
        if result.errors:
            raise ManifestError(self.path, result.errors)


def open_table(path: Path, *, labelled: bool = True, roots: Sequence[Path] = ()) -> Table:
    """Read a manifest once, without its files, and check it as a whole.

    Files may be below the manifest's folder, and below `roots`.

    Raises ManifestError with all errors: no such file, no or unknown columns, broken lines.
    """
    path = Path(os.path.abspath(path))
    result = CheckResult()
    columns: set[str] = set()
    length, split_folders = 0, False
    total, spellings = hashlib.sha256(), Spellings()
    for record in records_of(path, result):
        length += 1
        spellings.add(record)
        columns.update(record.cells)
        split_folders = split_folders or bool(record.split)
        line = json.dumps([dict(record.cells), record.split], sort_keys=True, default=str)
        total.update(line.encode() + b"\n")
    if not length and not result.errors:
        result.errors.append("no rows; allowed: at least one")
    if length:
        result.errors.extend(column_problems(columns, result, labelled))
    if result.errors:
        raise ManifestError(path, result.errors)
    warnings = (*result.warnings, *spellings.warnings())
    return Table(path, total.hexdigest(), length, frozenset(columns), split_folders, warnings, absolute(roots))


def read_inputs(row: Row, names: Container[str]) -> dict[str, bytes | str]:
    """Return a row's inputs of the named modalities, with the bytes of its files. Raises OSError."""
    return {
        name: value.read_bytes() if isinstance(value, Path) else value
        for name, value in row.inputs.items()
        if name in names
    }


def read_splits(path: Path) -> dict[str, str]:
    """Return the split of each id that a table with the columns `id` and `split` has. Raises ManifestError."""
    if path.suffix.lower() not in READERS:
        raise ManifestError(path, [unknown_format(path)])
    result = CheckResult()
    names = ("id", "split")
    rows = [
        [str(cells.get(name) or "").strip() for name in names]
        for _, cells in READERS[path.suffix.lower()](path, names, result)
    ]
    if not set(names) <= result.columns.keys():
        result.errors.append(f"columns {list(result.columns.values()) or 'none'}; allowed: id and split")
    if result.errors:
        raise ManifestError(path, result.errors)
    return {visible(identifier).strip(): split_named(spelled(split)) for identifier, split in rows}


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    r"""Write a CSV manifest; the same rows give the same bytes (UTF-8, all columns, lines ended by \n).

    A text that a spreadsheet would run gets an apostrophe in front, which reading removes.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        names = column_names()
        file.write(csv_line(names))
        for row in rows:
            cells = cells_of(row, path.parent)
            file.write(csv_line(cells[name] for name in names))
