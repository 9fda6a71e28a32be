"""Rows of a manifest and the checks of their cells."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Final

from polymodal.model.blank import is_blank
from polymodal.model.faults import Fault, fault_of
from polymodal.model.manifest.delimited import SEPARATORS, separator_name
from polymodal.model.manifest.forms import FOLDER_SPLITS, SPLITS, Record, column_hint, column_names
from polymodal.model.manifest.paths import FilePaths
from polymodal.model.manifest.result import CheckResult
from polymodal.model.modalities import MODALITIES
from polymodal.model.spelling import look, shown, spelled, visible
from polymodal.model.targets.contract import SEPARATOR, Cells, WrongCell

COLUMNS_NAMED: Final = 20
"""Most columns that a message names."""
CELLS_NAMED: Final = 3
"""Most cells that a warning names."""
SPELLED: Final = ("id", "label", "group", "split", "source", "licence")
"""Columns whose cells are names, which are equal when they look equal."""
CELL_SPLITS: Final[Mapping[str, str]] = FOLDER_SPLITS | {"development": "validation"}
"""Split by its usual names in cells."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example; an absent split, source or licence is empty."""

    id: str
    inputs: Mapping[str, Path | str]
    """By modality, in the order of MODALITIES: the absolute path of a file, or a text; absent modalities have no key."""
    label: str
    """The label cell in the target's canonical spelling, or as it is where no target reads it; "" without labels."""
    group: str
    split: str
    source: str
    licence: str


def check_rows(
    records: Sequence[Record], paths: FilePaths, targets: Cells, result: CheckResult, unlabelled: bool = False
) -> list[Row]:
    """Return the rows; add errors of rows and of the table as a whole to `result`.

    With `unlabelled`, rows without a label that their target needs are left out with a warning; otherwise they are errors.
    """
    columns = {column for record in records for column in record.cells}
    if records:
        result.errors.extend(column_problems(columns, result))
    rows: list[Row] = []
    labelled = [not (unlabelled and _lacks_label(record, targets)) for record in records]
    seen: dict[str, str] = {}  # id → place of its first row
    for number, record in enumerate(records, start=1):
        if not labelled[number - 1]:
            continue
        row, errors = check_row(number, record, paths, columns, targets)
        if row.id in seen:
            taken = f"id {row.id!r} is taken by {seen[row.id]}"
            errors.append(Fault(taken, repr(row.id), allowed="unique ids", kind="ids are taken by earlier rows"))
        seen.setdefault(row.id, record.where)
        result.errors.extend(fault_of(problem).at(record.where) for problem in errors)
        rows.append(row)
    kept = list(compress(records, labelled))
    if count := len(records) - len(kept):
        result.warnings.append(f"{count:,} row{'s' * (count != 1)} without a label: left out of the labelled rows")
    result.errors.extend(_split_problems(rows, kept))
    spellings = Spellings()
    for record in kept:
        spellings.add(record)
    result.warnings.extend([*spellings.warnings(), *_confusable_names(rows, columns, targets)])
    return rows


def _lacks_label(record: Record, targets: Cells) -> bool:
    """Return whether the label cell is blank, and the target has no meaning for that."""
    cell = record.cells.get("label")
    if not (cell is None or (isinstance(cell, str) and is_blank(cell))):
        return False
    try:
        targets.validate("")
    except WrongCell:
        return True
    return False


def column_problems(columns: Set[str], result: CheckResult, labelled: bool = True) -> Iterator[str]:
    """Yield the required columns that are missing, with those that exist."""
    known = column_names()
    names = [f"{name!r}{'' if plain in known else column_hint(name, known)}" for plain, name in result.columns.items()]
    existing = f"found: {', '.join(names[:COLUMNS_NAMED]) or 'no names'}{', …' if len(names) > COLUMNS_NAMED else ''}"
    allowed = ""
    if separators := sorted(set(result.separators.values())):
        existing += f", separated by {' and '.join(map(separator_name, separators))}"
        allowed = f", separated by {', '.join(SEPARATORS.values())}"
    if labelled and "label" not in columns:
        yield f"no column 'label'; {existing}; allowed: a manifest with one{allowed}"
    if not columns & MODALITIES.keys():
        inputs = " or ".join(map(repr, MODALITIES))
        yield f"no column {inputs}; {existing}; allowed: a manifest with one or more{allowed}"


def split_named(cell: str) -> str:
    """Return the split that a cell names in any usual spelling; the cell itself if it names none."""
    return CELL_SPLITS.get(cell.lower(), cell)


def _split_problems(rows: Sequence[Row], records: Sequence[Record]) -> Iterator[str]:
    without = [record.where for row, record in zip(rows, records, strict=True) if not row.split]
    if without and len(without) < len(rows):
        problem = f"{len(without)} of {len(rows)} rows have no split, the first is {without[0]}"
        yield f"{problem}; allowed: a split in every row, or in none"


