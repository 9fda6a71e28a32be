"""How good a network is: on every set of modalities, with intervals, and calibrated on the validation part.

N rows, M modalities, D embedding width, K labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.config import BundleConfig, NetworkConfig, subset_key, subsets
from model.evaluation.measures import measure
from model.runtimes import Runtime
from model.tasks import TASKS
from model.training.examples import Examples
from model.types import FloatArray

BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network says of some rows when it is offered one set of modalities; rows with none of them are left out."""

    offered: str
    """The set, e.g. "image+text"."""
    rows: npt.NDArray[np.int64]
    used: tuple[str, ...]
    """For each row, which of the offered modalities it has, e.g. "image"."""
    logits: FloatArray


def ask(runtime: Runtime, examples: Examples, rows: Sequence[int], network: NetworkConfig) -> dict[str, Answers]:
    """Answers for every set of modalities that some row has; each row is encoded once."""
    embeddings = {name: encode(runtime, examples, rows, name, network.width) for name in network.order}
    return answer_all(runtime, embeddings, examples, rows, network)


def answer_all(
    runtime: Runtime,
    embeddings: Mapping[str, FloatArray],
    examples: Examples,
    rows: Sequence[int],
    network: NetworkConfig,
) -> dict[str, Answers]:
    """Answers for every set of modalities that some row has, from every modality's embeddings (N, D)."""
    present = examples.present(rows)
    answers = (
        _answer(runtime, embeddings, present, np.asarray(rows), key, network.order) for key in subsets(network.order)
    )
    return {each.offered: each for each in answers if each.offered in each.used}


def encode(runtime: Runtime, examples: Examples, rows: Sequence[int], name: str, width: int) -> FloatArray:
    """One modality's embeddings (N, D); zeros for rows that lack it."""
    embeddings = np.zeros((len(rows), width), dtype=np.float32)
    here = [index for index, row in enumerate(rows) if examples.stores[name].has(row)]
    for start in range(0, len(here), BATCH):
        part = here[start : start + BATCH]
        embeddings[part] = runtime.encode(name, examples.collate(name, [rows[index] for index in part]))
    return embeddings


def _answer(
    runtime: Runtime,
    embeddings: Mapping[str, FloatArray],
    present: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64],
    offered: str,
    order: tuple[str, ...],
) -> Answers:
    left = present & np.asarray([name in offered.split("+") for name in order])
    kept = np.flatnonzero(left.any(axis=1))
    logits = runtime.fuse({name: each[kept] for name, each in embeddings.items()}, left[kept])
    used = tuple(subset_key({name for name, here in zip(order, row, strict=True) if here}, order) for row in left[kept])
    return Answers(offered, rows[kept], used, logits)


def calibrate(answers: Mapping[str, Answers], examples: Examples, network: NetworkConfig) -> dict[str, Any]:
    """What turns logits into answers, as fields of BundleConfig; fitted to the rows that have exactly the set offered.

    A set that no row has is fitted to nothing.
    """
    (some, *_) = answers.values()
    answered = dict.fromkeys(subsets(network.order), (some.logits[:0], examples.targets[:0]))
    for key, each in answers.items():
        exact = np.asarray([used == key for used in each.used], dtype=np.bool_)
        answered[key] = (each.logits[exact], examples.targets[each.rows][exact])
    return TASKS[network.task].calibrate(answered, network)


def watch(answers: Mapping[str, Answers], examples: Examples, task: str) -> dict[str, float]:
    """What early stopping watches, for each set of modalities; it needs no calibration."""
    return {key: TASKS[task].watch(each.logits, examples.targets[each.rows]) for key, each in answers.items()}


def report(answers: Mapping[str, Answers], config: BundleConfig, examples: Examples) -> dict[str, Any]:
    """Everything worth saying of one part, by set of modalities: metrics, intervals, the same by source."""
    task = TASKS[config.network.task].of(config)
    told = {}
    for key, each in answers.items():
        scores, targets = task.scores(each.logits, each.used), examples.targets[each.rows]
        told[key] = measure(scores, targets, [examples.rows[row] for row in each.rows], task)
    return told
