"""Write scores or embeddings of every row of a manifest to a file; an interrupted run can be continued.

Finished rows are kept in FILE.part next to the output: JSON lines, of which the first names the bundle and the manifest. After
the last row they are written in the output's own format, to a temporary file that is then renamed.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, TypedDict, Unpack

from polymodal.model.capabilities import Embeds, Model
from polymodal.model.errors import ModelError
from polymodal.model.evaluation.stream import BATCH, CheckedRow, prepared
from polymodal.model.faults import Fault, Faults, fault_of
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import csv_line, open_table
from polymodal.model.modalities import MODALITIES
from polymodal.model.tasks.contract import Batch
from polymodal.model.tasks.embed import DECIMALS, Embed
from polymodal.model.types import Sample

FORMAT: Final = 1
"""Version of the format of FILE.finished."""
ERRORS_SHOWN: Final = 20
"""Most rows with errors that are shown; the rest is counted."""
FAULT: Final = "fault"
"""Key of a row's fault in FILE.finished."""
ROW_GROUP: Final = 4096  # rows that are written to a Parquet file at once

embed_task: Final = Embed()

Cells = dict[str, str | float | list[float] | None]
Compute = Callable[[Sequence[Sample]], Sequence[Cells]]
"""Returns the cells of the rows of samples."""
Track = Callable[[Iterator[CheckedRow], int, int], Iterator[CheckedRow]]
"""Passes rows on and may report progress. Arguments: rows, their total number, and the number that an earlier run finished."""
Warn = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Summary of a finished run."""

    out: Path
    rows: int
    resumed: int
    """Number of rows that an earlier run finished."""
    failed: int
    """Number of rows without scores."""
    errors: tuple[tuple[str, str], ...]
    """Id and reason of the first ERRORS_SHOWN of them."""
    warnings: tuple[str, ...]
    """Warnings about the manifest."""
    faults: tuple[str, ...] = ()
    """One line for each kind of reason, with the number of rows and the first of them."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the file at `path` keeps the finished rows."""

    def __init__(self, path: Path, rows: int) -> None:
        super().__init__(f"stopped; {path} holds {rows:,} rows, and the same command goes on from there")


def score(predictor: Network, manifest: Path, out: Path, **options: Unpack["Options"]) -> RunSummary:
    """Score every row of a manifest with all its inputs, and write `out`: CSV, JSON lines or Parquet by its suffix.

    Labels are ignored. A row that can't be read gets a reason in the column `error`, and no scores.
    Raises ModelError.
    """

    def compute(samples: Sequence[Sample]) -> list[Cells]:
        return [{**predictor.target.record(prediction)} for prediction in predictor.predict(samples)]

    return _write(predictor, "score", predictor.target.columns(), compute, manifest, out, options)


def embed(predictor: Embeds, manifest: Path, out: Path, **options: Unpack["Options"]) -> RunSummary:
    """Write a vector of unit length for each input of every row: a column for each modality, as `score` writes scores.

    In JSON lines and Parquet a vector is a list, in CSV a cell with a list as JSON. Raises ModelError.
    """
    names = tuple(spec.name for spec in predictor.description.inputs)

    def compute(samples: Sequence[Sample]) -> list[Cells]:
        rows = embed_task.run(Batch(predictor, samples, [{}] * len(samples)))
        return [{name: vector.astype(float).round(DECIMALS).tolist() for name, vector in row.items()} for row in rows]

    return _write(predictor, embed_task.name, names, compute, manifest, out, options)


class Options(TypedDict, total=False):
    """Options of `score` and `embed`."""

    restart: bool
    """Whether to drop `out` + ".part" and replace `out`, instead of continuing an interrupted run."""
    workers: int
    """Threads that decode."""
    watch: Track
    warn: Warn
    """Called with the manifest's warnings before the work begins."""
    roots: Sequence[Path]
    """Further folders that files may be below."""


def _write(
    predictor: Model,
    task: str,
    columns: Sequence[str],
    compute: Compute,
    manifest: Path,
    out: Path,
    options: Options,
) -> RunSummary:
    restart, watch, warn = options.get("restart", False), options.get("watch"), options.get("warn")
    _check_output(out, restart)
    table = open_table(manifest, labelled=False, roots=options.get("roots", ()))
    if warn:
        warn(Faults(table.warnings).lines())
    header = {"format": FORMAT, "task": task, "bundle": predictor.description.digest, "manifest": table.digest}
    finished = _FinishedRows(out.with_name(out.name + ".part"), header)
    if restart:
        finished.path.unlink(missing_ok=True)
    resumed = finished.resume()
    rows = islice(table.rows(None), resumed, None)
    try:
        tracked = watch(rows, table.length, resumed) if watch else rows
        _compute(predictor, compute, tracked, finished, options.get("workers", 1))
    except KeyboardInterrupt as interrupt:
        raise Interrupted(finished.path, finished.rows) from interrupt
    if finished.rows != table.length:
        raise ModelError(f"{finished.path}: {finished.rows:,} rows instead of {table.length:,}; --restart starts again")
    failed, errors, faults = _finish(finished, out, ("id", *columns, "error"))
    return RunSummary(out, table.length, resumed, failed, errors, table.warnings, tuple(faults.lines()))


