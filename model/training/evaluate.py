"""Predict, calibrate and measure a network with the sets of modalities of `config.sets_to_measure`.

N rows, M modalities, D embedding width, K labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polymodal.model.config import BundleConfig, NetworkConfig, sets_to_measure, subset_key
from polymodal.model.evaluation.measures import measure
from polymodal.model.runtimes import Runtime
from polymodal.model.targets import TARGETS
from polymodal.model.training.examples import Examples
from polymodal.model.types import FloatArray

BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """A network's logits for rows with one set of modalities; rows with none of them are left out."""

    offered: str
    """The set, e.g. "image+text"."""
    rows: npt.NDArray[np.int64]
    used: tuple[str, ...]
    """Offered modalities of each row, e.g. "image"."""
    logits: FloatArray


def predict(runtime: Runtime, examples: Examples, rows: Sequence[int], network: NetworkConfig) -> dict[str, Answers]:
    """Return answers for each set of modalities that is measured and that some row has; each row is encoded once."""
    embeddings = {name: encode(runtime, examples, rows, name, network.width) for name in network.order}
    return predict_from_embeddings(runtime, embeddings, examples, rows, network)


def predict_from_embeddings(
    runtime: Runtime,
    embeddings: Mapping[str, FloatArray],
    examples: Examples,
    rows: Sequence[int],
    network: NetworkConfig,
) -> dict[str, Answers]:
    """Return answers for each set of modalities that is measured and that some row has, from embeddings (N, D) by modality."""
    present, order = examples.present(rows), network.order
    keys = measured_sets(examples, rows, order)
    answers = (_predict_set(runtime, embeddings, present, np.asarray(rows), key, order) for key in keys)
    return {entry.offered: entry for entry in answers if entry.offered in entry.used}


def measured_sets(examples: Examples, rows: Sequence[int], order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sets of modalities to measure on these rows."""
    return sets_to_measure(order, (frozenset(compress(order, row)) for row in examples.present(rows)))


def encode(runtime: Runtime, examples: Examples, rows: Sequence[int], name: str, width: int) -> FloatArray:
    """Return one modality's embeddings (N, D); zeros for rows that lack it."""
    embeddings = np.zeros((len(rows), width), dtype=np.float32)
    having = [index for index, row in enumerate(rows) if examples.stores[name].has(row)]
    for start in range(0, len(having), BATCH):
        batch = having[start : start + BATCH]
        collated = examples.collate(name, [rows[index] for index in batch])
        embeddings[batch] = runtime.encode(name, collated)[:, :width]  # without aligned vectors
    return embeddings


def _predict_set(
    runtime: Runtime,
    embeddings: Mapping[str, FloatArray],
    present: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64],
    offered: str,
    order: tuple[str, ...],
) -> Answers:
    left = present & np.asarray([name in offered.split("+") for name in order])
    kept = np.flatnonzero(left.any(axis=1))
    logits = runtime.fuse({name: vectors[kept] for name, vectors in embeddings.items()}, left[kept])
    used = tuple(subset_key({name for name, has in zip(order, row, strict=True) if has}, order) for row in left[kept])
    return Answers(offered, rows[kept], used, logits)


def calibrate(answers: Mapping[str, Answers], examples: Examples, network: NetworkConfig) -> dict[str, Any]:
    """Fit the calibration fields of BundleConfig to the rows that have exactly the offered set.

    A set without answers, or with too few rows, gets none; `fallback` of the config selects another set's calibration.
    """
    answered = {}
    for key, entry in answers.items():
        exact = np.asarray([used == key for used in entry.used], dtype=np.bool_)
        answered[key] = (entry.logits[exact], examples.targets[entry.rows][exact])
    return TARGETS[network.target].scoring.calibrate(answered, network)


def monitor(answers: Mapping[str, Answers], examples: Examples, target: str) -> dict[str, float]:
    """Return the metric of early stopping for each set of modalities, which needs no calibration."""
    return {
        key: TARGETS[target].scoring.monitor(entry.logits, examples.targets[entry.rows])
        for key, entry in answers.items()
    }


def report(answers: Mapping[str, Answers], config: BundleConfig, examples: Examples) -> dict[str, Any]:
    """Return the metrics of one split by set of modalities: with intervals, and by source too."""
    target = TARGETS[config.network.target].scoring.of(config)
    return {
        key: measure(
            target.scores(entry.logits, entry.used),
            examples.targets[entry.rows],
            [examples.rows[row] for row in entry.rows],
            target,
        )
        for key, entry in answers.items()
    }
