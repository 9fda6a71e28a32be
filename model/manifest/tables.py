"""Rows of one table file: CSV, JSON lines or Parquet, cells as they were found."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from model.manifest.result import CheckResult

MAX_CELL = 10_000_000  # characters in one cell of a CSV; Python's own limit (131,072) is short for a long text


def _csv_rows(path: Path, result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    previous_limit = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            twice = sorted({name for name in header if header.count(name) > 1})
            result.errors.extend(f"line 1: column {name!r} stands there twice; allowed: once" for name in twice)
            for cells in reader:
                where = f"line {reader.line_num}"
                if len(cells) == len(header):
                    yield where, dict(zip(header, cells, strict=True))
                elif cells:  # an empty line is no row
                    result.errors.append(f"{where}: {len(cells)} cells; allowed: {len(header)}, as many as columns")
    except UnicodeDecodeError as error:
        result.errors.append(f"not UTF-8 text (byte {error.object[error.start]:#04x}); allowed: UTF-8")
    except csv.Error as error:
        result.errors.append(f"line {reader.line_num}: broken CSV ({error})")
    finally:
        csv.field_size_limit(previous_limit)


def _jsonl_rows(path: Path, result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                found = json.loads(line.decode("utf-8-sig"))
            except (UnicodeDecodeError, ValueError, RecursionError) as error:
                result.errors.append(f"{where}: broken JSON ({error})")
                continue
            if isinstance(found, dict):
                yield where, found
            else:
                result.errors.append(f"{where}: a JSON {type(found).__name__}; allowed: an object, {{…}}")


def _parquet_rows(path: Path, result: CheckResult) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        # An optional dependency: who has no parquet file need not have it.
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        result.errors.append(
            "reading .parquet needs pyarrow: pip install 'polymodal[train]', or save the table as .csv"
        )
        return
    try:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for found in batch.to_pylist():
                    number += 1
                    yield f"row {number}", found
    except (pyarrow.ArrowException, OSError) as error:
        result.errors.append(f"broken parquet ({error})")


class UnixLines:
    r"""Ends lines by \n, for a csv writer that ends them by \r\n: with \n alone it would not quote a \r in a cell."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        """Write one line, as a file does."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


READERS: Final[Mapping[str, Callable[[Path, CheckResult], Iterator[tuple[str, dict[str, Any]]]]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}
"""By file suffix: yields the place of each row, for messages, and its cells by column name; adds what is wrong to the result."""
