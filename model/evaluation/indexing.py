"""Build a search index of a manifest; an interrupted run can be continued."""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np

from polymodal.model.capabilities import Model, Space
from polymodal.model.errors import ModelError
from polymodal.model.evaluation.scores import Cells, Options, RunSummary, embed_task, failed_cells, write_rows
from polymodal.model.faults import Fault
from polymodal.model.index import (
    MODALITIES_KEY,
    IndexItem,
    Value,
    check_aligned,
    check_number,
    check_replaceable,
    write_index,
)
from polymodal.model.manifest import ManifestError, Row, Table, column_names
from polymodal.model.manifest.result import CheckResult
from polymodal.model.manifest.tables import READERS, unknown_format
from polymodal.model.tasks.contract import Batch
from polymodal.model.tasks.embed import FUSED
from polymodal.model.types import FloatArray, Sample

MOST_CHARACTERS: Final = 1024
"""Most characters of a value of metadata; longer ones are cut."""
MOST_COLUMNS: Final = 32
"""Most columns of metadata."""

Metadata = dict[str, Value]


def build_index(
    predictor: Model, manifest: Path, out: Path, *, metadata: Path | None = None, **options: Unpack[Options]
) -> RunSummary:
    """Write an index of every row of a manifest: one aligned vector for all its inputs together, and its metadata.

    Metadata are the row's texts, the paths of its files, its label, group, split, source and licence, and with `metadata` the cells
    of another table for the same id (or row number). Rows with an error are left out. Raises ModelError.
    """
    check_aligned(predictor.description)
    check_replaceable(out)
    columns, more = _read_metadata(metadata) if metadata else ((), {})
    keys: list[str] = []

    def check(table: Table) -> None:
        check_number(table.length)
        own = [name for name in column_names() if name in table.columns or (name == "split" and table.has_splits)]
        keys.extend(name for name in dict.fromkeys([*own, *columns]) if name != "id")
        if len(keys) > MOST_COLUMNS:
            raise ModelError(f"{len(keys)} columns of metadata; allowed: at most {MOST_COLUMNS}")

    base = Path(os.path.abspath(manifest))
    base = base if base.is_dir() else base.parent
    space = {"space": Space.ALIGNED.value, FUSED: True}

    def compute(rows: Sequence[Row], samples: Sequence[Sample]) -> list[Cells]:
        computed = embed_task.run(Batch(predictor, samples, [space] * len(samples)))
        return [
            _cells(row, sample, vectors[FUSED], base)
            for row, sample, vectors in zip(rows, samples, computed, strict=True)
        ]

    def write(folder: Path, rows: Iterator[Cells]) -> None:
        good = ((_item(cells, more), _decoded(cells["vector"])) for cells in rows if "error" not in cells)
        write_index(folder, good, predictor.description, keys)

    if warn := options.get(
        "warn"
    ):  # the table of metadata may be the manifest, whose other columns are then not ignored
        options["warn"] = lambda lines: warn(
            [line for line in lines if not any(_ignores(line, name) for name in columns)]
        )
    return write_rows(predictor, "index", compute, write, manifest, out, options, check=check, revise=_with_unique_ids)


def _ignores(warning: str, column: str) -> bool:
    """Return whether a warning about a manifest is that a column is ignored."""
    return warning.startswith(f"unknown column {column!r}")


def _cells(row: Row, sample: Sample, vector: FloatArray, base: Path) -> Cells:
    """Return the finished row of an item."""
    if not np.isfinite(vector).all():
        return failed_cells("its vector is not finite; allowed: inputs whose vectors are")
    inputs = {
        name: Path(os.path.relpath(value, base)).as_posix() if isinstance(value, Path) else value
        for name, value in row.inputs.items()
    }
    names = {"label": row.label, "split": row.split, "source": row.source, "licence": row.licence}
    if row.group != row.id:
        names["group"] = row.group
    metadata = {name: _cut(value) for name, value in {**inputs, **names}.items() if value}
    vector_bytes = base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return {"vector": vector_bytes, MODALITIES_KEY: sorted(sample.present), "metadata": metadata}


def _item(cells: Cells, more: Mapping[str, Metadata]) -> IndexItem:
    metadata = {**cells["metadata"], **more.get(cells["id"], {})}
    return IndexItem(cells["id"], tuple(cells[MODALITIES_KEY]), metadata)


def _decoded(vector: str) -> FloatArray:
    return np.frombuffer(base64.b64decode(vector), dtype="<f4").astype(np.float32)


def _with_unique_ids(rows: Iterator[Cells]) -> Iterator[Cells]:
    """Replace each row whose id an earlier one has by a row with an error."""
    seen: set[str] = set()
    for cells in rows:
        name = cells["id"]
        if name in seen:
            fault = Fault(f"id {name!r} is taken by an earlier row", repr(name), allowed="unique ids")
            cells = {"id": name, **failed_cells(fault)}  # noqa: PLW2901 — replaced, as the docstring states
        seen.add(name)
        yield cells


def _cut(value: Value) -> Value:
    """Return a value as JSON and answers can have it: without halves of surrogate pairs, and not too long."""
    if not isinstance(value, str):
        return value
    text = value.encode(errors="replace").decode()
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _read_metadata(path: Path) -> tuple[tuple[str, ...], dict[str, Metadata]]:
    """Return the columns of a table and its cells by id, or by the row's number without one. Raises ManifestError."""
    if path.suffix.lower() not in READERS:
        raise ManifestError(path, [unknown_format(path)])
    result = CheckResult()
    rows: dict[str, Metadata] = {}
    cells_of: partial[Metadata] = partial(_values, result=result)
    for number, (place, cells) in enumerate(READERS[path.suffix.lower()](path, ("id",), result), start=1):
        name = str(cells.get("id") or "").strip() or str(number)
        if name in rows:
            result.errors.append(f"{place}: id {name!r} is taken by an earlier row; allowed: unique ids")
        rows[name] = cells_of(place, cells)
    if MODALITIES_KEY in result.columns:
        result.errors.append(
            f"column {MODALITIES_KEY!r}, which filters use for an item's inputs; allowed: another name"
        )
    if result.errors:
        raise ManifestError(path, result.errors)
    return tuple(_written(column, result) for column in result.columns if column != "id"), rows


def _values(place: str, cells: Mapping[str, Any], result: CheckResult) -> Metadata:
    values: Metadata = {}
    for column, cell in cells.items():
        if column == "id" or cell is None or cell == "":
            continue
        if not isinstance(cell, str | int | float | bool) or cell != cell:  # noqa: PLR0124 — NaN differs from itself
            result.errors.append(
                f"{place}: {column} is a {type(cell).__name__}; allowed: text, a number or true or false"
            )
            continue
        values[_written(column, result)] = _cut(cell)
    return values


def _written(column: str, result: CheckResult) -> str:
    """Return a column's name as it is written, but those of manifests as manifests name them."""
    return column if column in column_names() else result.columns[column]
