"""The manifest: a table of (image, text, label), the only thing that training reads.

One row is one example. `label` is required, and `image` or `text` or both; the other columns are optional:

    image    path of a picture, relative to the manifest's folder, with forward slashes; may be empty
    text     the words; may be empty (but not both)
    label    the answer: one label; several with | between them, or none (multi-label); or a number (regression)
    id       unique name of the row; default: its number, counted from 1
    group    rows of one group are never separated by a split; default: the id
    split    train, validation, test, unseen (a source never trained or tuned on, only reported); or no row has one
    source   where the example comes from; results are reported per source
    licence  under which terms it may be used

Three forms hold the same table:

* a file: `.csv` (UTF-8, first line names the columns), `.jsonl` (an object a line) or `.parquet` (needs pyarrow);
* a folder that holds one of `manifest.csv`, `manifest.jsonl`, `manifest.parquet`;
* a folder in the "imagefolder" convention (https://huggingface.co/docs/datasets/image_dataset#imagefolder):
  `metadata.csv`, `.jsonl` or `.parquet` with `file_name` (our image), `text` or `caption` (our text) and perhaps
  `label`, in the folder itself or in one folder per split (`train`; `validation`, `val`, `valid` or `dev`; `test`).
  Without a label column, a picture's label is the name of the folder that it lies in; without metadata, every picture
  below the folder is a row.

Whatever is wrong is reported at once, as `ManifestError.problems`.
"""

import csv
import difflib
import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from model.config import Scale, TaskName
from model.errors import ModelError
from model.targets import TARGETS, Targets, WrongCell

COLUMNS = ("id", "image", "text", "label", "group", "split", "source", "licence")
SPLITS = ("train", "validation", "test", "unseen")
SUFFIXES = (".csv", ".jsonl", ".parquet")

# What the imagefolder convention calls our columns and splits.
FOLDER_COLUMNS = {"file_name": "image", "caption": "text"}
FOLDER_SPLITS = {"train": "train", "test": "test", "unseen": "unseen"} | dict.fromkeys(
    ("validation", "val", "valid", "dev"), "validation"
)
PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))

# What other tables call our columns, for a hint to whoever has such a one.
USUAL_NAMES = {
    "label": ("class", "category", "target", "answer", "tag", "y", "labels"),
    "image": ("file", "filename", "path", "img", "picture", "photo", "url"),
    "text": ("caption", "title", "description", "sentence", "words", "body", "content"),
    "split": ("part", "subset", "fold", "set"),
    "group": ("cluster", "author", "user", "seller", "session"),
    "licence": ("license",),
    "id": ("key", "uid", "uuid", "index"),
}

LISTED = 20  # problems shown in the message; the rest is counted
MAX_CELL = 10_000_000  # characters in one cell of a CSV; Python's own limit (131,072) is short for a long text


class ManifestError(ModelError):
    """A manifest that cannot be trained on; `problems` has one line for everything wrong with it."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = [f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}", *problems[:LISTED]]
        if len(problems) > LISTED:
            lines.append(f"… and {len(problems) - LISTED} more; `polymodal check` lists them all")
        super().__init__("\n  ".join(lines))


@dataclass(frozen=True, slots=True)
class Row:
    """One example; an absent image or text is None, an absent split, source or licence is empty."""

    id: str
    image: Path | None
    """Absolute."""
    text: str | None
    label: str
    """The cell, in the one spelling that its task has for it; "" for none of the labels."""
    group: str
    split: str
    source: str
    licence: str


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


@dataclass(frozen=True, slots=True)
class _Record:
    """A row as it was found: its cells by our column names, and where it stands, for messages."""

    where: str
    cells: Mapping[str, Any]
    base: Path  # what its image path is relative to
    split: str = ""  # from the name of a split folder


def read_manifest(path: Path, task: TaskName = "single-label") -> Manifest:
    """Read and check a manifest file or folder, its label cells as `task` has them.

    Raises ManifestError with every problem in it.
    """
    path = Path(os.path.abspath(path))  # not resolve(): a user's links stay what they are
    rows, problems = read_rows(path, task)
    if problems:
        raise ManifestError(path, problems)
    root = path if path.is_dir() else path.parent
    digests = tuple(_file_digest(row.image) for row in rows)
    return Manifest(tuple(rows), root, data_digest(rows, root, digests), digests, task)


def read_rows(path: Path, task: TaskName = "single-label") -> tuple[list[Row], list[str]]:
    """The rows of a manifest, and everything wrong with them; with problems they are only good for finding more of them."""
    path = Path(os.path.abspath(path))
    problems: list[str] = []
    records = list(_records_of(path, problems))
    if not records and not problems:
        problems.append("no rows; allowed: at least one")
    rows = _check(records, path if path.is_dir() else path.parent, TARGETS[task], problems)
    return rows, problems


def task_name(task: str) -> TaskName:
    """A task's name, checked; raises ModelError."""
    try:
        return TypeAdapter(TaskName).validate_python(task)
    except ValidationError as problem:
        raise ModelError(f"task {task!r} is not known; known are {', '.join(TARGETS)}") from problem


