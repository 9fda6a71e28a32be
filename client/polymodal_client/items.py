"""Conversion of rows of tables, with missing values, to items of a call. Imports neither numpy nor pandas."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import fields
from datetime import date
from numbers import Number
from typing import Any, Final

from polymodal_client.answers import Item
from polymodal_client.files import bytes_of

_KEYS: Final = tuple(field.name for field in fields(Item))
# Types of missing values in pandas and numpy, by name.
_MISSING: Final = frozenset({"NoneType", "NAType", "NaTType", "MaskedConstant"})
_KEYS_SHOWN: Final = 5


def is_missing(value: object) -> bool:
    """Return whether a value is missing: None, NaN of any type, pandas' NA and NaT, numpy's masked."""
    if type(value).__name__ in _MISSING:
        return True
    # Only numbers, dates and numpy's scalars: comparing an image takes time, and comparing an array returns an array.
    if isinstance(value, Number | date) or getattr(value, "shape", None) == ():
        return bool(value != value)  # noqa: PLR0124 — NaN alone differs from itself
    return False


def item_of(row: object) -> Item:
    """Return a row as an item. Raises TypeError for an object that is not a row, and for an unknown field."""
    if isinstance(row, Item):
        return row
    cells = _cells(row)
    if unknown := [key for key in cells if key not in _KEYS]:
        named = ", ".join(repr(key) for key in unknown[:_KEYS_SHOWN]) + (" …" if len(unknown) > _KEYS_SHOWN else "")
        raise TypeError(f"item: key{'s' * (len(unknown) > 1)} {named}; allowed: {', '.join(_KEYS)}")
    return Item(**cells)


def id_of(row: object) -> Any:  # noqa: ANN401 — as the caller passed it
    """Return the id of a row, also if the rest of the row is invalid."""
    try:
        value = row.id if isinstance(row, Item) else _cells(row).get("id")
        return None if is_missing(value) else value
    except Exception:  # noqa: BLE001 — reading the row's other fields reports it
        return None


def inputs_of(item: Item, reserved: Container[str]) -> dict[str, str | bytes]:
    """Return an item's inputs by name, without missing ones: texts as str, files as bytes.

    `reserved`: names that inputs can't have. Raises OSError for a file that can't be read, TypeError for a value that is neither a
    text nor a file, ValueError for a lone surrogate, for a reserved name, and for an input that occurs twice.
    """
    more = {} if is_missing(item.inputs) else item.inputs
    if not isinstance(more, Mapping):
        raise TypeError(f"inputs: {type(more).__name__}; allowed: a mapping of names to texts and files")
    inputs: dict[str, str | bytes] = {}
    for name, value in (("text", item.text), ("image", item.image), *more.items()):
        if not isinstance(name, str) or not name or not name.isprintable() or name in reserved:
            raise ValueError(f"inputs: key {name!r}; allowed: names of the model's inputs")
        if is_missing(value) or (name == "image" and isinstance(value, str) and not value):
            continue  # in tables, an empty path means no image
        if name in inputs:
            raise ValueError(f"{name}: given by itself and in inputs; allowed: once")
        inputs[name] = _content(name, value)
    return inputs


def _content(name: str, value: Any) -> str | bytes:  # noqa: ANN401
    """Return a text, or a file's bytes. The type of the value decides where the name does not."""
    if name == "image":
        return bytes_of(value)
    if isinstance(value, str):
        value.encode()
        return value
    if name == "text":
        raise TypeError(f"text: {type(value).__name__}; allowed: str, or None or NaN for no text")
    return bytes_of(value, name, allowed="a text, a Path, bytes, a binary file, a PIL image or None")


def _cells(row: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "_asdict"):  # a named tuple
        cells: Mapping[str, Any] = row._asdict()
        return cells
    if hasattr(row, "keys") and hasattr(row, "__getitem__"):  # a pandas Series, a row of sqlite3
        return {key: row[key] for key in row.keys()}  # noqa: SIM118 — iterating them gives values
    raise TypeError(f"item: {type(row).__name__}; allowed: an Item, or a mapping with {', '.join(_KEYS)}")


def rows_of(items: Any, name: str = "items") -> Iterator[object]:  # noqa: ANN401
    """Return the items' iterator. Raises TypeError for a single item, and for a DataFrame, which would yield column names."""
    is_table = any(kind.__name__ == "DataFrame" for kind in type(items).__mro__)
    if isinstance(items, str | bytes | Mapping | Item) or is_table or not hasattr(items, "__iter__"):
        allowed = "an iterable of Items or mappings; of a DataFrame its rows, such as frame.to_dict('records')"
        raise TypeError(f"{name}: {type(items).__name__}; allowed: {allowed}")
    iterator: Iterator[object] = iter(items)
    return iterator
