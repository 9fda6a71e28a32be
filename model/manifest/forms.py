"""The forms that a manifest can have: one table, a folder with a table, or a folder in the imagefolder convention."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from model.manifest.result import CheckResult
from model.manifest.tables import READERS, unknown_format

COLUMNS = ("id", "image", "text", "label", "group", "split", "source", "licence")
SPLITS = ("train", "validation", "test", "unseen")

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

_FRACTION = re.compile(r"[+-]?\d*([.,])\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was found: its cells by our column names, and where it stands, for messages."""

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
    splits = sorted(folder for folder in root.iterdir() if folder.is_dir() and folder.name in FOLDER_SPLITS)
    if _table_in(root, "metadata", CheckResult()) or not splits:
        yield from _imagefolder_records(root, "", result)
        return
    for folder in splits:
        yield from _imagefolder_records(folder, FOLDER_SPLITS[folder.name], result)


def _table_in(folder: Path, stem: str, result: CheckResult) -> Path | None:
    """The table of that name, in whichever format; two of them are a problem."""
    tables = [
        folder / f"{stem}{suffix}" for suffix in READERS if suffix != ".txt" and (folder / f"{stem}{suffix}").is_file()
    ]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        result.errors.append(f"{folder.name}/ holds {names}; allowed: one of them")
    return tables[0] if tables else None


def _imagefolder_records(folder: Path, split: str, result: CheckResult) -> Iterator[Record]:
    table = _table_in(folder, "metadata", result)
    if table:
        for record in _table_records(table, FOLDER_COLUMNS, split, result):
            yield _completed(record)
        return
    pictures = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    for picture in sorted(pictures):
        image = picture.relative_to(folder).as_posix()
        yield _completed(Record(f"picture {image}", {"image": image}, folder, split))


def _completed(record: Record) -> Record:
    """With what the path of the picture says: the label, and the split of a "train/…" beside metadata at the top."""
    image = record.cells.get("image")
    if not isinstance(image, str):
        return record
    path = PurePosixPath(image)
    split = record.split or (FOLDER_SPLITS.get(path.parts[0], "") if len(path.parts) > 1 else "")
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
                if column not in cells or cells[column] in (
                    None,
                    "",
                ):  # both `text` and `caption`: the one that is there
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
    """What stands before the fraction of a number, "" if none does; a comma only where cells are separated by something else."""
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
