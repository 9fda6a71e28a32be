"""The parts of a manifest: which rows train, which tune and which measure.

G groups, L labels, P = 3 parts.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.config import TaskName
from model.manifest import SPLITS, Manifest, Row, csv_line, data_digest
from model.targets import TARGETS

SHARES: Final[Mapping[str, float]] = {"train": 0.70, "validation": 0.12, "test": 0.18}
PARTS: Final = tuple(SHARES)
EVERY: Final = 0
"""The column of all rows, beside those of the labels."""

Counts = npt.NDArray[np.float64]


def with_splits(manifest: Manifest, seed: int) -> Manifest:
    """Split by label and group, see `split_rows`; a manifest that already has splits is returned as it is."""
    if any(row.split for row in manifest.rows):
        return manifest
    rows = split_rows(manifest.rows, seed, manifest.task)
    digest = data_digest(rows, (manifest.root, *manifest.allowed), manifest.image_digests)
    return replace(manifest, rows=rows, digest=digest, split_seed=seed)


def split_rows(rows: Sequence[Row], seed: int, task: TaskName = "single-label") -> tuple[Row, ...]:
    """The rows with a split each: 70/12/18 of every label, no group in two parts; the same for the same rows and seed.

    A label with three groups or more has rows in every part, as far as they are not shared with a rarer label; one with two has
    rows for training and validation, one with a single group is only trained on. Numbers are divided by the bins they fall into.
    """
    strata = TARGETS[task].strata([row.label for row in rows])
    parts = _parts_of([(row.group, label) for row, labels in zip(rows, strata, strict=True) for label in labels], seed)
    return tuple(replace(row, split=parts[row.group]) for row in rows)


def _parts_of(members: Iterable[tuple[str, str]], seed: int) -> dict[str, str]:
    """The part of each group, from (group, label) of every row."""
    pairs = list(members)
    # Beside them a column of all rows, so that the parts have their shares also where labels are too rare to be divided exactly.
    labels = {label: column for column, label in enumerate(dict.fromkeys(label for _, label in pairs), start=1)}
    groups: dict[str, Counter[int]] = {}
    for group, label in pairs:
        groups.setdefault(group, Counter()).update((EVERY, labels[label]))
    # By size, and among equals by chance: the large ones go while there is still room to balance them.
    order = sorted(groups, key=lambda group: (-groups[group][EVERY], _chance(group, seed)))
    placing = _Placing(groups, 1 + len(labels))
    placing.cover(order)
    for group in order:
        if group not in placing.parts:
            placing.put(group, placing.nearest(group))
    return {group: PARTS[part] for group, part in placing.parts.items()}


def _chance(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()


class _Placing:
    """Groups on their way into parts, and how full these are."""

    def __init__(self, groups: Mapping[str, Counter[int]], labels: int) -> None:
        self.parts: dict[str, int] = {}
        self._groups = groups
        total = np.zeros(labels)
        for counts in groups.values():
            total[list(counts)] += list(counts.values())
        self._wanted: Counts = np.outer(list(SHARES.values()), total)  # (P, L) rows
        self._placed: Counts = np.zeros_like(self._wanted)

    def put(self, group: str, part: int) -> None:
        """Into this part."""
        counts = self._groups[group]
        self._placed[part, list(counts)] += list(counts.values())
        self.parts[group] = part

    def nearest(self, group: str) -> int:
        """The part in which the group raises the χ² distance from the wanted shares least; the first of equals."""
        columns, counts = list(self._groups[group]), np.asarray(list(self._groups[group].values()))
        wanted, placed = self._wanted[:, columns], self._placed[:, columns]  # (P, labels of the group)
        rise = counts * (2 * (placed - wanted) + counts) / wanted
        return int(rise.sum(axis=1).argmin())

    def cover(self, order: Sequence[str]) -> None:
        """See that each label is in each part, the rarest first; its largest group trains, the smallest ones measure."""
        having: dict[int, list[str]] = {}
        for group in order:
            for label in self._groups[group]:
                if label != EVERY:
                    having.setdefault(label, []).append(group)
        for label, groups in sorted(having.items(), key=lambda item: len(item[1])):
            free = [group for group in groups if group not in self.parts]
            for part in range(len(PARTS)):
                if free and not self._placed[part, label]:
                    self.put(free.pop(0 if part == 0 else -1), part)


def describe_split(manifest: Manifest, escaped: bool = True) -> dict[str, Any]:
    """What a bundle's report says of the parts: the seed, if they were made here; the SHA-256 of `split_table`; rows by label."""
    return {
        "seed": manifest.split_seed,
        "sha256": hashlib.sha256(split_table(manifest.rows, escaped).encode()).hexdigest(),
        "rows": dict(Counter(row.split for row in manifest.rows)),
        "labels": {part: counts for part, counts in label_counts(manifest.rows, manifest.task).items() if counts},
    }


def label_counts(rows: Sequence[Row], task: TaskName) -> dict[str, dict[str, int]]:
    """How many rows of each part have each label, sorted; numbers have none."""
    targets = TARGETS[task]
    counts = {}
    for part in SPLITS:
        cells = [row.label for row in rows if row.split == part]
        found = Counter(label for labels in targets.strata(cells) for label in labels)
        counts[part] = {label: found[label] for label in targets.labels(cells)}
    return counts


def split_table(rows: Sequence[Row], escaped: bool = True) -> str:
    """CSV of `id` and `split`, in the manifest's order; ids that a spreadsheet would run were not `escaped` in older releases."""
    lines = [("id", "split"), *((row.id, row.split) for row in rows)]
    if escaped:
        return "".join(map(csv_line, lines))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_split(path: Path, rows: Sequence[Row]) -> None:
    """Write `split_table`; its SHA-256 is the digest in the report."""
    path.write_text(split_table(rows), encoding="utf-8", newline="")
