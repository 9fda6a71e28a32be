"""Compute every row of a manifest and write its scores, its embeddings or an index; an interrupted run can be continued.

Finished rows are kept in FILE.part next to the output: JSON lines, of which the first names the bundle and the manifest. After
the last row they are written in the output's own format, to a temporary file that is then renamed.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, Self, TypedDict, Unpack

from polymodal.model.capabilities import Embeds, Model
from polymodal.model.errors import ModelError
from polymodal.model.evaluation.stream import BATCH, CheckedRow, prepared
from polymodal.model.faults import Fault, Faults, fault_of
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import Row, Table, csv_line, open_table
from polymodal.model.modalities import MODALITIES
from polymodal.model.tasks.contract import Batch
from polymodal.model.tasks.embed import DECIMALS, Embed
from polymodal.model.types import Sample

try:
    import fcntl
except ImportError:  # Windows, where two runs are not kept apart
    fcntl = None  # type: ignore[assignment]

FORMAT: Final = 1
"""Version of the format of FILE.finished."""
ERRORS_SHOWN: Final = 20
"""Most rows with errors that are shown; the rest is counted."""
FAULT: Final = "fault"
"""Key of a row's fault in FILE.finished."""
ROW_GROUP: Final = 4096  # rows that are written to a Parquet file at once

embed_task: Final = Embed()

Cells = dict[str, Any]
Compute = Callable[[Sequence[Row], Sequence[Sample]], Sequence[Cells]]
"""Returns the cells of rows and their samples."""
Write = Callable[[Path, Iterator[Cells]], None]
"""Writes all rows as the output, which appears as a whole or not at all."""
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

    def compute(_: Sequence[Row], samples: Sequence[Sample]) -> list[Cells]:
        return [{**predictor.target.record(prediction)} for prediction in predictor.predict(samples)]

    write = _table_writer(out, predictor.target.columns())
    return write_rows(predictor, "score", compute, write, manifest, out, options)


def embed(predictor: Embeds, manifest: Path, out: Path, **options: Unpack["Options"]) -> RunSummary:
    """Write a vector of unit length for each input of every row: a column for each modality, as `score` writes scores.

    In JSON lines and Parquet a vector is a list, in CSV a cell with a list as JSON. Raises ModelError.
    """
    names = tuple(spec.name for spec in predictor.description.inputs)

    def compute(_: Sequence[Row], samples: Sequence[Sample]) -> list[Cells]:
        rows = embed_task.run(Batch(predictor, samples, [{}] * len(samples)))
        return [{name: vector.astype(float).round(DECIMALS).tolist() for name, vector in row.items()} for row in rows]

    return write_rows(predictor, embed_task.name, compute, _table_writer(out, names), manifest, out, options)


class Options(TypedDict, total=False):
    """Options of `score`, `embed` and `build_index`."""

    restart: bool
    """Whether to drop `out` + ".part" and replace `out`, instead of continuing an interrupted run."""
    workers: int
    """Threads that decode."""
    watch: Track
    warn: Warn
    """Called with the manifest's warnings before the work begins."""
    roots: Sequence[Path]
    """Further folders that files may be below."""


def write_rows(
    predictor: Model,
    task: str,
    compute: Compute,
    write: Write,
    manifest: Path,
    out: Path,
    options: Options,
    *,
    check: Callable[[Table], None] = lambda _: None,
    revise: Callable[[Iterator[Cells]], Iterator[Cells]] = lambda rows: rows,
) -> RunSummary:
    """Compute every row of a manifest, keep finished rows in `out` + ".part", and `write` them as `out` after the last one.

    `check` may reject the manifest before the work begins; `revise` may replace finished rows by such with an error.
    Raises ModelError.
    """
    restart, watch, warn = options.get("restart", False), options.get("watch"), options.get("warn")
    if out.exists() and not restart:
        new = "a new folder" if out.is_dir() else "a new file"
        raise ModelError(f"{out}: already exists; allowed: {new}, or --restart to replace this one")
    table = open_table(manifest, labelled=False, roots=options.get("roots", ()))
    check(table)
    if warn:
        warn(Faults(table.warnings).lines())
    header = {"format": FORMAT, "task": task, "bundle": predictor.description.digest, "manifest": table.digest}
    with _FinishedRows(out.with_name(out.name + ".part"), header, restart) as finished:
        resumed = finished.resume()
        rows = islice(table.rows(None), resumed, None)
        try:
            tracked = watch(rows, table.length, resumed) if watch else rows
            _compute(predictor, compute, tracked, finished, options.get("workers", 1))
        except KeyboardInterrupt as interrupt:
            raise Interrupted(finished.path, finished.rows) from interrupt
        if finished.rows != table.length:
            problem = f"{finished.rows:,} rows instead of {table.length:,}"
            raise ModelError(f"{finished.path}: {problem}; --restart starts again")
        failed, errors, faults = _finish(finished, out, write, revise)
    return RunSummary(out, table.length, resumed, failed, errors, table.warnings, tuple(faults.lines()))


