"""Scoring that single-label and multi-label targets share: labels with scores.

N examples, K labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polymodal.model.faults import Fault
from polymodal.model.metrics import Truths, reliability
from polymodal.model.targets.contract import Figure
from polymodal.model.targets.wording import CALIBRATION_ERROR as CALIBRATION_ERROR_MEANING
from polymodal.model.types import Array, FloatArray, Prediction

DECIMALS: Final = 6  # of a score, and of a number in standard deviations; single precision has no more
CALIBRATION_ERROR: Final = Figure(
    "calibration error",
    explanation=f"Calibration error {CALIBRATION_ERROR_MEANING}.",
)
OTHER_FIGURES: Final[Mapping[str, Figure]] = {
    "negative_log_likelihood": Figure(
        "negative log-likelihood", explanation="Negative log-likelihood is that of the true label, in nats."
    ),
    "f1": Figure("F1"),
}


class LabelScoring:
    """Base of the scoring of targets with labels."""

    __slots__ = ()

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        """Return every label's score."""
        return {"scores": dict(prediction.scores)}

    def deviation(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        """Return the largest difference of a score."""
        recorded: Mapping[str, float] = golden["scores"]
        return largest([prediction.scores.get(label, 0.0) - score for label, score in recorded.items()])


def tempered(logits: FloatArray, used: Sequence[str], temperatures: Mapping[str, float]) -> Array:
    """Divide logits (N, K) by the temperature of each row's set of modalities."""
    divisors = np.asarray([temperatures[key] for key in used], dtype=np.float32)
    return logits.astype(np.float64) / divisors[:, None]


def log_softmax_of(logits: Array, targets: Array) -> Array:
    """Return the log-probability (N,) of the right label."""
    right = logits[np.arange(len(targets)), targets]
    return right - np.logaddexp.reduce(logits, axis=1)


def log_sigmoid_of(logits: Array, targets: Array) -> Array:
    """Return the mean log-probability (N,) of the K right decisions."""
    return -np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)


def sigmoid(logits: Array) -> FloatArray:
    """Compute the logistic function."""
    # tanh does not overflow.
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def rounded(row: Array) -> Array:
    """Round scores to DECIMALS."""
    return row.astype(np.float64).round(DECIMALS)


def by_label(labels: Sequence[str], row: Array) -> dict[str, float]:
    """Return one row of scores (K,) by label, rounded."""
    return dict(zip(labels, rounded(row).tolist(), strict=True))


def score_cells(scores: Mapping[str, float]) -> dict[str, str | float | None]:
    """Return the score of every label as cells of a file of scores."""
    return {score_column(label): score for label, score in scores.items()}


def score_column(label: str) -> str:
    """Return the name of the column of a label's score."""
    return f"score_{label}"


def entropy(probabilities: Array) -> float:
    """Return the sum of −p ln p (nats)."""
    positive = probabilities[probabilities > 0]
    return -float((positive * np.log(positive)).sum())


def largest(deviations: Sequence[float]) -> float:
    """Return the largest absolute deviation, NaN if one is NaN."""
    return math.nan if any(map(math.isnan, deviations)) else max(map(abs, deviations))


def metrics_by_label(
    labels: Sequence[str], support: npt.NDArray[np.int64], precision: FloatArray, recall: FloatArray, f1: FloatArray
) -> dict[str, dict[str, float]]:
    """Return number of items, precision, recall and F1 of each label, from arrays (K,)."""
    return {
        label: {
            "items": int(support[index]),
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
        }
        for index, label in enumerate(labels)
    }


def metrics_by_bin(confidence: FloatArray, correct: Truths) -> list[dict[str, float]]:
    """Return the points of a reliability diagram, by rising confidence."""
    return [
        {"items": int(items), "confidence": round(float(sure), DECIMALS), "accuracy": round(float(right), DECIMALS)}
        for items, sure, right in zip(*reliability(confidence, correct), strict=True)
    ]


def without_training_rows(labels: Sequence[str], learnt: set[str]) -> list[str]:
    """Return an error for each label that no row of the train split has."""
    return [Fault("label {} has no rows in the train split", repr(label)) for label in labels if label not in learnt]
