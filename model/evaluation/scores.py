"""Scores for every row of a manifest, written to a file; an interrupted run goes on where it stopped.

What is done stands beside the output as FILE.part: JSON lines, of which the first names the bundle and the manifest. When
every row is there, it is rewritten in the output's own format, which then appears at once.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, Protocol

from model.errors import ModelError
from model.evaluation.stream import BATCH, Found, prepared
from model.faults import Fault, Faults, fault_of
from model.manifest import Table, csv_line, open_table
from model.predictor import Predictor
from model.targets import SEPARATOR
from model.types import Prediction

FORMAT: Final = 1
"""Version of the lines of FILE.part."""
TOLD: Final = 20
"""Rows with errors that are kept to be shown; the rest is counted."""
FAULT: Final = "fault"
"""What FILE.part has of a row with an error besides its columns."""
ROW_GROUP: Final = 4096  # rows that a Parquet file is written by

Cells = dict[str, str | float | None]
Watch = Callable[[Iterator[Found], int, int], Iterator[Found]]
"""Passes rows on, and may tell somebody how many went by, of so many, after so many of an earlier run."""
Warn = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a finished run did."""

    out: Path
    rows: int
    resumed: int
    """Rows that an earlier run had done."""
    failed: int
    """Rows without scores."""
    errors: tuple[tuple[str, str], ...]
    """Id and reason of the first of them."""
    warnings: tuple[str, ...]
    """What of the manifest was left out or read in another way than it is written."""
    faults: tuple[str, ...] = ()
    """One line for each kind of reason, with the number of rows and the first of them."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; `part` keeps the rows that are done."""

    def __init__(self, part: Path, rows: int) -> None:
        super().__init__(f"stopped; {part} holds {rows:,} rows, and the same command goes on from there")


def score(
    predictor: Predictor,
    manifest: Path,
    out: Path,
    *,
    restart: bool = False,
    workers: int = 1,
    watch: Watch | None = None,
    warn: Warn | None = None,
    roots: Sequence[Path] = (),
) -> Scored:
    """Score every row of a manifest, with all that it has, and write `out`: CSV, JSON lines or Parquet by its suffix.

    Labels are not needed, and not looked at. A row that can't be read gets a reason in the column `error`, and no scores.
    Goes on from `out` + ".part" if there is one; `restart` begins anew, and replaces an `out`. `warn` gets the
    manifest's warnings before the work begins. Raises ModelError.
    """
    _check_output(out, restart)
    table = open_table(manifest, labelled=False, roots=roots)
    if warn:
        warn(Faults(table.warnings).lines())
    part = _Part(out.with_name(out.name + ".part"), _header(predictor, table))
    if restart:
        part.path.unlink(missing_ok=True)
    resumed = part.resume()
    found = islice(table.rows(None), resumed, None)
    try:
        _score(predictor, watch(found, table.length, resumed) if watch else found, part, workers)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(part.path, part.rows) from interrupt
    if part.rows != table.length:
        raise ModelError(f"{part.path}: {part.rows:,} rows instead of {table.length:,}; --restart begins anew")
    names = ("id", *OUTPUTS[predictor.description.task].columns(predictor.description.labels), "error")
    failed, errors, faults = _finish(part, out, names)
    return Scored(out, table.length, resumed, failed, errors, table.warnings, tuple(faults.lines()))


def _score(predictor: Predictor, found: Iterator[Found], part: "_Part", workers: int) -> None:
    output = OUTPUTS[predictor.description.task]
    with part.appending() as file:
        for batch in prepared(predictor, found, workers=workers, size=BATCH):
            predictions = iter(predictor.predict([each.sample for each in batch if each.sample is not None]))
            lines: list[Cells] = []
            for each in batch:
                said = _failed(each.problem) if each.sample is None else output.cells(next(predictions))
                lines.append({"id": each.row.id, **said})
            part.add(file, lines)


def _failed(problem: str) -> Cells:
    """The cells of a row without scores; what groups it with equal ones stays in FILE.part."""
    fault = fault_of(problem)
    return {"error": fault, FAULT: json.dumps([fault.found, fault.value, fault.allowed, fault.kind])}


# --- what each task says ---


