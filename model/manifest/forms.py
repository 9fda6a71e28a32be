"""The forms that a manifest can have: one table, a folder with a table, or a folder in the imagefolder convention."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from model.faults import Fault
from model.manifest.folders import Found, is_hidden, listed, numbered, printable, walk
from model.manifest.result import CheckResult
from model.manifest.tables import READERS, unknown_format
from model.spelling import spelled

COLUMNS = ("id", "image", "text", "label", "group", "split", "source", "licence")
SPLITS = ("train", "validation", "test", "unseen")

# What the imagefolder convention calls our columns and splits.
FOLDER_COLUMNS = {"file_name": "image", "caption": "text"}
FOLDER_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    "unseen": "unseen",
}

# What other tables call our columns, for hints.
USUAL_NAMES = {
    "label": ("class", "category", "target", "answer", "tag", "y", "labels"),
    "image": ("file", "filename", "path", "img", "picture", "photo", "url"),
    "text": ("caption", "title", "description", "sentence", "words", "body", "content"),
    "split": ("part", "subset", "fold", "set"),
    "group": ("cluster", "author", "user", "seller", "session"),
    "licence": ("license",),
    "id": ("key", "uid", "uuid", "index"),
}

_FRACTION = re.compile(r"[+-]?\d*([.,])\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was found: its cells by our column names, and where it is, for messages."""

    where: str
    cells: Mapping[str, Any]
    base: Path  # what its image path is relative to
    split: str = ""  # from the name of a split folder
    decimal_mark: str = "."


def records_of(path: Path, result: CheckResult) -> Iterator[Record]:
    """Yield the rows of a manifest as they were found; add what is wrong with its files to `result`."""
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
    found = walk(root)
    for folder in found.closed:
        result.errors.append(f"folder {folder!r} must not be read by this user; allowed: one with read permission")
    parts = {Path(): ""}
    if not _table_in(root, "metadata", CheckResult()):
        folders = (entry.name for entry in sorted(root.iterdir()) if entry.is_dir() and not is_hidden(entry.name))
        parts = {Path(name): split for name in folders if (split := folder_split(name))} or parts
    rest = found.images
    for part, split in parts.items():
        images = [image.relative_to(part) for image in rest if image.is_relative_to(part)]
        rest = [image for image in rest if not image.is_relative_to(part)]
        yield from _imagefolder_records(root, part, split, images, found, result)
    if rest:
        others = Counter(f"{image.parts[0]}/" if len(image.parts) > 1 else image.name for image in rest)
        allowed = f"pictures in {', '.join(f'{part}/' for part in parts)}"
        result.warnings.append(f"left out, next to the split folders: {numbered(others)}; allowed: {allowed}")
    result.warnings.extend(found.left_out())


def folder_split(name: str) -> str:
    """The split that a folder of this name holds, "" when it is none."""
    return FOLDER_SPLITS.get(spelled(name).lower(), "")


def _table_in(folder: Path, stem: str, result: CheckResult) -> Path | None:
    """The table of that name, in whichever format; two of them are a problem."""
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
    root: Path, part: Path, split: str, images: Sequence[Path], found: Found, result: CheckResult
) -> Iterator[Record]:
    """The rows of one folder, the root or one of its split folders, below which these images are."""
    table = _table_in(root / part, "metadata", result)
    if not table:
        for path in images:
            where = f"picture {printable((part / path).as_posix())}"
            yield _completed(Record(where, {"image": path.as_posix()}, root / part, split))
        result.warnings.extend(_doubtful_labels(part, images))
        return
    name = (part / table.name).as_posix()
    found.other = [other for other in found.other if other != name]
    paths = set()
    for record in _table_records(table, FOLDER_COLUMNS, split, result):
        image = spelled(str(record.cells.get("image")))
        paths.add(spelled(os.path.normpath(table.parent / image)))
        yield _completed(record)
    unlisted = [(part / path).as_posix() for path in images if spelled(str(table.parent / path)) not in paths]
    if unlisted:
        result.warnings.append(f"left out, not in {name}: {listed(unlisted)}; allowed: a row for each picture")


