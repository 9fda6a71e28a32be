"""Forms of a manifest: a table, a folder with a table, or a folder in the imagefolder convention."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from polymodal.model.faults import Fault
from polymodal.model.manifest.folders import (
    Listing,
    file_noun,
    is_hidden,
    listed,
    modality_of,
    numbered,
    printable,
    walk,
)
from polymodal.model.manifest.result import CheckResult
from polymodal.model.manifest.tables import READERS, unknown_format
from polymodal.model.modalities import MODALITIES
from polymodal.model.spelling import spelled

SPLITS = ("train", "validation", "test", "unseen")

# Names of the imagefolder convention for the column of files, whose suffixes decide their modality, and for splits.
FILE_NAME = "file_name"
FOLDER_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    "unseen": "unseen",
}

# Usual names of columns in other tables, for hints. MODALITIES has the names for modalities.
USUAL_NAMES = {
    "label": ("class", "category", "target", "answer", "tag", "y", "labels"),
    "split": ("part", "subset", "fold", "set"),
    "group": ("cluster", "author", "user", "seller", "session"),
    "licence": ("license",),
    "id": ("key", "uid", "uuid", "index"),
}

_FRACTION = re.compile(r"[+-]?\d*([.,])\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """An unchecked row: its cells by column name, and its place for messages."""

    where: str
    cells: Mapping[str, Any]
    base: Path  # folder that its paths are relative to
    split: str = ""  # from the name of a split folder
    decimal_mark: str = "."


def column_names() -> tuple[str, ...]:
    """Return the columns of a manifest, in the order in which they are written."""
    return ("id", *MODALITIES, "label", "group", "split", "source", "licence")


def records_of(path: Path, result: CheckResult) -> Iterator[Record]:
    """Yield the unchecked rows of a manifest; add faults of its files to `result`."""
    if not path.exists():
        result.errors.append("no such file or folder")
    elif path.is_dir():
        yield from _folder_records(path, result)
    elif path.suffix.lower() not in READERS:
        result.errors.append(unknown_format(path))
    else:
        yield from _table_records(path, {}, "", result)


def _folder_records(root: Path, result: CheckResult) -> Iterator[Record]:
    table = _table_in(root, "manifest", result)
    if table:
        yield from _table_records(table, {}, "", result)
        return
    listing = walk(root)
    for closed in listing.closed:
        result.errors.append(f"folder {closed!r} must not be read by this user; allowed: one with read permission")
    splits = {Path(): ""}  # by folder, relative to the root
    if not _table_in(root, "metadata", CheckResult()):
        names = (entry.name for entry in sorted(root.iterdir()) if entry.is_dir() and not is_hidden(entry.name))
        splits = {Path(name): split for name in names if (split := folder_split(name))} or splits
    rest = listing.files
    for folder, split in splits.items():
        inside = [path.relative_to(folder) for path in rest if path.is_relative_to(folder)]
        rest = [path for path in rest if not path.is_relative_to(folder)]
        yield from _imagefolder_records(root, folder, split, inside, listing, result)
    if rest:
        others = Counter(f"{path.parts[0]}/" if len(path.parts) > 1 else path.name for path in rest)
        allowed = f"{file_noun('s')} in {', '.join(f'{folder}/' for folder in splits)}"
        result.warnings.append(f"left out, next to the split folders: {numbered(others)}; allowed: {allowed}")
    result.warnings.extend(listing.left_out())


def folder_split(name: str) -> str:
    """Return the split that a folder of this name holds, "" for other names."""
    return FOLDER_SPLITS.get(spelled(name).lower(), "")


def _table_in(folder: Path, stem: str, result: CheckResult) -> Path | None:
    """Return the table of that name in any format; report two of them as an error."""
    tables = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.stem.lower() == stem and entry.suffix.lower() in READERS.keys() - {".txt"} and entry.is_file()
    ]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        result.errors.append(f"{folder.name}/ holds {names}; allowed: one of them")
    return tables[0] if tables else None


def _imagefolder_records(
    root: Path, folder: Path, split: str, inside: Sequence[Path], listing: Listing, result: CheckResult
) -> Iterator[Record]:
    """Yield the rows of the files `inside` one folder, the root or one of its split folders."""
    table = _table_in(root / folder, "metadata", result)
    if not table:
        for path in inside:
            modality = MODALITIES[modality_of(path) or ""]
            where = f"{modality.common_noun} {printable((folder / path).as_posix())}"
            yield _with_label_and_split(Record(where, {modality.name: path.as_posix()}, root / folder, split))
        result.warnings.extend(_label_hints(folder, inside))
        return
    name = (folder / table.name).as_posix()
    listing.other = [other for other in listing.other if other != name]
    paths = set()
    for record in _table_records(table, _metadata_columns(), split, result):
        for cell in _file_cells(record):
            paths.add(spelled(os.path.normpath(table.parent / spelled(cell))))
        yield _with_label_and_split(record)
    unlisted = [(folder / path).as_posix() for path in inside if spelled(str(table.parent / path)) not in paths]
    if unlisted:
        result.warnings.append(f"left out, not in {name}: {listed(unlisted)}; allowed: a row for each {file_noun()}")


def _metadata_columns() -> dict[str, str]:
    """Map column names of the imagefolder convention to modalities, and FILE_NAME to ""."""
    texts = {column: name for name, modality in MODALITIES.items() for column in modality.metadata_columns}
    return {FILE_NAME: "", **texts}


def _file_cells(record: Record) -> list[str]:
    """Return the cells of a row that are paths of files."""
    cells = (record.cells.get(name) for name, modality in MODALITIES.items() if not modality.textual)
    return [cell for cell in cells if isinstance(cell, str)]


def _label_hints(top: Path, inside: Sequence[Path]) -> Iterator[str]:
    """Yield reasons why folder names may not be the intended labels."""
    loose = [(top / path).as_posix() for path in inside if path.parent == Path()]
    folders = Counter(path.parent for path in inside if path.parent != Path())
    if loose and folders:
        yield f"next to the class folders, so without a label: {listed(loose)}; allowed: {file_noun('s')} in a class folder"
    counts = Counter({f"{(top / folder).as_posix()}/": count for folder, count in folders.items()})
    if inner := [name for name, folder in zip(counts, folders, strict=True) if any(map(folder_split, folder.parts))]:
        yield f"folders named after splits, but not read as splits: {listed(inner)}; allowed: split folders at the top"
    if len({len(folder.parts) for folder in folders}) > 1:
        yield f"class folders on several levels, each with a label of its own: {numbered(counts)}"
    by_label: dict[str, list[str]] = {}
    for name, folder in zip(counts, folders, strict=True):
        by_label.setdefault(spelled(folder.name), []).append(name)
    for label, names in by_label.items():
        if len(names) > 1:
            kind = "labels are the names of several folders"
            yield Fault(f"label {label!r} is the name of several folders: {listed(names)}", repr(label), kind=kind)


def _with_label_and_split(record: Record) -> Record:
    """Return a record with label and split from the path of its file, where its cells have none."""
    if not (cells := _file_cells(record)):
        return record
    path = PurePosixPath(next(filter(None, cells), ""))
    split = record.split or (folder_split(path.parts[0]) if len(path.parts) > 1 else "")
    return replace(record, cells={"label": path.parent.name, **record.cells}, split=split)


def _table_records(path: Path, aliases: Mapping[str, str], split: str, result: CheckResult) -> Iterator[Record]:
    """Yield the rows of one table with columns renamed by `aliases`, and warn about unknown columns.

    A cell of FILE_NAME belongs to the modality of its suffix, or to the first one that has files.
    """
    prefix = f"{path.parent.name}/{path.name} " if split else ""  # one of several tables
    read = READERS[path.suffix.lower()]
    known = (*column_names(), *aliases)
    reported: set[str] = set()
    decimal_mark = ""
    for place, row in read(path, known, result):
        cells: dict[str, Any] = {}
        for name, value in row.items():
            if name in known:
                column = aliases.get(name, name) or _modality_of_cell(value)
                # Of both `text` and `caption`, the first that is not empty.
                if cells.get(column) in (None, ""):
                    cells[column] = value
            elif name not in reported:
                reported.add(name)
                column = f"{result.columns[name]!r}{column_hint(result.columns[name], known)}"
                result.warnings.append(f"{prefix}unknown column {column} is ignored; allowed: {', '.join(known)}")
        if not decimal_mark and (decimal_mark := _decimal_mark(cells.get("label"), result.separators.get(path))) == ",":
            label = f"label {cells['label'].strip()!r}"
            result.warnings.append(
                f"{prefix}{place}: {label} has a decimal comma, with which --target regression reads numbers"
            )
        yield Record(prefix + place, cells, path.parent, split, decimal_mark or ".")


def _modality_of_cell(value: object) -> str:
    """Return the modality of the file that a cell names, the first one that has files if its suffix is of none."""
    named = modality_of(PurePosixPath(value)) if isinstance(value, str) else None
    return named or next(name for name, modality in MODALITIES.items() if not modality.textual)


def _decimal_mark(label: object, separator: str | None) -> str:
    """Return the decimal mark of a number, "" if it has no fraction; a comma only where it does not separate cells."""
    if separator in (None, ",") or not isinstance(label, str):
        return ""
    match = _FRACTION.fullmatch(label.strip())
    return match[1] if match else ""


def column_hint(name: str, known: Sequence[str]) -> str:
    """Return " (did you mean …?)" with the known column that an unknown one resembles, "" if it resembles none."""
    plain = name.strip().lower()
    usual_names = USUAL_NAMES | {name: modality.usual_columns for name, modality in MODALITIES.items()}

    def usual(word: str) -> list[str]:
        return [column for column, names in usual_names.items() if word in (column, *names)]

    # As a whole, with a typo, or by one of its words: "caption", "lable", "image_path".
    words = [column for word in plain.replace("-", " ").replace("_", " ").split() for column in usual(word)]
    similar = next(iter([*usual(plain), *difflib.get_close_matches(plain, known, n=1), *words]), "")
    return f" (did you mean {similar!r}?)" if similar else ""
