"""What a bundle says of a manifest's rows, given each set of modalities, and how good that is; without torch.

N rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.config import subset_key, subsets
from model.errors import ModelError
from model.evaluation.measures import measure
from model.evaluation.stream import Found, Prepared, prepared
from model.faults import Fault, Faults, fault_of
from model.manifest import SPLITS, Row, Table, open_table, read_splits
from model.metrics import Indices
from model.predictor import Predictor
from model.spelling import look, spelled
from model.targets import TARGETS
from model.tasks import Task
from model.types import Array, Description, Sample

ALL: Final = "all"

Watch = Callable[[Iterator[Found], int], Iterator[Found]]
"""Passes rows on, and may tell somebody how many of so many went by."""
Warn = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a bundle says when it is offered one set of modalities; rows with none of them are left out."""

    offered: str
    """The set, e.g. "image+text"."""
    rows: Indices
    """Which of the evaluation's rows, in their order: (N,)."""
    used: tuple[str, ...]
    """For each row, which of the offered modalities it has, e.g. "image"."""
    scores: Array
    """As the task has them, a row for each of N."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that could not be asked about."""

    id: str
    problem: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A bundle's answers about one part of a manifest, and the measures of them."""

    description: Description
    task: Task
    manifest: Path
    manifest_digest: str
    """Of the table's cells, see `Table.digest`."""
    split: str
    """The part, or "all"."""
    rows: tuple[Row, ...]
    targets: Array
    """What should be said of every row, as the task has it: N of them."""
    answers: Mapping[str, Answers]
    """By set of modalities; only those that some row has."""
    skipped: tuple[Skipped, ...]
    metrics: Mapping[str, Any]
    """By set of modalities, as the training report has them."""
    warnings: tuple[str, ...]
    """What of the manifest was left out or read in another way than it is written."""

    def faults(self) -> list[str]:
        """Return one line for each kind of reason why rows were skipped."""
        return Faults(fault_of(each.problem).at(each.id) for each in self.skipped).lines()

    @property
    def manifest_name(self) -> str:
        r"""The manifest's file name, with \udcff and the like for bytes that are no UTF-8."""
        return self.manifest.name.encode(errors="backslashreplace").decode()

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured; nothing in it depends on when or where that was."""
        return {
            "model": self.description.name,
            "bundle": self.description.digest,
            "runtime": self.description.runtime,
            "manifest": self.manifest_name,
            "manifest_digest": self.manifest_digest,
            "split": self.split,
            "items": len(self.rows),
            "warnings": list(self.warnings),
            "skipped": [{"id": each.id, "problem": each.problem} for each in self.skipped],
            "metrics": self.metrics,
        }


def evaluate(
    predictor: Predictor,
    manifest: Path,
    *,
    split: str | None = None,
    splits: Path | None = None,
    workers: int = 1,
    watch: Watch | None = None,
    warn: Warn | None = None,
    roots: Sequence[Path] = (),
) -> Evaluation:
    """Ask about every row of one part of a manifest, with each set of modalities, and measure the answers.

    `split` is a part, or "all"; without it, the test part of a manifest that has parts, and all of another. `splits` is a
    split.csv (id, split) that a training has left, which divides the rows in place of the manifest's own splits. Rows that can't
    be read or whose label the bundle doesn't know are skipped. `warn` gets the manifest's warnings before the work begins. Raises
    ModelError when nothing is left.
    """
    description = predictor.description
    table = open_table(manifest, roots=roots)
    if warn:
        warn(Faults(table.warnings).lines())
    divided = read_splits(splits) if splits else None
    part = _part(table, split, divided is not None)
    found = table.rows(description.task)
    if divided is not None:
        found = _divided(found, divided)
    order = tuple(spec.name for spec in description.inputs)
    collected = _Collected(description, subsets(order))
    chosen = _of_part(watch(found, table.length) if watch else found, part)
    for batch in prepared(predictor, chosen, workers=workers):
        collected.add(predictor, order, batch)
    if not collected.rows:
        raise ModelError(_nothing_left(table, part, collected.skipped))
    cells = [row.label for row in collected.rows]
    targets = TARGETS[description.task].array(cells, _spelled_labels(description), predictor.scale)
    answers = collected.answers()
    metrics = {
        key: measure(each.scores, targets[each.rows], [collected.rows[row] for row in each.rows], predictor.task)
        for key, each in answers.items()
    }
    return Evaluation(
        description,
        predictor.task,
        table.path,
        table.digest,
        part,
        tuple(collected.rows),
        targets,
        answers,
        tuple(collected.skipped),
        metrics,
        table.warnings,
    )


def _spelled_labels(description: Description) -> tuple[str, ...]:
    """The bundle's labels as a manifest's cells are read; an older release did not read them so."""
    labels = description.labels
    return tuple(label if spelled(label) in labels else spelled(label) for label in labels)


def _part(table: Table, split: str | None, divided: bool) -> str:
    has_parts = divided or table.has_splits
    if split is None:
        return "test" if has_parts else ALL
    if split not in (*SPLITS, ALL):
        raise ModelError(f"split: {split!r}; allowed: {', '.join(SPLITS)}, {ALL}")
    if split != ALL and not has_parts:
        allowed = f"{ALL}, or --splits with the split.csv that its training has left"
        raise ModelError(f"{table.path}: its rows name no split, so there is no {split} part; allowed: {allowed}")
    return split


def _divided(rows: Iterator[Found], splits: Mapping[str, str]) -> Iterator[Found]:
    for row, wrong in rows:
        known = row.id in splits
        problem = (
            () if known else ("its id has no split in the file given with --splits; allowed: the manifest it is of",)
        )
        yield replace(row, split=splits.get(row.id, "")), (*wrong, *problem)


def _of_part(rows: Iterator[Found], part: str) -> Iterator[Found]:
    """The rows of a part, and those that can't be told to be of another because their split is none."""
    for row, wrong in rows:
        if part in (ALL, row.split) or (wrong and row.split not in SPLITS):
            yield row, wrong


