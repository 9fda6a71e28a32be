"""Pairs for alignment: rows of a manifest with several inputs of one thing, with or without labels.

N rows, F width of an encoder's features.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from polymodal.model.manifest import Row, open_table
from polymodal.model.modalities import Input
from polymodal.model.network import MultimodalClassifier
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.training.examples import prepared
from polymodal.model.training.splits import split_rows
from polymodal.model.types import Array, FloatArray

BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows with their features. A modality that a row lacks has zeros."""

    rows: tuple[Row, ...]
    digest: str
    """SHA-256 of the manifest's cells."""
    features: Mapping[str, FloatArray]
    """(N, F) by modality: what an encoder computes from an input before its projection."""
    present: Mapping[str, npt.NDArray[np.bool_]]
    """(N,) by modality."""
    faults: tuple[str, ...]
    """One line for each row that is left out."""
    warnings: tuple[str, ...] = ()
    """About the manifest as a whole."""

    def having(self, split: str, *names: str) -> npt.NDArray[np.int64]:
        """Return the numbers of the rows of a split that have all these modalities."""
        has = np.asarray([row.split == split for row in self.rows], dtype=np.bool_)
        for name in names:
            has &= self.present[name]
        return np.flatnonzero(has)

    def groups(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[str]:
        """Return the groups of rows."""
        return [self.rows[row].group for row in rows]

    def describe(self) -> dict[str, Any]:
        """Return the data for a bundle's report: digest, and rows by split, source and licence."""
        counts: dict[str, Counter[str]] = {}
        for row in self.rows:
            source = f"{row.source} ({row.licence})" if row.licence else row.source
            counts.setdefault(row.split, Counter())[source] += 1
        return {"digest": self.digest, "items": {split: dict(count) for split, count in counts.items()}}


def read_pairs(
    source: Path,
    network: MultimodalClassifier,
    inputs: Mapping[str, Input],
    *,
    roots: Sequence[Path] = (),
    split_seed: int = 0,
    workers: int = 1,
) -> Pairs:
    """Read the rows of a manifest that have at least two of the network's modalities, and compute their features.

    Labels are ignored. Rows that can't be read are left out and reported. A manifest without splits is divided by group. Raises
    ManifestError.
    """
    table = open_table(source, labelled=False, roots=roots)
    rows, faults = [], []
    for row, errors in table.rows(None):
        faults += [f"row {row.id}: {error}" for error in errors]
        if not errors and len(row.inputs.keys() & inputs.keys()) > 1:
            rows.append(row)
    if not table.has_splits:
        rows = list(split_rows(rows, split_seed))
    computed: dict[int, dict[str, FloatArray]] = {}
    known: dict[tuple[str, Path | str], FloatArray] = {}  # an image may have several texts
    arrays: dict[int, dict[str, Array]] = {}
    runtime = TorchRuntime(network, torch.device("cpu"))

    def encode() -> None:
        for name, entry in inputs.items():
            values = {(name, rows[number].inputs[name]): row[name] for number, row in arrays.items() if name in row}
            new = {key: array for key, array in values.items() if key not in known}
            if new:
                known.update(zip(new, runtime.encode(name, entry.collate(list(new.values()))), strict=True))
        for number, row in arrays.items():
            computed[number] = {name: known[name, rows[number].inputs[name]] for name in row}
        arrays.clear()

    with _features_of(network):
        for number, result in prepared(rows, source if source.is_dir() else source.parent, inputs, workers, "encoding"):
            if isinstance(result, str):
                faults.append(result)
                continue
            arrays[number] = result
            if len(arrays) == BATCH:
                encode()
        encode()
    kept = [number for number in sorted(computed) if len(computed[number]) > 1]
    present = {name: np.asarray([name in computed[number] for number in kept], dtype=np.bool_) for name in inputs}
    features = {}
    for name in inputs:
        width = next((vectors[name].shape[0] for vectors in computed.values() if name in vectors), 0)
        zeros = np.zeros(width, dtype=np.float32)
        features[name] = np.stack([computed[number].get(name, zeros) for number in kept]) if kept else zeros[None][:0]
    return Pairs(tuple(rows[number] for number in kept), table.digest, features, present, tuple(faults), table.warnings)


@contextmanager
def _features_of(network: MultimodalClassifier) -> Iterator[None]:
    """Make the encoders return their features instead of projections of them."""
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in training: faster
    projections = {name: encoder.project for name, encoder in network.encoders.items()}
    try:
        for encoder in network.encoders.values():
            encoder.project = nn.Identity()
        yield
    finally:
        for name, projection in projections.items():
            network.encoders[name].project = projection