@dataclass(frozen=True, slots=True)
class Table:
    """A manifest that is read row by row and never held: bad rows are told, and don't keep the others from being read."""

    path: Path
    digest: str
    """SHA-256 over every row's cells as they were found; pictures are not read for it."""
    length: int
    """Rows."""
    columns: frozenset[str]
    split_folders: bool
    """Whether folders named after splits say what part rows belong to."""

    @property
    def has_splits(self) -> bool:
        """Whether rows say what part they belong to."""
        return "split" in self.columns or self.split_folders

    def rows(self, task: str | None) -> Iterator[tuple[Row, tuple[str, ...]]]:
        """Each row, and what is wrong with it; with problems the row only has an id. Ids may occur twice.

        Label cells are read as `task` has them, or not at all. Raises ManifestError when the file is no longer what it was.
        """
        root = self.path if self.path.is_dir() else self.path.parent
        columns = self.columns if task else self.columns - {"label"}
        problems: list[str] = []
        for number, record in enumerate(_records_of(self.path, problems), start=1):
            row, wrong = _row(number, record, root, columns, TARGETS[task or "single-label"])
            yield row, tuple(wrong)
        if problems:
            raise ManifestError(self.path, problems)


def open_table(path: Path, *, labelled: bool = True) -> Table:
    """Read a manifest through once, without its pictures, and check what concerns it as a whole.

    Raises ManifestError with all of that: no such file, no or unknown columns, lines that are broken.
    """
    path = Path(os.path.abspath(path))
    problems: list[str] = []
    columns: set[str] = set()
    length, split_folders = 0, False
    total = hashlib.sha256()
    for record in _records_of(path, problems):
        length += 1
        columns.update(record.cells)
        split_folders = split_folders or bool(record.split)
        line = json.dumps([dict(record.cells), record.split], sort_keys=True, default=str)
        total.update(line.encode() + b"\n")
    if not length and not problems:
        problems.append("no rows; allowed: at least one")
    if length:
        problems += _column_problems(columns, labelled)
    if problems:
        raise ManifestError(path, problems)
    return Table(path, total.hexdigest(), length, frozenset(columns), split_folders)


def read_parts(row: Row, names: Container[str]) -> dict[str, bytes | str]:
    """What a row has of the named modalities; its picture is read here. Raises OSError."""
    parts: dict[str, bytes | str] = {}
    if row.image is not None and "image" in names:
        parts["image"] = row.image.read_bytes()
    if row.text and "text" in names:
        parts["text"] = row.text
    return parts


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    r"""Write a CSV manifest; the same rows give the same bytes (UTF-8, all columns, lines ended by \n)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(UnixLines(file), COLUMNS, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(_cells(row, path.parent) for row in rows)


class UnixLines:
    r"""Ends lines by \n, for a csv writer that ends them by \r\n: with \n alone it would not quote a \r in a cell."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        """Write one line, as a file does."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def data_digest(rows: Sequence[Row], root: Path, image_digests: Sequence[str]) -> str:
    """SHA-256 over one line per row: its cells and `image_sha256`, the SHA-256 of its picture's bytes, as JSON.

    Keys are sorted, there are no spaces, nothing but what JSON demands is escaped, the image's path is relative.
    """
    total = hashlib.sha256()
    for row, image_digest in zip(rows, image_digests, strict=True):
        cells = _cells(row, root) | {"image_sha256": image_digest}
        line = json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        total.update(line.encode() + b"\n")
    return total.hexdigest()


def _cells(row: Row, root: Path) -> dict[str, str]:
    image = "" if row.image is None else Path(os.path.relpath(row.image, root)).as_posix()
    return asdict(row) | {"image": image, "text": row.text or ""}


