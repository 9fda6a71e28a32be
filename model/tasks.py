"""From logits to calibrated scores, and how good scores are; numpy only (the trainable half stands in heads.py).

N examples, K labels. The table TASKS names every task; so far single-label classification.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from model.types import FloatArray

Indices = npt.NDArray[np.int64]


class Task(Protocol):
    """What a network is trained to say."""

    def scores(self, logits: FloatArray, temperature: FloatArray) -> FloatArray:
        """Calibrated scores (N, K) from logits (N, K) and one temperature for each row (N,)."""
        ...

    def metrics(self, scores: FloatArray, targets: Indices, labels: tuple[str, ...]) -> dict[str, Any]:
        """How well scores (N, K) say the targets (N,), as JSON-ready numbers."""
        ...

    def summary(self, scores: FloatArray, targets: Indices) -> dict[str, float]:
        """The few numbers of `metrics` that are worth an interval."""
        ...


@dataclass(frozen=True, slots=True)
class SingleLabel:
    """Exactly one of K labels is right; scores sum to 1."""

    def scores(self, logits: FloatArray, temperature: FloatArray) -> FloatArray:
        """Softmax of logits / temperature (Guo et al., arXiv:1706.04599)."""
        scaled = logits.astype(np.float64) / temperature[:, None]
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def summary(self, scores: FloatArray, targets: Indices) -> dict[str, float]:
        """Accuracy, and F1 averaged over the labels that occur (macro-F1)."""
        chosen = scores.argmax(axis=1)
        _, _, f1, support = _per_label(chosen, targets, scores.shape[1])
        return {"accuracy": float((chosen == targets).mean()), "macro_f1": float(f1[support > 0].mean())}

    def metrics(self, scores: FloatArray, targets: Indices, labels: tuple[str, ...]) -> dict[str, Any]:
        """The summary, mean negative log-likelihood (nats), calibration error, and every label by itself."""
        precision, recall, f1, support = _per_label(scores.argmax(axis=1), targets, len(labels))
        likelihood = np.clip(scores[np.arange(len(targets)), targets], 1e-12, 1)
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "negative_log_likelihood": float(-np.log(likelihood).mean()),
            "calibration_error": calibration_error(scores.max(axis=1), scores.argmax(axis=1) == targets),
            "labels": {
                label: {
                    "items": int(support[index]),
                    "precision": float(precision[index]),
                    "recall": float(recall[index]),
                    "f1": float(f1[index]),
                }
                for index, label in enumerate(labels)
            },
        }


def calibration_error(confidence: FloatArray, correct: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error over `bins` bins of equal mass: mean |accuracy − confidence| (Nixon et al., arXiv:1904.01685)."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [part.size * abs(correct[part].mean() - confidence[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


def _per_label(chosen: Indices, targets: Indices, labels: int) -> tuple[FloatArray, FloatArray, FloatArray, Indices]:
    """Precision, recall, F1 and support of each label; a ratio without a denominator is 0."""
    confusion = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(confusion, (targets, chosen), 1)
    hits = np.diag(confusion).astype(np.float64)
    support, guesses = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = hits / np.maximum(guesses, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + guesses, 1)
    return precision.astype(np.float32), recall.astype(np.float32), f1.astype(np.float32), support


TASKS: Final[Mapping[str, Task]] = {"single-label": SingleLabel()}