def _compute(
    predictor: Model, compute: Compute, rows: Iterator[CheckedRow], finished: "_FinishedRows", workers: int
) -> None:
    with finished.appending() as file:
        for batch in prepared(predictor, rows, workers=workers, size=BATCH):
            samples = [row.sample for row in batch if row.sample is not None]
            computed = iter(compute(samples) if samples else ())
            lines: list[Cells] = []
            for row in batch:
                cells = _failed(row.problem) if row.sample is None else next(computed)
                lines.append({"id": row.row.id, **cells})
            finished.add(file, lines)


def _failed(problem: str) -> Cells:
    """Return the cells of a row without scores, with its fault for grouping."""
    fault = fault_of(problem)
    return {"error": fault, FAULT: json.dumps([fault.found, fault.value, fault.allowed, fault.kind])}


# --- finished rows ---


class _FinishedRows:
    """FILE.part: a header, then a line for each finished row, in the manifest's order."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.rows = 0
        self._header = dict(header)

    def resume(self) -> int:
        """Cut off an incomplete last line, and return the number of finished rows.

        Raises ModelError when the file belongs to another bundle or manifest, or is damaged.
        """
        if not self._has_header():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(_line(self._header), encoding="utf-8")
            return 0
        self._check_header()
        with self.path.open("rb") as file:
            complete = sum(len(line) for line in file if line.endswith(b"\n"))
        os.truncate(self.path, complete)
        self.rows = sum(1 for _ in self.read())
        return self.rows

    def appending(self) -> IO[str]:
        """Open the file for appending lines."""
        return self.path.open("a", encoding="utf-8", newline="\n")

    def add(self, file: IO[str], lines: list[Cells]) -> None:
        """Append finished rows and flush them, so that they survive the end of this process."""
        file.write("".join(map(_line, lines)))
        file.flush()
        self.rows += len(lines)

    def read(self) -> Iterator[Cells]:
        """Yield the finished rows. Raises ModelError for a damaged line."""
        with self.path.open("rb") as file:
            for number, line in enumerate(islice(file, 1, None), start=2):
                try:
                    cells = json.loads(line)
                except ValueError as problem:
                    raise ModelError(f"{self.path}: line {number} is damaged; --restart starts again") from problem
                yield cells

    def _has_header(self) -> bool:
        """Return whether there is a complete header."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            first = file.readline()
        return first.endswith(b"\n") or not _line(self._header).encode().startswith(first)

    def _check_header(self) -> None:
        with self.path.open("rb") as file:
            try:
                header = json.loads(file.readline())
            except ValueError:
                header = None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ModelError(f"{self.path}: not written by an interrupted run; --restart starts again")
        header.setdefault("task", "score")  # the only task of older releases
        for name in ("task", "bundle", "manifest"):
            if header.get(name) != self._header[name]:
                problem = f"started with another {name}, {header.get(name)}; this one is {self._header[name]}"
                raise ModelError(f"{self.path}: {problem}; --restart starts again")


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


# --- the output ---


def _check_output(out: Path, restart: bool) -> None:
    """Check that the output can be written, before anything is computed. Raises ModelError, or ModuleNotFoundError."""
    if out.suffix.lower() not in WRITERS:
        raise ModelError(f"{out}: format {out.suffix or '(none)'!r}; allowed: {', '.join(WRITERS)}")
    if out.is_dir():
        raise ModelError(f"{out}: is a folder; allowed: a file")
    if out.exists() and not restart:
        raise ModelError(f"{out}: already exists; allowed: a new file, or --restart to replace this one")
    if out.suffix.lower() == ".parquet":
        import pyarrow.parquet  # noqa: F401, PLC0415 — optional; a missing package is reported now, not after hours


def _finish(
    finished: _FinishedRows, out: Path, names: tuple[str, ...]
) -> tuple[int, tuple[tuple[str, str], ...], Faults]:
    """Write the output to a temporary file, then rename it.

    Returns the number of failed rows, the first of them, and all of them by kind.
    """
    failed = 0
    errors: list[tuple[str, str]] = []
    faults = Faults()

    def rows() -> Iterator[Cells]:
        nonlocal failed
        for cells in finished.read():
            if "error" in cells:
                failed += 1
                if len(errors) < ERRORS_SHOWN:
                    errors.append((str(cells["id"]), str(cells["error"])))
                faults.add(_fault(cells))
            yield dict.fromkeys(names) | cells

    fresh = out.with_name(f".{out.name}.fresh")
    try:
        WRITERS[out.suffix.lower()](fresh, rows(), names)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    finished.path.unlink()
    return failed, tuple(errors), faults


def _fault(cells: Cells) -> Fault:
    """Remove and return the fault of a row; older releases wrote only the sentence."""
    sentence = str(cells["error"])
    fault, value, allowed, kind = json.loads(str(cells.pop(FAULT, "null"))) or (sentence, "", "", sentence)
    return Fault(fault, value, allowed=allowed, kind=kind, place=str(cells["id"]))


def _write_csv(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(names))
        for row in rows:
            cells = (row[name] for name in names)
            file.write(csv_line(json.dumps(cell) if isinstance(cell, list) else cell for cell in cells))


def _write_jsonl(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(map(_line, rows))


def _write_parquet(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    import pyarrow  # noqa: PLC0415 — optional
    import pyarrow.parquet  # noqa: PLC0415

    kinds = {name: pyarrow.string() for name in ("id", "label", "error")}
    kinds |= {name: pyarrow.list_(pyarrow.float32()) for name in MODALITIES}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
    remaining = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for first in remaining:
            group = list(chain([first], islice(remaining, ROW_GROUP - 1)))
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


WRITERS: Final[Mapping[str, Callable[[Path, Iterable[Cells], tuple[str, ...]], None]]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