def _file_digest(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # reads in blocks


# --- finding the rows ---


def _records_of(path: Path, problems: list[str]) -> Iterator[_Record]:
    if not path.exists():
        problems.append("no such file or folder")
    elif path.is_dir():
        yield from _folder_records(path, problems)
    elif path.suffix.lower() not in SUFFIXES:
        problems.append(f"format {path.suffix or '(none)'!r}; allowed: {', '.join(SUFFIXES)}, or a folder")
    else:
        yield from _file_records(path, {}, "", problems)


def _folder_records(root: Path, problems: list[str]) -> Iterator[_Record]:
    table = _table_in(root, "manifest", problems)
    if table:
        yield from _file_records(table, {}, "", problems)
        return
    splits = sorted(folder for folder in root.iterdir() if folder.is_dir() and folder.name in FOLDER_SPLITS)
    if _table_in(root, "metadata", []) or not splits:
        yield from _imagefolder_records(root, "", problems)
        return
    for folder in splits:
        yield from _imagefolder_records(folder, FOLDER_SPLITS[folder.name], problems)


def _table_in(folder: Path, stem: str, problems: list[str]) -> Path | None:
    """The table of that name, in whichever format; two of them are a problem."""
    tables = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        problems.append(f"{folder.name}/ holds {names}; allowed: one of them")
    return tables[0] if tables else None


def _imagefolder_records(folder: Path, split: str, problems: list[str]) -> Iterator[_Record]:
    table = _table_in(folder, "metadata", problems)
    if table:
        for record in _file_records(table, FOLDER_COLUMNS, split, problems):
            yield _completed(record)
        return
    pictures = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    for picture in sorted(pictures):
        image = picture.relative_to(folder).as_posix()
        yield _completed(_Record(f"picture {image}", {"image": image}, folder, split))


def _completed(record: _Record) -> _Record:
    """With what the path of the picture says: the label, and the split of a "train/…" beside metadata at the top."""
    image = record.cells.get("image")
    if not isinstance(image, str):
        return record
    path = PurePosixPath(image)
    split = record.split or (FOLDER_SPLITS.get(path.parts[0], "") if len(path.parts) > 1 else "")
    return replace(record, cells={"label": path.parent.name, **record.cells}, split=split)


def _file_records(path: Path, aliases: Mapping[str, str], split: str, problems: list[str]) -> Iterator[_Record]:
    """The rows of one table, its columns renamed by `aliases`."""
    prefix = f"{path.parent.name}/{path.name} " if split else ""  # one of several tables: say which
    read = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[path.suffix.lower()]
    known = (*COLUMNS, *aliases)
    reported: set[str] = set()
    for place, found in read(path, problems):
        for name in found:
            if name not in known and name not in reported:
                reported.add(name)
                problems.append(f"{prefix}{_unknown_column(name, known)}")
        cells: dict[str, Any] = {}
        for name, value in found.items():
            column = aliases.get(name, name)
            if column not in cells or cells[column] in (None, ""):  # both `text` and `caption`: the one that is there
                cells[column] = value
        yield _Record(prefix + place, cells, path.parent, split)


def _unknown_column(name: str, known: Sequence[str]) -> str:
    meant = _meant_by(name, known)
    hint = f" (did you mean {meant!r}?)" if meant else ""
    return f"unknown column {name!r}{hint}; allowed: {', '.join(known)}"


def _meant_by(name: str, known: Sequence[str]) -> str:
    """The column that an unknown one was probably meant to be, "" if none is like it."""
    plain = name.strip().lower()

    def usual(word: str) -> list[str]:
        return [column for column, names in USUAL_NAMES.items() if word in (column, *names)]

    # As a whole, as a slip of the pen, or by a part of it: "caption", "lable", "image_path".
    parts = [column for part in plain.replace("-", " ").replace("_", " ").split() for column in usual(part)]
    return next(iter([*usual(plain), *difflib.get_close_matches(plain, known, n=1), *parts]), "")


def _csv_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    previous_limit = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            twice = sorted({name for name in header if header.count(name) > 1})
            problems.extend(f"line 1: column {name!r} stands there twice; allowed: once" for name in twice)
            for cells in reader:
                where = f"line {reader.line_num}"
                if len(cells) == len(header):
                    yield where, dict(zip(header, cells, strict=True))
                elif cells:  # an empty line is no row
                    problems.append(f"{where}: {len(cells)} cells; allowed: {len(header)}, as many as columns")
    except UnicodeDecodeError as error:
        problems.append(f"not UTF-8 text (byte {error.object[error.start]:#04x}); allowed: UTF-8")
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: broken CSV ({error})")
    finally:
        csv.field_size_limit(previous_limit)


def _jsonl_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                found = json.loads(line.decode("utf-8-sig"))
            except (UnicodeDecodeError, ValueError, RecursionError) as error:
                problems.append(f"{where}: broken JSON ({error})")
                continue
            if isinstance(found, dict):
                yield where, found
            else:
                problems.append(f"{where}: a JSON {type(found).__name__}; allowed: an object, {{…}}")


def _parquet_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        # An optional dependency: who has no parquet file need not have it.
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        problems.append("reading .parquet needs pyarrow: pip install 'polymodal[train]', or save the table as .csv")
        return
    try:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for found in batch.to_pylist():
                    number += 1
                    yield f"row {number}", found
    except (pyarrow.ArrowException, OSError) as error:
        problems.append(f"broken parquet ({error})")


# --- checking the rows ---


def _check(records: Sequence[_Record], root: Path, targets: Targets, problems: list[str]) -> list[Row]:
    columns = {column for record in records for column in record.cells}
    if records:
        problems += _column_problems(columns)
    rows: list[Row] = []
    seen: dict[str, str] = {}  # id → where
    for number, record in enumerate(records, start=1):
        row, wrong = _row(number, record, root, columns, targets)
        if row.id in seen:
            wrong.append(f"id {row.id!r} is taken by {seen[row.id]}; allowed: unique ids")
        seen.setdefault(row.id, record.where)
        problems.extend(f"{record.where}: {problem}" for problem in wrong)
        rows.append(row)
    problems.extend(_split_problems(rows, records))
    return rows


def _column_problems(columns: Set[str], labelled: bool = True) -> Iterator[str]:
    # A misspelt column was reported with what it was meant to be; that it is missing as well is no second problem.
    found = columns | {_meant_by(column, COLUMNS) for column in columns - set(COLUMNS)}
    if labelled and "label" not in found:
        yield "no column 'label'; allowed: a manifest with one"
    if not found & {"image", "text"}:
        yield "no column 'image' or 'text'; allowed: a manifest with one or both"


def _split_problems(rows: Sequence[Row], records: Sequence[_Record]) -> Iterator[str]:
    without = [record.where for row, record in zip(rows, records, strict=True) if not row.split]
    if without and len(without) < len(rows):
        found = f"{len(without)} of {len(rows)} rows have no split, the first is {without[0]}"
        yield f"{found}; allowed: a split in every row, or in none"


def _row(number: int, record: _Record, root: Path, columns: Set[str], targets: Targets) -> tuple[Row, list[str]]:
    """The row, and what is wrong with it; with problems the row is only good for finding more of them.

    A column that is missing altogether was reported once, so it is not reported here again.
    """
    wrong: list[str] = []
    cells = {name: _text_of(name, record.cells.get(name), wrong) for name in COLUMNS if name != "label"}
    label = _label_of(record.cells.get("label"), targets, wrong) if "label" in columns else ""
    image = _image_path(cells["image"], record.base, root, wrong) if cells["image"] else None
    if cells["image"] == "" and cells["text"] == "" and columns & {"image", "text"}:
        wrong.append("neither image nor text; allowed: at least one of them")
    split = cells["split"] or record.split
    if split and split not in SPLITS:
        wrong.append(f"split {split!r}; allowed: {', '.join(SPLITS)}, or no split in any row")
    name = cells["id"] or str(number)
    row = Row(
        id=name,
        image=image,
        text=cells["text"] or None,
        label=label,
        group=cells["group"] or name,
        split=split,
        source=cells["source"] or "",
        licence=cells["licence"] or "",
    )
    return row, wrong


def _label_of(value: object, targets: Targets, wrong: list[str]) -> str:
    """A label cell as its task spells it, "" when it was wrong."""
    try:
        cell = _text_of("label", targets.plain(value), wrong)
        return "" if cell is None else targets.checked(cell)
    except WrongCell as problem:
        wrong.append(str(problem))
        return ""


def _text_of(name: str, value: object, wrong: list[str]) -> str | None:
    """A cell as text, None when that was wrong; a blank text is no text, and other cells lose blanks around them."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):  # a label or an id may be a number
        value = str(value)
    problem = ""
    if not isinstance(value, str):
        problem = f"{name} is a {type(value).__name__}; allowed: " + ("a path" if name == "image" else "text")
    elif "\0" in value:
        problem = f"{name} holds a NUL byte; allowed: text without"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        problem = f"{name} holds half a surrogate pair; allowed: whole characters"
    if problem or not isinstance(value, str):
        wrong.append(problem)
        return None
    return value if name == "text" and value.strip() else value.strip()


def _image_path(image: str, base: Path, root: Path, wrong: list[str]) -> Path | None:
    path = Path(os.path.normpath(base / image))
    if not path.is_relative_to(root):
        wrong.append(f"image {image!r} leaves the folder; allowed: a path below the manifest's folder")
    elif not path.is_file():
        wrong.append(f"image {image!r} is not there; allowed: a file below {base.name}/")
    elif not os.access(path, os.R_OK):
        wrong.append(f"image {image!r} must not be read by this user; allowed: a file with read permission")
    else:
        return path
    return None
