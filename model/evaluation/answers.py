"""Predictions of a bundle for a manifest's rows with each set of modalities, and their metrics; without torch.

N rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polymodal.model.config import sets_to_measure, subset_key
from polymodal.model.errors import ModelError
from polymodal.model.evaluation.measures import measure
from polymodal.model.evaluation.stream import CheckedRow, Prepared, prepared
from polymodal.model.faults import Fault, Faults, fault_of
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import SPLITS, Row, Table, open_table, read_splits
from polymodal.model.metrics import Indices
from polymodal.model.spelling import look, spelled
from polymodal.model.targets import TARGETS
from polymodal.model.targets.contract import Scoring
from polymodal.model.types import Array, Description, Sample

ALL: Final = "all"

Track = Callable[[Iterator[CheckedRow], int], Iterator[CheckedRow]]
"""Passes rows on and may report progress. Arguments: rows and their number."""
Warn = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """A bundle's scores for one set of modalities; rows that have none of them are left out."""

    offered: str
    """The set, e.g. "image+text"."""
    rows: Indices
    """Indices of the evaluation's rows: (N,)."""
    used: tuple[str, ...]
    """Offered modalities of each row, e.g. "image"."""
    scores: Array
    """(N, …), as the target's `scores` returns them."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that could not be predicted."""

    id: str
    problem: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A bundle's answers for one split of a manifest, and their metrics."""

    description: Description
    target: Scoring
    manifest: Path
    manifest_digest: str
    """`Table.digest`."""
    split: str
    """The split, or "all"."""
    rows: tuple[Row, ...]
    targets: Array
    """True values (N, …), as the target's `array` returns them."""
    answers: Mapping[str, Answers]
    """By set of modalities; only sets that some row has."""
    skipped: tuple[Skipped, ...]
    metrics: Mapping[str, Any]
    """By set of modalities, as in the training report."""
    warnings: tuple[str, ...]
    """Warnings about the manifest."""

    def faults(self) -> list[str]:
        """Return a line for each kind of reason why rows were skipped."""
        return Faults(fault_of(row.problem).at(row.id) for row in self.skipped).lines()

    @property
    def manifest_name(self) -> str:
        r"""Return the manifest's file name, with \udcff and the like for bytes that are not UTF-8."""
        return self.manifest.name.encode(errors="backslashreplace").decode()

    def as_json(self) -> dict[str, Any]:
        """Return all measures; nothing in it depends on time or machine."""
        return {
            "model": self.description.name,
            "bundle": self.description.digest,
            "runtime": self.description.runtime,
            "manifest": self.manifest_name,
            "manifest_digest": self.manifest_digest,
            "split": self.split,
            "items": len(self.rows),
            "warnings": list(self.warnings),
            "skipped": [{"id": row.id, "problem": row.problem} for row in self.skipped],
            "metrics": self.metrics,
        }


def evaluate(
    predictor: Network,
    manifest: Path,
    *,
    split: str | None = None,
    splits: Path | None = None,
    workers: int = 1,
    watch: Track | None = None,
    warn: Warn | None = None,
    roots: Sequence[Path] = (),
) -> Evaluation:
    """Predict every row of one split of a manifest with each set of modalities, and measure the scores.

    `split` defaults to the test split, or to "all" for a manifest without splits. `splits` is a split.csv (id, split) of a
    training, which replaces the manifest's own splits. Rows that can't be read, or with a label that the bundle lacks, are skipped.
    `warn` is called with the manifest's warnings before the work begins. Raises ModelError when no row is left.
    """
    description = predictor.description
    table = open_table(manifest, roots=roots)
    if warn:
        warn(Faults(table.warnings).lines())
    split_by_id = read_splits(splits) if splits else None
    chosen_split = _chosen_split(table, split, has_splits=split_by_id is not None or table.has_splits)

    def rows() -> Iterator[CheckedRow]:
        checked = table.rows(description.target)
        return checked if split_by_id is None else _with_splits(checked, split_by_id)

    order = tuple(spec.name for spec in description.inputs)
    # Only sets of modalities that rows have are measured; they are known before decoding.
    present = (frozenset(row.inputs) for row, _ in _of_split(rows(), chosen_split)) if len(order) > 2 else ()
    collected = _Collected(description, sets_to_measure(order, present))
    chosen = _of_split(watch(rows(), table.length) if watch else rows(), chosen_split)
    for batch in prepared(predictor, chosen, workers=workers):
        collected.add(predictor, order, batch)
    if not collected.rows:
        raise ModelError(_no_rows_message(table, chosen_split, collected.skipped))
    cells = [row.label for row in collected.rows]
    targets = TARGETS[description.target].cells.array(cells, _spelled_labels(description), predictor.scale)
    answers = collected.answers()
    metrics = {
        key: measure(entry.scores, targets[entry.rows], [collected.rows[row] for row in entry.rows], predictor.target)
        for key, entry in answers.items()
    }
    return Evaluation(
        description,
        predictor.target,
        table.path,
        table.digest,
        chosen_split,
        tuple(collected.rows),
        targets,
        answers,
        tuple(collected.skipped),
        metrics,
        table.warnings,
    )


