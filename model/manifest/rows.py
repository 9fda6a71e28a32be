"""Rows of a manifest: their cells, checked."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.faults import Fault, fault_of
from model.manifest.delimited import SEPARATORS, separator_name
from model.manifest.forms import COLUMNS, FOLDER_SPLITS, SPLITS, Record, column_hint
from model.manifest.paths import ImagePaths
from model.manifest.result import CheckResult
from model.modalities.text.blank import is_blank
from model.spelling import look, shown, spelled, visible
from model.targets import Targets, WrongCell

COLUMNS_NAMED: Final = 20
"""Columns that a message names."""
CELLS_NAMED: Final = 3
"""Cells that a warning names."""
SPELLED: Final = ("id", "label", "group", "split", "source", "licence")
"""Columns whose cells are names, which are equal when they look equal."""
CELL_SPLITS: Final[Mapping[str, str]] = FOLDER_SPLITS | {"development": "validation"}
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


def check_rows(records: Sequence[Record], paths: ImagePaths, targets: Targets, result: CheckResult) -> list[Row]:
    """Return the rows; add everything that is wrong with them, or with the table as a whole, to `result`."""
    columns = {column for record in records for column in record.cells}
    if records:
        result.errors.extend(column_problems(columns, result))
    rows: list[Row] = []
    seen: dict[str, str] = {}  # id → where
    for number, record in enumerate(records, start=1):
        row, wrong = check_row(number, record, paths, columns, targets)
        if row.id in seen:
            taken = f"id {row.id!r} is taken by {seen[row.id]}"
            wrong.append(Fault(taken, repr(row.id), allowed="unique ids", kind="ids are taken by earlier rows"))
        seen.setdefault(row.id, record.where)
        result.errors.extend(fault_of(problem).at(record.where) for problem in wrong)
        rows.append(row)
    result.errors.extend(_split_problems(rows, records))
    spellings = Spellings()
    for record in records:
        spellings.add(record)
    result.warnings.extend([*spellings.warnings(), *_alike(rows, columns, targets)])
    return rows


def column_problems(columns: Set[str], result: CheckResult, labelled: bool = True) -> Iterator[str]:
    """Yield which required columns are missing, with what was found instead."""
    names = [
        f"{name!r}{'' if plain in COLUMNS else column_hint(name, COLUMNS)}" for plain, name in result.columns.items()
    ]
    found = f"found: {', '.join(names[:COLUMNS_NAMED]) or 'no names'}{', …' if len(names) > COLUMNS_NAMED else ''}"
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


class Spellings:
    """Counts the cells that are not read as they are written, as something in them cannot be seen."""

    def __init__(self) -> None:
        self._cells: dict[str, int] = {}
        self._first: dict[str, dict[str, str]] = {}  # column → cell → how it is read

    def add(self, record: Record) -> None:
        """Look at the cells of one row."""
        for column in SPELLED:
            value = record.cells.get(column)
            for cell in value if isinstance(value, list) else [value]:
                if isinstance(cell, str) and (read := _name(column, cell)) != cell.strip():
                    self._cells[column] = self._cells.get(column, 0) + 1
                    first = self._first.setdefault(column, {})
                    if len(first) < CELLS_NAMED:
                        first[cell] = read

    def warnings(self) -> Iterator[str]:
        """Yield one sentence for each column that has such cells."""
        for column, count in self._cells.items():
            first = self._first[column]
            named = ", ".join(f"{cell!a} as {read!r}" for cell, read in first.items())
            yield (
                f"column {column}: {count:,} cell{'s' * (count != 1)} read without what cannot be seen (normal form C, single "
                f"spaces, no characters of width zero): {named}{' and others' if count > len(first) else ''}"
            )


def _name(column: str, cell: str) -> str:
    """A name as it looks; an id keeps the blanks inside it, so that rows are found by it in the table it comes from."""
    return visible(cell).strip() if column == "id" else spelled(cell)


def _alike(rows: Sequence[Row], columns: Set[str], targets: Targets) -> Iterator[str]:
    """Yield which labels, groups and sources are easily taken for each other."""
    labels = Counter(label for row in rows for label in targets.labels([row.label]) if label)
    yield from _near_equal("labels", labels, look)
    for column in sorted({"group", "source"} & columns):  # a bundle's report has the warnings, in one order
        names = Counter(cell for row in rows if (cell := getattr(row, column)))
        yield from _near_equal(f"{column}s", names, str.casefold)


def _near_equal(what: str, counts: Counter[str], key: Callable[[str], str]) -> Iterator[str]:
    by_look: dict[str, list[str]] = {}
    for name in sorted(counts):
        by_look.setdefault(key(name), []).append(name)
    for names in by_look.values():
        if len(names) > 1:
            how = "in case alone" if len({name.lower() for name in names}) == 1 else "by little that can be seen"
            named = " and ".join(
                f"{shown(name, names)} ({counts[name]:,} row{'s' * (counts[name] != 1)})" for name in names
            )
            found = f"{what} {{}} differ {how}, and stay apart"
            yield Fault(found, named, allowed="one spelling, where one is meant")


def check_row(
    number: int, record: Record, paths: ImagePaths, columns: Set[str], targets: Targets
) -> tuple[Row, list[str]]:
    """The row, and what is wrong with it; with problems the row is only good for finding more of them.

    A column that is missing altogether was reported once, so it is not reported here again.
    """
    wrong: list[str] = []
    cells = {name: _text_of(name, record.cells.get(name), wrong) for name in COLUMNS if name != "label"}
    label = _label_of(record, targets, wrong) if "label" in columns else ""
    image = paths.find(cells["image"], record.base) if cells["image"] else None
    if isinstance(image, Fault):
        wrong.append(image)
        image = None
    if cells["image"] == "" and cells["text"] == "" and columns & {"image", "text"}:
        wrong.append("neither image nor text; allowed: at least one of them")
    split = split_named(cells["split"]) if cells["split"] else record.split
    if split and split not in SPLITS:
        wrong.append(Fault("split {}", repr(split), allowed=f"{', '.join(SPLITS)}, or no split in any row"))
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
        wrong.append(problem.fault)
        return ""


def _text_of(name: str, value: object, wrong: list[str]) -> str | None:
    """A cell as text, None when that was wrong; a text that shows nothing is none, and names are spelled as they look."""
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
    if name in SPELLED:
        return _name(name, value)
    if name == "text":
        return "" if is_blank(value) else value
    return value.strip()