class Output(Protocol):
    """A task's own columns."""

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Their names, in order."""
        ...

    def cells(self, prediction: Prediction) -> Cells:
        """Their cells in the row of one prediction."""
        ...


class _BestLabel:
    """The best label and its score, then the score of every label."""

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("label", "score", *map(_column, labels))

    def cells(self, prediction: Prediction) -> Cells:
        scores = prediction.scores
        best = max(scores, key=scores.__getitem__)
        return {"label": best, "score": scores[best], **{_column(label): score for label, score in scores.items()}}


class _SelectedLabels:
    """The labels that are selected, with | between them as in a manifest, then the score of every label."""

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("label", *map(_column, labels))

    def cells(self, prediction: Prediction) -> Cells:
        selected = SEPARATOR.join(label for label in prediction.scores if label in (prediction.selected or ()))
        return {"label": selected, **{_column(label): score for label, score in prediction.scores.items()}}


class _Number:
    """The number, and the ends of its interval."""

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("value", "low", "high")

    def cells(self, prediction: Prediction) -> Cells:
        value, interval = prediction.value, prediction.interval
        return {"value": value} if interval is None else {"value": value, "low": interval.low, "high": interval.high}


def _column(label: str) -> str:
    return f"score_{label}"


OUTPUTS: Final[Mapping[str, Output]] = {
    "single-label": _BestLabel(),
    "multi-label": _SelectedLabels(),
    "regression": _Number(),
}


# --- what is in progress ---


def _header(predictor: Predictor, table: Table) -> dict[str, Any]:
    return {"format": FORMAT, "bundle": predictor.description.digest, "manifest": table.digest}


class _Part:
    """FILE.part: a header, then a line for each row that is done, in the manifest's order."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.rows = 0
        self._header = dict(header)

    def resume(self) -> int:
        """Cut off what a crash left of the last line, and count the rows that are done.

        Raises ModelError when the file belongs to another bundle or manifest, or is damaged.
        """
        if not self._begun():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(_line(self._header), encoding="utf-8")
            return 0
        self._check_header()
        os.truncate(self.path, self._whole_bytes())
        self.rows = sum(1 for _ in self.read())
        return self.rows

    def appending(self) -> IO[str]:
        """The file, to add lines to."""
        return self.path.open("a", encoding="utf-8", newline="\n")

    def add(self, file: IO[str], lines: list[Cells]) -> None:
        """Write rows that are done, as whole lines that survive the end of this process."""
        file.write("".join(map(_line, lines)))
        file.flush()
        self.rows += len(lines)

    def read(self) -> Iterator[Cells]:
        """The rows that are done. Raises ModelError for a line that is none."""
        with self.path.open("rb") as file:
            for number, line in enumerate(islice(file, 1, None), start=2):
                try:
                    cells = json.loads(line)
                except ValueError as problem:
                    raise ModelError(f"{self.path}: line {number} is damaged; --restart begins anew") from problem
                yield cells

    def _begun(self) -> bool:
        """Whether there is a header; a crash may have left less than one."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as file:
            first = file.readline()
        return first.endswith(b"\n") or not _line(self._header).encode().startswith(first)

    def _check_header(self) -> None:
        with self.path.open("rb") as file:
            try:
                found = json.loads(file.readline())
            except ValueError:
                found = None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ModelError(f"{self.path}: not what an interrupted run leaves; --restart begins anew")
        for what in ("bundle", "manifest"):
            if found.get(what) != self._header[what]:
                told = f"begun with another {what}, {found.get(what)}; this one is {self._header[what]}"
                raise ModelError(f"{self.path}: {told}; --restart begins anew")

    def _whole_bytes(self) -> int:
        """Up to the end of the last whole line."""
        with self.path.open("rb") as file:
            return sum(len(line) for line in file if line.endswith(b"\n"))


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


# --- the output ---


def _check_output(out: Path, restart: bool) -> None:
    """Before anything is computed: that it can be written at all. Raises ModelError, or ModuleNotFoundError."""
    if out.suffix.lower() not in WRITERS:
        raise ModelError(f"{out}: format {out.suffix or '(none)'!r}; allowed: {', '.join(WRITERS)}")
    if out.is_dir():
        raise ModelError(f"{out}: is a folder; allowed: a file")
    if out.exists() and not restart:
        raise ModelError(f"{out}: is there already; allowed: a new file, or --restart to replace this one")
    if out.suffix.lower() == ".parquet":
        import pyarrow.parquet  # noqa: F401, PLC0415 — optional, and better missed now than after hours


def _finish(part: _Part, out: Path, names: tuple[str, ...]) -> tuple[int, tuple[tuple[str, str], ...], Faults]:
    """Write the output next to its place, then put it there at once.

    Returns how many rows failed, the first of them, and all of them by kind.
    """
    failed = 0
    errors: list[tuple[str, str]] = []
    faults = Faults()

    def watched() -> Iterator[Cells]:
        nonlocal failed
        for cells in part.read():
            if "error" in cells:
                failed += 1
                if len(errors) < TOLD:
                    errors.append((str(cells["id"]), str(cells["error"])))
                faults.add(_fault(cells))
            yield dict.fromkeys(names) | cells

    fresh = out.with_name(f".{out.name}.fresh")
    try:
        WRITERS[out.suffix.lower()](fresh, watched(), names)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    part.path.unlink()
    return failed, tuple(errors), faults


def _fault(cells: Cells) -> Fault:
    """Take from a row what groups it with equal ones; an older release wrote the sentence alone."""
    sentence = str(cells["error"])
    found, value, allowed, kind = json.loads(str(cells.pop(FAULT, "null"))) or (sentence, "", "", sentence)
    return Fault(found, value, allowed=allowed, kind=kind, place=str(cells["id"]))


def _write_csv(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(names))
        file.writelines(csv_line(cells[name] for name in names) for cells in rows)


def _write_jsonl(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(map(_line, rows))


def _write_parquet(path: Path, rows: Iterable[Cells], names: tuple[str, ...]) -> None:
    import pyarrow  # noqa: PLC0415 — optional
    import pyarrow.parquet  # noqa: PLC0415

    kinds = {name: pyarrow.string() for name in ("id", "label", "error")}
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