class Spellings:
    """Counts the cells that are read without their invisible characters."""

    def __init__(self) -> None:
        self._cells: dict[str, int] = {}
        self._first: dict[str, dict[str, str]] = {}  # column → cell → how it is read

    def add(self, record: Record) -> None:
        """Add the cells of one row."""
        for column in SPELLED:
            value = record.cells.get(column)
            for cell in value if isinstance(value, list) else [value]:
                if isinstance(cell, str) and (read := _name(column, cell)) != cell.strip():
                    self._cells[column] = self._cells.get(column, 0) + 1
                    first = self._first.setdefault(column, {})
                    if len(first) < CELLS_NAMED:
                        first[cell] = read

    def warnings(self) -> Iterator[str]:
        """Yield a warning for each column that has such cells."""
        for column, count in self._cells.items():
            first = self._first[column]
            named = ", ".join(f"{cell!a} as {read!r}" for cell, read in first.items())
            yield (
                f"column {column}: {count:,} cell{'s' * (count != 1)} read without what cannot be seen (normal form C, single "
                f"spaces, no characters of width zero): {named}{' and others' if count > len(first) else ''}"
            )


def _name(column: str, cell: str) -> str:
    """Return a name as it looks; an id keeps its inner blanks, so that rows can be found by it in their table."""
    return visible(cell).strip() if column == "id" else spelled(cell)


def _confusable_names(rows: Sequence[Row], columns: Set[str], targets: Cells) -> Iterator[str]:
    """Yield labels, groups and sources that are easily mistaken for each other."""
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
            yield Fault(f"{what} {{}} differ {how}, and stay apart", named, allowed="one spelling, where one is meant")


def check_row(
    number: int, record: Record, paths: FilePaths, columns: Set[str], targets: Cells
) -> tuple[Row, list[str]]:
    """Return the row and its errors; a row with errors is only for finding more of them.

    A missing column is not an error of the row, because `column_problems` reports it once.
    """
    errors: list[str] = []
    cells = {name: _text_of(name, record.cells.get(name), errors) for name in column_names() if name != "label"}
    label = _label_of(record, targets, errors) if "label" in columns else _unread_label(record.cells.get("label"))
    inputs = dict(_inputs_of(cells, record.base, paths, errors))
    if all(cells[modality] == "" for modality in MODALITIES) and columns & MODALITIES.keys():
        errors.append(f"none of {', '.join(MODALITIES)}; allowed: at least one of them")
    split = split_named(cells["split"]) if cells["split"] else record.split
    if split and split not in SPLITS:
        errors.append(Fault("split {}", repr(split), allowed=f"{', '.join(SPLITS)}, or no split in any row"))
    name = cells["id"] or str(number)
    row = Row(
        id=name,
        inputs=inputs,
        label=label,
        group=cells["group"] or name,
        split=split,
        source=cells["source"] or "",
        licence=cells["licence"] or "",
    )
    return row, errors


def _inputs_of(
    cells: Mapping[str, str | None], base: Path, paths: FilePaths, errors: list[str]
) -> Iterator[tuple[str, Path | str]]:
    """Yield the modalities that a row has, each with its text or the path of its file."""
    for name, modality in MODALITIES.items():
        if not (cell := cells[name]):
            continue
        value = cell if modality.textual else paths.find(name, cell, base)
        if isinstance(value, Fault):
            errors.append(value)
        else:
            yield name, value


def _label_of(record: Record, targets: Cells, errors: list[str]) -> str:
    """Return a label cell as its target spells it, "" for an invalid one."""
    try:
        cell = _text_of("label", targets.normalise(record.cells.get("label"), record.decimal_mark), errors)
        return "" if cell is None else targets.validate(cell)
    except WrongCell as problem:
        errors.append(problem.fault)
        return ""


def _unread_label(value: object) -> str:
    """Return a label cell that no target reads, as text; "" for a value that is neither text nor number."""
    labels = value if isinstance(value, list) else [value]
    return spelled(SEPARATOR.join(str(label) for label in labels if isinstance(label, str | int | float)))


def _text_of(name: str, value: object, errors: list[str]) -> str | None:
    """Return a cell as text, None for an invalid or blank one; names are spelled as they look."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):  # a label or an id may be a number
        value = str(value)
    problem = ""
    modality = MODALITIES.get(name)
    if not isinstance(value, str):
        is_path = modality and not modality.textual
        kind = f"{name} is a {type(value).__name__}"
        problem = f"{kind}; allowed: a path" if is_path else f"{kind}; allowed: text"
    elif "\0" in value:
        problem = f"{name} holds a NUL byte; allowed: text without"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        problem = f"{name} holds half a surrogate pair; allowed: whole characters"
    if problem or not isinstance(value, str):
        errors.append(problem)
        return None
    if name in SPELLED:
        return _name(name, value)
    if modality and modality.textual:
        return "" if is_blank(value) else value
    return value.strip()
