"""Splits of a manifest into train, validation and test.

G groups, L labels, P = 3 splits.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polymodal.model.manifest import SPLITS, Manifest, Row, csv_line, data_digest
from polymodal.model.targets import DEFAULT_TARGET, TARGETS

SHARES: Final[Mapping[str, float]] = {"train": 0.70, "validation": 0.12, "test": 0.18}
SPLIT_NAMES: Final = tuple(SHARES)
EVERY: Final = 0
"""The column that counts all rows; the others count the rows of one label."""

Counts = npt.NDArray[np.float64]


def with_splits(manifest: Manifest, seed: int) -> Manifest:
    """Return the manifest with the splits of `split_rows`, unless it has splits."""
    if any(row.split for row in manifest.rows):
        return manifest
    rows = split_rows(manifest.rows, seed, manifest.target)
    digest = data_digest(rows, (manifest.root, *manifest.allowed), manifest.file_digests)
    return replace(manifest, rows=rows, digest=digest, split_seed=seed)


def split_rows(rows: Sequence[Row], seed: int, target: str = DEFAULT_TARGET) -> tuple[Row, ...]:
    """Return rows with splits, 70/12/18 of every label, no group in two splits; the same for the same rows and seed.

    A label with three or more groups has rows in every split, unless a rarer label decides about its groups; one with two groups
    has rows in train and validation, one with a single group only in train. Numbers are divided by their bins.
    """
    strata = TARGETS[target].cells.strata([row.label for row in rows])
    pairs = [(row.group, label) for row, labels in zip(rows, strata, strict=True) for label in labels]
    splits = _splits_of(pairs, seed)
    return tuple(replace(row, split=splits[row.group]) for row in rows)


def _splits_of(pairs: Sequence[tuple[str, str]], seed: int) -> dict[str, str]:
    """Return the split of each group, from (group, label) of every row."""
    # The column EVERY gives splits their shares even if labels are too rare to be divided exactly.
    labels = {label: column for column, label in enumerate(dict.fromkeys(label for _, label in pairs), start=1)}
    groups: dict[str, Counter[int]] = {}
    for group, label in pairs:
        groups.setdefault(group, Counter()).update((EVERY, labels[label]))
    # By size, then by hash: large groups first, so that smaller ones can balance them.
    order = sorted(
        groups, key=lambda group: (-groups[group][EVERY], hashlib.sha256(f"{seed}:{group}".encode()).digest())
    )
    assignment = _Assignment(groups, 1 + len(labels))
    assignment.cover(order)
    for group in order:
        if group not in assignment.splits:
            assignment.put(group, assignment.nearest(group))
    return {group: SPLIT_NAMES[split] for group, split in assignment.splits.items()}


class _Assignment:
    """Assigns groups to splits, by their index, and counts their rows."""

    def __init__(self, groups: Mapping[str, Counter[int]], labels: int) -> None:
        self.splits: dict[str, int] = {}
        self._groups = groups
        total = np.zeros(labels)
        for counts in groups.values():
            total[list(counts)] += list(counts.values())
        self._shares: Counts = np.outer(list(SHARES.values()), total)  # (P, L) rows
        self._placed: Counts = np.zeros_like(self._shares)

    def put(self, group: str, split: int) -> None:
        """Assign a group to a split."""
        counts = self._groups[group]
        self._placed[split, list(counts)] += list(counts.values())
        self.splits[group] = split

    def nearest(self, group: str) -> int:
        """Return the first split in which the group increases the χ² distance from the target shares least."""
        columns, counts = list(self._groups[group]), np.asarray(list(self._groups[group].values()))
        shares, placed = self._shares[:, columns], self._placed[:, columns]  # (P, labels of the group)
        rise = counts * (2 * (placed - shares) + counts) / shares
        return int(rise.sum(axis=1).argmin())

    def cover(self, order: Sequence[str]) -> None:
        """Put each label into each split, rarest labels first: its largest group into train, its smallest ones into the others."""
        having: dict[int, list[str]] = {}
        for group in order:
            for label in self._groups[group]:
                if label != EVERY:
                    having.setdefault(label, []).append(group)
        for label, groups in sorted(having.items(), key=lambda item: len(item[1])):
            free = [group for group in groups if group not in self.splits]
            for split in range(len(SPLIT_NAMES)):
                if free and not self._placed[split, label]:
                    self.put(free.pop(0 if split == 0 else -1), split)


def describe_split(manifest: Manifest, escaped: bool = True) -> dict[str, Any]:
    """Return the splits for a bundle's report: seed, if `with_splits` made them, SHA-256 of `split_table`, rows by label."""
    return {
        "seed": manifest.split_seed,
        "sha256": hashlib.sha256(split_table(manifest.rows, escaped).encode()).hexdigest(),
        "rows": dict(Counter(row.split for row in manifest.rows)),
        "labels": {split: counts for split, counts in label_counts(manifest.rows, manifest.target).items() if counts},
    }


def label_counts(rows: Sequence[Row], target: str) -> dict[str, dict[str, int]]:
    """Count the rows of each split by label, sorted; numbers have no labels."""
    reader = TARGETS[target].cells
    counts = {}
    for split in SPLITS:
        cells = [row.label for row in rows if row.split == split]
        numbers = Counter(label for labels in reader.strata(cells) for label in labels)
        counts[split] = {label: numbers[label] for label in reader.labels(cells)}
    return counts


def split_table(rows: Sequence[Row], escaped: bool = True) -> str:
    """Return CSV of `id` and `split`, in the manifest's order; older releases did not escape ids that a spreadsheet would run."""
    lines = [("id", "split"), *((row.id, row.split) for row in rows)]
    if escaped:
        return "".join(map(csv_line, lines))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_split(path: Path, rows: Sequence[Row]) -> None:
    """Write `split_table`; its SHA-256 is the digest in the report."""
    path.write_text(split_table(rows), encoding="utf-8", newline="")
