"""Rows of a manifest: their cells, checked."""

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.manifest.delimited import SEPARATORS, separator_name
from model.manifest.forms import COLUMNS, FOLDER_SPLITS, SPLITS, Record, column_hint
from model.manifest.result import CheckResult
from model.targets import Targets, WrongCell

NAMED: Final = 20  # columns that a message names
CELL_SPLITS: Final[Mapping[str, str]] = FOLDER_SPLITS | {
    "training": "train",
    "development": "validation",
    "testing": "test",
}
"""The split that each usual name of one means in a cell."""


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


def check_rows(records: Sequence[Record], root: Path, targets: Targets, result: CheckResult) -> list[Row]:
    """Return the rows; add everything that is wrong with them, or with the table as a whole, to `result`."""
    columns = {column for record in records for column in record.cells}
    if records:
        result.errors.extend(column_problems(columns, result))
    rows: list[Row] = []
    seen: dict[str, str] = {}  # id → where
    for number, record in enumerate(records, start=1):
        row, wrong = check_row(number, record, root, columns, targets)
        if row.id in seen:
            wrong.append(f"id {row.id!r} is taken by {seen[row.id]}; allowed: unique ids")
        seen.setdefault(row.id, record.where)
        result.errors.extend(f"{record.where}: {problem}" for problem in wrong)
        rows.append(row)
    result.errors.extend(_split_problems(rows, records))
    return rows


def column_problems(columns: Set[str], result: CheckResult, labelled: bool = True) -> Iterator[str]:
    """Yield which required columns are missing, with what was found instead."""
    names = [
        f"{name!r}{'' if plain in COLUMNS else column_hint(name, COLUMNS)}" for plain, name in result.columns.items()
    ]
    found = f"found: {', '.join(names[:NAMED]) or 'no names'}{', …' if len(names) > NAMED else ''}"
    allowed = ""
    if separators := sorted(set(result.separators.values())):
        found += f", separated by {' and '.join(map(separator_name, separators))}"
        allowed = f", separated by {', '.join(SEPARATORS.values())}"
    if labelled and "label" not in columns:
        yield f"no column 'label'; {found}; allowed: a manifest with one{allowed}"
    if not columns & {"image", "text"}:
        yield f"no column 'image' or 'text'; {found}; allowed: a manifest with one or both{allowed}"


def split_named(cell: str) -> str:
    """Return the split that a cell names, in whichever usual spelling; the cell itself if it names none."""
    return CELL_SPLITS.get(cell.lower(), cell)


def _split_problems(rows: Sequence[Row], records: Sequence[Record]) -> Iterator[str]:
    without = [record.where for row, record in zip(rows, records, strict=True) if not row.split]
    if without and len(without) < len(rows):
        found = f"{len(without)} of {len(rows)} rows have no split, the first is {without[0]}"
        yield f"{found}; allowed: a split in every row, or in none"


def check_row(number: int, record: Record, root: Path, columns: Set[str], targets: Targets) -> tuple[Row, list[str]]:
    """The row, and what is wrong with it; with problems the row is only good for finding more of them.

    A column that is missing altogether was reported once, so it is not reported here again.
    """
    wrong: list[str] = []
    cells = {name: _text_of(name, record.cells.get(name), wrong) for name in COLUMNS if name != "label"}
    label = _label_of(record, targets, wrong) if "label" in columns else ""
    image = _image_path(cells["image"], record.base, root, wrong) if cells["image"] else None
    if cells["image"] == "" and cells["text"] == "" and columns & {"image", "text"}:
        wrong.append("neither image nor text; allowed: at least one of them")
    split = split_named(cells["split"]) if cells["split"] else record.split
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


def _label_of(record: Record, targets: Targets, wrong: list[str]) -> str:
    """A label cell as its task spells it, "" when it was wrong."""
    try:
        cell = _text_of("label", targets.plain(record.cells.get("label"), record.decimal_mark), wrong)
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