def _spelled_labels(description: Description) -> tuple[str, ...]:
    """Return the bundle's labels in the spelling of manifests, which older releases did not use."""
    labels = description.labels
    return tuple(label if spelled(label) in labels else spelled(label) for label in labels)


def _chosen_split(table: Table, split: str | None, *, has_splits: bool) -> str:
    if split is None:
        return "test" if has_splits else ALL
    if split not in (*SPLITS, ALL):
        raise ModelError(f"split: {split!r}; allowed: {', '.join(SPLITS)}, {ALL}")
    if split != ALL and not has_splits:
        allowed = f"{ALL}, or --splits with the split.csv that its training wrote"
        raise ModelError(f"{table.path}: its rows have no split, so there is no {split} split; allowed: {allowed}")
    return split


def _with_splits(rows: Iterator[CheckedRow], split_by_id: Mapping[str, str]) -> Iterator[CheckedRow]:
    """Yield rows with these splits; a row whose id has none gets an error."""
    missing = "its id has no split in the file given with --splits; allowed: the manifest that was split"
    for row, errors in rows:
        split = split_by_id.get(row.id)
        yield replace(row, split=split or ""), (errors if split is not None else (*errors, missing))


def _of_split(rows: Iterator[CheckedRow], chosen_split: str) -> Iterator[CheckedRow]:
    """Yield the rows of a split, and those with errors whose split is unknown."""
    for row, errors in rows:
        if chosen_split in (ALL, row.split) or (errors and row.split not in SPLITS):
            yield row, errors


def _no_rows_message(table: Table, chosen_split: str, skipped: list[Skipped]) -> str:
    where = f"{table.path}: no row" if chosen_split == ALL else f"{table.path}: no row of the {chosen_split} split"
    if not skipped:
        return f"{where} exists; allowed: a split that has rows, or --split {ALL}"
    first = skipped[0]
    return f"{where} can be predicted; {len(skipped)} were skipped, the first, {first.id}, for: {first.problem}"


class _Collected:
    """Collects scores of batches by set of modalities."""

    def __init__(self, description: Description, keys: tuple[str, ...]) -> None:
        self._description = description
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self._batches: dict[str, list[tuple[list[int], list[str], Array]]] = {key: [] for key in keys}

    def add(self, predictor: Network, order: tuple[str, ...], batch: list[Prepared]) -> None:
        """Predict a batch: every row is encoded once, and fused with each set of modalities."""
        samples: list[Sample] = []
        first = len(self.rows)
        for item in batch:
            problem = item.problem or self._unknown(item.row.label)
            if problem or item.sample is None:
                self.skipped.append(Skipped(item.row.id, problem))
                continue
            self.rows.append(item.row)
            samples.append(item.sample)
        if not samples:
            return
        embeddings = {name: predictor.encode(name, samples) for name in order}
        for key, batches in self._batches.items():
            used = [sample.present & set(key.split("+")) for sample in samples]
            kept = [index for index, names in enumerate(used) if names]
            if kept:
                chosen = {name: vectors[kept] for name, vectors in embeddings.items()}
                scores = predictor.scores(chosen, [used[index] for index in kept])
                names = [subset_key(used[index], order) for index in kept]
                batches.append(([first + index for index in kept], names, scores))

    def _unknown(self, cell: str) -> str:
        """Return the fault of a label cell with labels that the bundle lacks; empty if there is none."""
        known = _spelled_labels(self._description)
        unknown = [label for label in TARGETS[self._description.target].cells.labels([cell]) if label not in known]
        if not unknown:
            return ""
        hint = next((f" (did you mean {label!r}?)" for label in known if look(label) == look(unknown[0])), "")
        return Fault("label {} is not one of the bundle's", f"{unknown[0]!r}{hint}", allowed=", ".join(known))

    def answers(self) -> dict[str, Answers]:
        """Return the answers for each set of modalities that some row has."""
        answers = {}
        for key, batches in self._batches.items():
            if any(key in names for _, names, _ in batches):
                rows: npt.NDArray[np.int64] = np.concatenate(
                    [np.asarray(rows, dtype=np.int64) for rows, _, _ in batches]
                )
                used = tuple(name for _, names, _ in batches for name in names)
                answers[key] = Answers(key, rows, used, np.concatenate([scores for _, _, scores in batches]))
        return answers