def _nothing_left(table: Table, part: str, skipped: list[Skipped]) -> str:
    where = f"{table.path}: no row" if part == ALL else f"{table.path}: no row of the {part} part"
    if not skipped:
        return f"{where} is there; allowed: a part that has rows, or --split {ALL}"
    first = skipped[0]
    return f"{where} can be asked about; {len(skipped)} were skipped, the first, {first.id}, for: {first.problem}"


class _Collected:
    """Scores of one batch after the other, by set of modalities."""

    def __init__(self, description: Description, keys: tuple[str, ...]) -> None:
        self._description = description
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self._parts: dict[str, list[tuple[list[int], list[str], Array]]] = {key: [] for key in keys}

    def add(self, predictor: Predictor, order: tuple[str, ...], batch: list[Prepared]) -> None:
        """Ask about a batch: every row is encoded once, and fused with every set of modalities."""
        samples: list[Sample] = []
        first = len(self.rows)
        for each in batch:
            problem = each.problem or self._unknown(each.row.label)
            if problem or each.sample is None:
                self.skipped.append(Skipped(each.row.id, problem))
                continue
            self.rows.append(each.row)
            samples.append(each.sample)
        if not samples:
            return
        embeddings = {name: predictor.encode(name, samples) for name in order}
        for key, parts in self._parts.items():
            used = [sample.present & set(key.split("+")) for sample in samples]
            kept = [index for index, names in enumerate(used) if names]
            if kept:
                left = {name: each[kept] for name, each in embeddings.items()}
                scores = predictor.scores(left, [used[index] for index in kept])
                names = [subset_key(used[index], order) for index in kept]
                parts.append(([first + index for index in kept], names, scores))

    def _unknown(self, cell: str) -> str:
        """What is wrong with a label cell that names labels which the bundle doesn't know; empty when nothing is."""
        known = _spelled_labels(self._description)
        unknown = [label for label in TARGETS[self._description.task].labels([cell]) if label not in known]
        if not unknown:
            return ""
        meant = next((f" (did you mean {label!r}?)" for label in known if look(label) == look(unknown[0])), "")
        return Fault("label {} is not one of the bundle's", f"{unknown[0]!r}{meant}", allowed=", ".join(known))

    def answers(self) -> dict[str, Answers]:
        """For each set of modalities that some row has."""
        told = {}
        for key, parts in self._parts.items():
            if any(key in names for _, names, _ in parts):
                rows: npt.NDArray[np.int64] = np.concatenate([np.asarray(rows, dtype=np.int64) for rows, _, _ in parts])
                used = tuple(name for _, names, _ in parts for name in names)
                told[key] = Answers(key, rows, used, np.concatenate([scores for _, _, scores in parts]))
        return told
