"""Read, check and write manifests."""

import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from model.config import Scale, TaskName
from model.errors import ModelError
from model.faults import Faults
from model.manifest.digest import cells_of, data_digest, file_digest
from model.manifest.forms import COLUMNS, SPLITS, records_of
from model.manifest.paths import ImagePaths
from model.manifest.result import CheckResult
from model.manifest.rows import Row, Spellings, check_row, check_rows, column_problems, split_named
from model.manifest.spreadsheets import csv_line
from model.manifest.tables import READERS, unknown_format
from model.spelling import spelled, visible
from model.targets import TARGETS

LISTED = 20  # kinds of problems shown in the message; the rest is counted


class ManifestError(ModelError):
    """A manifest that cannot be trained on; `problems` has one line for everything wrong with it."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        kinds = Faults(problems).lines()
        lines = [f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}", *kinds[:LISTED]]
        if len(kinds) > LISTED:
            lines.append(f"… and {len(kinds) - LISTED} more; `polymodal check` lists them all")
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked table: every picture exists, every id is unique, either all rows have a split or none has."""

    rows: tuple[Row, ...]
    root: Path
    """The folder that image paths are relative to."""
    digest: str
    """The data digest, see `data_digest`: changes with any cell, any picture's bytes, and the order of the rows."""
    image_digests: tuple[str, ...] = field(repr=False, compare=False, default=())
    """SHA-256 of each row's picture, "" where there is none; kept so that no picture is read twice."""
    task: TaskName = "single-label"
    """How label cells were read: a name in the table TARGETS."""
    split_seed: int | None = None
    """What its rows were divided with; None where it came with splits, or has none yet."""
    warnings: tuple[str, ...] = field(repr=False, compare=False, default=())
    """What was left out or read in another way than it is written; for its user to see."""
    allowed: tuple[Path, ...] = field(repr=False, compare=False, default=())
    """Folders besides `root` that images may be below."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that occurs, sorted; none for a regression."""
        return TARGETS[self.task].labels(self.cells())

    @property
    def scale(self) -> Scale | None:
        """Mean and standard deviation of the training part's numbers; None for labels."""
        return TARGETS[self.task].scale(self.cells("train"))

    def cells(self, split: str | None = None) -> list[str]:
        """The label cells, of one split or of all rows."""
        return [row.label for row in (self.rows if split is None else self.by_split(split))]

    def by_split(self, name: str) -> tuple[Row, ...]:
        """The rows of one split, in the manifest's order."""
        if name not in SPLITS:
            raise ValueError(f"split: {name!r}; allowed: {', '.join(SPLITS)}")
        return tuple(row for row in self.rows if row.split == name)


def read_manifest(path: Path, task: TaskName = "single-label", roots: Sequence[Path] = ()) -> Manifest:
    """Read and check a manifest file or folder, its label cells as `task` has them.

    Images may be below the manifest's folder, and below `roots`. Raises ManifestError with every problem in it.
    """
    path = Path(os.path.abspath(path))  # not resolve(): a user's links stay what they are
    rows, result = read_rows(path, task, roots)
    if result.errors:
        raise ManifestError(path, result.errors)
    root, allowed = folder_of(path), absolute(roots)
    digests = tuple(file_digest(row.image) for row in rows)
    digest = data_digest(rows, (root, *allowed), digests)
    return Manifest(tuple(rows), root, digest, digests, task, warnings=tuple(result.warnings), allowed=allowed)


def folder_of(path: Path) -> Path:
    """Return the folder that a manifest's image paths are relative to."""
    return path if path.is_dir() else path.parent


def absolute(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders' absolute paths; links stay what they are."""
    return tuple(Path(os.path.abspath(root)) for root in roots)


def read_rows(path: Path, task: TaskName = "single-label", roots: Sequence[Path] = ()) -> tuple[list[Row], CheckResult]:
    """Return the rows of a manifest and what the checks found; rows with errors are only good for finding more errors."""
    path = Path(os.path.abspath(path))
    result = CheckResult()
    records = list(records_of(path, result))
    if not records and not result.errors:
        result.errors.append("no rows; allowed: at least one")
    return check_rows(records, ImagePaths(folder_of(path), absolute(roots)), TARGETS[task], result), result


def task_name(task: str) -> TaskName:
    """A task's name, checked; raises ModelError."""
    try:
        return TypeAdapter(TaskName).validate_python(task)
    except ValidationError as problem:
        raise ModelError(f"task {task!r} is not known; known are {', '.join(TARGETS)}") from problem


@dataclass(frozen=True, slots=True)
class Table:
    """A manifest that is read row by row and never held. Bad rows are reported, and don't keep the others from being read."""

    path: Path
    digest: str
    """SHA-256 over every row's cells as they were found; pictures are not read for it."""
    length: int
    """Rows."""
    columns: frozenset[str]
    split_folders: bool
    """Whether folders named after splits say what part rows belong to."""
    warnings: tuple[str, ...] = ()
    """What was left out or read in another way than it is written."""
    allowed: tuple[Path, ...] = ()
    """Folders besides the manifest's own that images may be below."""

    @property
    def has_splits(self) -> bool:
        """Whether rows say what part they belong to."""
        return "split" in self.columns or self.split_folders

    def rows(self, task: str | None) -> Iterator[tuple[Row, tuple[str, ...]]]:
        """Each row, and what is wrong with it; with problems the row only has an id. Ids may occur twice.

        Label cells are read as `task` has them, or not at all. Raises ManifestError when the file is no longer what it was.
        """
        paths = ImagePaths(folder_of(self.path), self.allowed)
        columns = self.columns if task else self.columns - {"label"}
        result = CheckResult()
        for number, record in enumerate(records_of(self.path, result), start=1):
            row, wrong = check_row(number, record, paths, columns, TARGETS[task or "single-label"])
            yield row, tuple(wrong)
        if result.errors:
            raise ManifestError(self.path, result.errors)


def open_table(path: Path, *, labelled: bool = True, roots: Sequence[Path] = ()) -> Table:
    """Read a manifest through once, without its pictures, and check what concerns it as a whole.

    Images may be below the manifest's folder, and below `roots`.

    Raises ManifestError with all of that: no such file, no or unknown columns, lines that are broken.
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


def read_parts(row: Row, names: Container[str]) -> dict[str, bytes | str]:
    """What a row has of the named modalities; its picture is read here. Raises OSError."""
    parts: dict[str, bytes | str] = {}
    if row.image is not None and "image" in names:
        parts["image"] = row.image.read_bytes()
    if row.text and "text" in names:
        parts["text"] = row.text
    return parts


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

    A text that a spreadsheet would run has an apostrophe in front, which reading the file takes away again.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(COLUMNS))
        for row in rows:
            cells = cells_of(row, path.parent)
            file.write(csv_line(cells[column] for column in COLUMNS))
