"""Pairs for alignment: rows of a manifest with several inputs of one thing, with or without labels.

N rows, F width of an encoder's features.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from polymodal.model.errors import ModelError
from polymodal.model.manifest import Row, open_table
from polymodal.model.modalities import Input
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import track, warn
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.training.examples import Examples, write_arrays
from polymodal.model.training.splits import split_rows
from polymodal.model.types import FloatArray

BATCH: Final = 64
MIN_GROUPS: Final = 20
"""Fewest groups of a split for choosing heads, and for calibrating `match`."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""Numbers of rows."""


@dataclass(frozen=True)
class Pairs:
    """Rows with their features. A modality that a row lacks has zeros."""

    rows: tuple[Row, ...]
    features: Mapping[str, FloatArray]
    """(N, F) by modality: what an encoder computes from an input before its projection."""
    present: Mapping[str, npt.NDArray[np.bool_]]
    """(N,) by modality."""

    @cached_property
    def groups(self) -> Rows:
        """Number of the group of each row (N,)."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(row.group for row in self.rows))}
        return np.asarray([numbers[row.group] for row in self.rows], dtype=np.int64)

    def having(self, split: str, *names: str) -> Rows:
        """Return the numbers of the rows of a split that have all these modalities."""
        has = np.asarray([row.split == split for row in self.rows], dtype=np.bool_)
        for name in names:
            has &= self.present[name]
        return np.flatnonzero(has)


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """Rows that have at least two modalities of a network, with their preprocessed arrays on disk."""

    examples: Examples
    """Without targets."""
    digest: str
    """SHA-256 of the manifest's cells."""
    faults: tuple[str, ...]
    """One line for each row that is left out."""

    def encode(self, network: MultimodalClassifier) -> Pairs:
        """Return the rows with their features. An input that several rows have is encoded once."""
        rows = range(len(self.examples.rows))
        features = {}
        with _features_of(network) as runtime:
            for name, store in self.examples.stores.items():
                having = [row for row in rows if store.has(row)]
                places = [store.place(row) for row in having]
                first = dict(zip(reversed(places), reversed(having), strict=True))
                starts = range(0, len(first), BATCH)
                unique = list(first.values())
                vectors = [
                    runtime.encode(name, self.examples.collate(name, unique[start : start + BATCH]))
                    for start in track(starts, f"encoding {name}", len(starts), "batches")
                ]
                numbers = {place: number for number, place in enumerate(first)}
                encoded = np.concatenate(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
                features[name] = np.zeros((len(rows), encoded.shape[1]), dtype=np.float32)
                features[name][having] = encoded[[numbers[place] for place in places]]
        return Pairs(self.examples.rows, features, _presence(self.examples))

    def describe(self) -> dict[str, Any]:
        """Return the data for a bundle's report: digest, and rows by split, source and licence."""
        counts: dict[str, Counter[str]] = {}
        for row in self.examples.rows:
            source = f"{row.source} ({row.licence})" if row.licence else row.source
            counts.setdefault(row.split, Counter())[source] += 1
        return {"digest": self.digest, "items": {split: dict(count) for split, count in counts.items()}}


def prepare_pairs(
    source: Path,
    inputs: Mapping[str, Input],
    folder: Path,
    *,
    roots: Sequence[Path] = (),
    split_seed: int = 0,
    workers: int = 1,
) -> PreparedPairs:
    """Read the rows of a manifest that have at least two of these inputs, and write their preprocessed arrays to `folder`.

    Labels are ignored. Rows that can't be read are left out with a warning. A manifest without splits is divided by group. Raises
    ManifestError, and ModelError as `check_enough` does.
    """
    table = open_table(source, labelled=False, roots=roots)
    rows, faults = [], []
    for row, errors in table.rows(None):
        faults += [f"row {row.id}: {error}" for error in errors]
        if not errors and len(row.inputs.keys() & inputs.keys()) > 1:
            rows.append(row)
    if not table.has_splits:
        rows = list(split_rows(rows, split_seed))
    folder.mkdir(parents=True, exist_ok=True)
    root = source if source.is_dir() else source.parent
    stores, unreadable = write_arrays(rows, root, inputs, folder, workers)
    several = [number for number in range(len(rows)) if sum(store.has(number) for store in stores.values()) > 1]
    kept = {name: store.only(several) for name, store in stores.items()}
    examples = Examples(tuple(rows[number] for number in several), (), inputs, kept, np.zeros(len(several)))
    faults += unreadable
    warn((*table.warnings, *faults))
    check_enough(examples.rows, _presence(examples))
    return PreparedPairs(examples, table.digest, tuple(faults))


def check_enough(rows: Sequence[Row], present: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Raise ModelError unless the train and the validation split have MIN_GROUPS groups with every two modalities."""
    if len(present) < 2:
        raise ModelError(f"alignment: the network takes {' and '.join(present)} alone; allowed: two modalities or more")
    for split, names in product(("train", "validation"), combinations(present, 2)):
        both = present[names[0]] & present[names[1]]
        count = len({row.group for row, has in zip(rows, both, strict=True) if has and row.split == split})
        if count < MIN_GROUPS:
            raise ModelError(
                f"alignment: {count} groups of the {split} split have {' and '.join(names)}; allowed: at least {MIN_GROUPS}"
            )


def _presence(examples: Examples) -> dict[str, npt.NDArray[np.bool_]]:
    """Return presence (N,) by modality."""
    rows = range(len(examples.rows))
    return {
        name: np.asarray([store.has(row) for row in rows], dtype=np.bool_) for name, store in examples.stores.items()
    }


@contextmanager
def _features_of(network: MultimodalClassifier) -> Iterator[TorchRuntime]:
    """Make the encoders return their features instead of projections of them."""
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in training: faster
    projections = {name: encoder.project for name, encoder in network.encoders.items()}
    try:
        for encoder in network.encoders.values():
            encoder.project = nn.Identity()
        yield TorchRuntime(network, next(network.parameters()).device)
    finally:
        for name, projection in projections.items():
            network.encoders[name].project = projection
