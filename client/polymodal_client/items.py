"""The items of a call as callers have them: rows of tables, with missing values. Imports neither numpy nor pandas."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from numbers import Number
from typing import Any, Final

from polymodal_client.answers import Item

_NAMES: Final = tuple(field.name for field in fields(Item))
_MISSING: Final = frozenset(
    {"NoneType", "NAType", "NaTType", "MaskedConstant"}
)  # pandas' and numpy's own, by their types' names
_KEYS_SHOWN: Final = 5


def is_missing(value: object) -> bool:
    """Whether a value is how a table says that there is none: None, NaN of any type, pandas' NA and NaT, numpy's masked."""
    if type(value).__name__ in _MISSING:
        return True
    # Only of numbers, dates and numpy's scalars: whether an image equals itself takes time, and an array has many answers.
    if isinstance(value, Number | date) or getattr(value, "shape", None) == ():
        return bool(value != value)  # noqa: PLR0124 — NaN alone differs from itself
    return False


def item_of(row: object) -> Item:
    """Return an item, or a row with its fields. Raises TypeError for any other object, and for a field that no item has."""
    if isinstance(row, Item):
        return row
    cells = _cells(row)
    if unknown := [key for key in cells if key not in _NAMES]:
        named = ", ".join(repr(key) for key in unknown[:_KEYS_SHOWN]) + (" …" if len(unknown) > _KEYS_SHOWN else "")
        raise TypeError(f"item: key{'s' * (len(unknown) > 1)} {named}; allowed: {', '.join(_NAMES)}")
    return Item(**cells)


def id_of(row: object) -> Any:  # noqa: ANN401 — as it was given
    """Return the id of a row, also where the rest of the row is wrong."""
    try:
        found = row.id if isinstance(row, Item) else _cells(row).get("id")
        return None if is_missing(found) else found
    except Exception:  # noqa: BLE001 — reading the row's other fields reports it
        return None


def text_of(text: object) -> str | None:
    """Return a text, or None for a missing one. Raises TypeError, or UnicodeEncodeError, a ValueError, for half a character."""
    if is_missing(text):
        return None
    if not isinstance(text, str):
        raise TypeError(f"text: {type(text).__name__}; allowed: str, or None or NaN for no text")
    text.encode()
    return text


def _cells(row: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "_asdict"):  # a named tuple
        cells: Mapping[str, Any] = row._asdict()
        return cells
    if hasattr(row, "keys") and hasattr(row, "__getitem__"):  # a pandas Series, a row of sqlite3
        return {key: row[key] for key in row.keys()}  # noqa: SIM118 — iterating them gives values
    raise TypeError(f"item: {type(row).__name__}; allowed: an Item, or a mapping with {', '.join(_NAMES)}")
