"""Unchecked rows of one table file: delimited text, JSON lines or Parquet."""

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from polymodal.model.manifest.delimited import delimited_rows, normalised_name, same_columns
from polymodal.model.manifest.result import CheckResult

ADVICE: Final = {
    "workbook": "in a spreadsheet, save the sheet as «CSV UTF-8»",
    "packed": "unpack the file first",
    "json": "write an object a line, for example with `jq -c '.[]' things.json > things.jsonl`, or in pandas with "
    "to_json(orient='records', lines=True)",
}
"""Advice for tables in other formats."""
OTHER_SUFFIXES: Final = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".fods", ".numbers"), "workbook"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z"), "packed"),
    ".json": "json",
}


def unknown_format(path: Path) -> str:
    """Return the problem with a file whose suffix has no reader."""
    suffix = path.suffix.lower()
    remedy = f"; {ADVICE[OTHER_SUFFIXES[suffix]]}" if suffix in OTHER_SUFFIXES else ""
    return f"format {path.suffix or '(none)'!r}; allowed: {', '.join(READERS)}, or a folder{remedy}"


class _KeyTwice(ValueError):
    """A JSON object that has one key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _KeyTwice(f"key {twice!r} occurs {keys.count(twice)} times; allowed: once")
    return content


def _jsonl_rows(path: Path, known: Sequence[str], result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        # Bytes that are not UTF-8 become surrogates, so that they are reported with their line and the other lines are read.
        with path.open(encoding=_json_encoding(path), errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield from _json_row(line, f"line {number}", result)
    except UnicodeDecodeError as error:
        result.errors.append(f"broken {error.encoding} ({error.reason}); allowed: UTF-8")
        result.cut_off.append(path)


def _json_encoding(path: Path) -> str:
    """Return UTF-8, or UTF-16 as PowerShell writes it: with its mark, or with a zero next to the first «{»."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    return {b"{\0": "utf-16-le", b"\0{": "utf-16-be"}.get(start, "utf-8")


def _json_row(line: str, where: str, result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row of one line, or report its error."""
    try:
        line.encode()
        row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=_object)
    except _KeyTwice as problem:
        result.errors.append(f"{where}: {problem}")
    except UnicodeEncodeError as error:
        result.errors.append(f"{where}: broken JSON (byte {ord(line[error.start]) - 0xDC00:#04x} is not UTF-8)")
    except (ValueError, RecursionError) as error:
        result.errors.append(f"{where}: broken JSON ({error})")
    else:
        if isinstance(row, dict):
            result.errors.extend(f"{where}: {problem}" for problem in same_columns(list(row)))
            yield where, _by_normalised_name(row, result)
        else:
            result.errors.append(f"{where}: a JSON {type(row).__name__}; allowed: an object, {{…}}")


def _by_normalised_name(row: Mapping[str, Any], result: CheckResult) -> dict[str, Any]:
    cells = {}
    for name, cell in row.items():
        normalised = normalised_name(name)
        cells[normalised] = cell
        result.columns.setdefault(normalised, name)
    return cells


def _parquet_rows(path: Path, known: Sequence[str], result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        # An optional dependency, for Parquet files only.
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        result.errors.append("reading .parquet needs pyarrow: pip install 'polymodal[train]', or save it as .csv")
        return
    try:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            result.errors.extend(same_columns(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", _by_normalised_name(row, result)
    except (pyarrow.ArrowException, OSError) as error:
        result.errors.append(f"broken parquet ({error})")
        result.cut_off.append(path)


Reader = Callable[[Path, Sequence[str], CheckResult], Iterator[tuple[str, dict[str, Any]]]]
"""Yields place and cells, by normalised column name, of each row, and adds errors to the result. Arguments: path, expected columns,
result."""

READERS: Final[Mapping[str, Reader]] = {
    ".csv": delimited_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
    ".ndjson": _jsonl_rows,
    ".tsv": delimited_rows,
    ".tab": delimited_rows,
    ".txt": delimited_rows,
}
"""By file suffix."""