def _doubtful_labels(part: Path, images: Sequence[Path]) -> Iterator[str]:
    """Yield why the names of the folders that images are in may not be the labels that are meant."""
    loose = [(part / image).as_posix() for image in images if image.parent == Path()]
    folders = Counter(image.parent for image in images if image.parent != Path())
    if loose and folders:
        yield f"next to the class folders, so without a label: {listed(loose)}; allowed: pictures in a class folder"
    counts = Counter({f"{(part / folder).as_posix()}/": count for folder, count in folders.items()})
    if inner := [name for name, folder in zip(counts, folders, strict=True) if any(map(folder_split, folder.parts))]:
        yield f"folders named after splits, but not read as splits: {listed(inner)}; allowed: split folders at the top"
    if len({len(folder.parts) for folder in folders}) > 1:
        yield f"class folders on several levels, each with a label of its own: {numbered(counts)}"
    by_label: dict[str, list[str]] = {}
    for name, folder in zip(counts, folders, strict=True):
        by_label.setdefault(spelled(folder.name), []).append(name)
    for label, several in by_label.items():
        if len(several) > 1:
            kind = "labels are the names of several folders"
            yield Fault(f"label {label!r} is the name of several folders: {listed(several)}", repr(label), kind=kind)


def _completed(record: Record) -> Record:
    """With what the path of the picture says: the label, and the split of a "train/…" below metadata at the top."""
    image = record.cells.get("image")
    if not isinstance(image, str):
        return record
    path = PurePosixPath(image)
    split = record.split or (folder_split(path.parts[0]) if len(path.parts) > 1 else "")
    return replace(record, cells={"label": path.parent.name, **record.cells}, split=split)


def _table_records(path: Path, aliases: Mapping[str, str], split: str, result: CheckResult) -> Iterator[Record]:
    """The rows of one table, its columns renamed by `aliases`; unknown columns are left out, with a warning for each."""
    prefix = f"{path.parent.name}/{path.name} " if split else ""  # one of several tables: say which
    read = READERS[path.suffix.lower()]
    known = (*COLUMNS, *aliases)
    reported: set[str] = set()
    decimal_mark = ""
    for place, found in read(path, known, result):
        cells: dict[str, Any] = {}
        for name, value in found.items():
            if name in known:
                column = aliases.get(name, name)
                # Of both `text` and `caption`, the first that is not empty.
                if cells.get(column) in (None, ""):
                    cells[column] = value
            elif name not in reported:
                reported.add(name)
                written = result.columns[name]
                hint = column_hint(written, known)
                result.warnings.append(
                    f"{prefix}unknown column {written!r}{hint} is ignored; allowed: {', '.join(known)}"
                )
        if not decimal_mark and (decimal_mark := _decimal_mark(cells.get("label"), result.separators.get(path))) == ",":
            label = f"label {cells['label'].strip()!r}"
            result.warnings.append(
                f"{prefix}{place}: {label} has a decimal comma, with which --task regression reads numbers"
            )
        yield Record(prefix + place, cells, path.parent, split, decimal_mark or ".")


def _decimal_mark(label: object, separator: str | None) -> str:
    """Return the decimal mark of a number, "" if it has no fraction; a comma only where cells are separated by something else."""
    if separator in (None, ",") or not isinstance(label, str):
        return ""
    found = _FRACTION.fullmatch(label.strip())
    return found[1] if found else ""


def column_hint(name: str, known: Sequence[str]) -> str:
    """Return " (did you mean …?)" for the column that an unknown one was probably meant to be, "" if none is like it."""
    meant = column_meant_by(name, known)
    return f" (did you mean {meant!r}?)" if meant else ""


def column_meant_by(name: str, known: Sequence[str]) -> str:
    """The column that an unknown one was probably meant to be, "" if none is like it."""
    plain = name.strip().lower()

    def usual(word: str) -> list[str]:
        return [column for column, names in USUAL_NAMES.items() if word in (column, *names)]

    # As a whole, as a slip of the pen, or by a part of it: "caption", "lable", "image_path".
    parts = [column for part in plain.replace("-", " ").replace("_", " ").split() for column in usual(part)]
    return next(iter([*usual(plain), *difflib.get_close_matches(plain, known, n=1), *parts]), "")