def _compute(
    predictor: Model, compute: Compute, rows: Iterator[CheckedRow], finished: "_FinishedRows", workers: int
) -> None:
    with finished.appending() as file:
        for batch in prepared(predictor, rows, workers=workers, size=BATCH):
            good = [(row.row, row.sample) for row in batch if row.sample is not None]
            computed = iter(compute(*zip(*good, strict=True)) if good else ())
            lines: list[Cells] = []
            for row in batch:
                cells = failed_cells(row.problem) if row.sample is None else next(computed)
                lines.append({"id": row.row.id, **cells})
            finished.add(file, lines)


def failed_cells(problem: str) -> Cells:
    """Return the cells of a row with an error, with its fault for grouping."""
    fault = fault_of(problem)
    return {"error": fault, FAULT: json.dumps([fault.found, fault.value, fault.allowed, fault.kind])}


# --- finished rows ---


class _FinishedRows:
    """FILE.part: a header, then a line for each finished row, in the manifest's order; one process at a time may open it."""

    def __init__(self, path: Path, header: Mapping[str, Any], restart: bool) -> None:
        """`restart`: drop the rows of an earlier run."""
        self.path = path
        self.rows = 0
        self._header = dict(header)
        self._restart = restart

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self.path.open("ab")
        try:
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ModelError(f"{self.path}: is being written by another run; allowed: one at a time") from None
        if self._restart:
            self._lock.truncate(0)
        return self

    def __exit__(self, kind: object, problem: object, trace: object) -> None:
        """Delete the file after the block has written the output. Raises ModelError for a full disk."""
        if problem is None and fcntl:  # while it is locked: afterwards it may be that of a run that has just started
            self.path.unlink()
        self._lock.close()
        if problem is None and not fcntl:  # Windows can't delete an open file
            self.path.unlink(missing_ok=True)
        if isinstance(problem, OSError) and problem.filename is None:  # of writing, which names no file
            reason = f"cannot be written: {problem.strerror}; the same command goes on from there"
            raise ModelError(f"{self.path}: {reason}") from problem

    def resume(self) -> int:
        """Cut off an incomplete last line, and return the number of finished rows.

        Raises ModelError when the file belongs to another bundle or manifest, or is damaged.
        """
        if not self._has_header():
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


def _table_writer(out: Path, columns: Sequence[str]) -> Write:
    """Return the writer of a table, whose format is that of its suffix. Raises ModelError, or ModuleNotFoundError.

    It writes to a temporary file, then renames it.
    """
    if out.suffix.lower() not in WRITERS:
        raise ModelError(f"{out}: format {out.suffix or '(none)'!r}; allowed: {', '.join(WRITERS)}")
    if out.is_dir():
        raise ModelError(f"{out}: is a folder; allowed: a file")
    if out.suffix.lower() == ".parquet":
        import pyarrow.parquet  # noqa: F401, PLC0415 — optional; a missing package is reported now, not after hours
    names = ("id", *columns, "error")

    def write(path: Path, rows: Iterator[Cells]) -> None:
        fresh = path.with_name(f".{path.name}.fresh")
        try:
            WRITERS[path.suffix.lower()](fresh, (dict.fromkeys(names) | cells for cells in rows), names)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    return write


def _finish(
    finished: _FinishedRows, out: Path, write: Write, revise: Callable[[Iterator[Cells]], Iterator[Cells]]
) -> tuple[int, tuple[tuple[str, str], ...], Faults]:
    """Write the output.

    Returns the number of failed rows, the first of them, and all of them by kind.
    """
    failed = 0
    errors: list[tuple[str, str]] = []
    faults = Faults()

    def rows() -> Iterator[Cells]:
        nonlocal failed
        for cells in revise(finished.read()):
            if "error" in cells:
                failed += 1
                if len(errors) < ERRORS_SHOWN:
                    errors.append((str(cells["id"]), str(cells["error"])))
                faults.add(_fault(cells))
            yield cells

    write(out, rows())
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
