"""Metrics of scores and numbers: pure functions of arrays, numpy only.

N examples, K labels. A ratio without a denominator is 0, as in scikit-learn.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from polymodal.model.types import Array, FloatArray

Indices = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

Z: Final = 1.959964  # 97.5 % quantile of the normal distribution
BINS: Final = 15
"""Number of bins of calibration errors and reliability diagrams, with nearly equal numbers of items."""


def reliability(
    confidence: FloatArray, correct: Truths, bins: int = BINS
) -> tuple[Indices, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return items, mean confidence and accuracy of `bins` bins of equal mass, by rising confidence, without empty bins."""
    order = np.argsort(confidence, kind="stable")
    groups = [group for group in np.array_split(order, bins) if group.size]
    return (
        np.asarray([group.size for group in groups], dtype=np.int64),
        np.asarray([confidence[group].mean() for group in groups], dtype=np.float64),
        np.asarray([correct[group].mean() for group in groups], dtype=np.float64),
    )


def calibration_error(confidence: FloatArray, correct: Truths, bins: int = BINS) -> float:
    """Return the expected calibration error: mean |accuracy − confidence| over bins of equal mass (Nixon, arXiv:1904.01685)."""
    items, sure, right = reliability(confidence, correct, bins)
    return float((items * np.abs(right - sure)).sum() / items.sum())


def accuracy_at_coverage(confidence: FloatArray, correct: Truths, coverage: float = 0.9) -> float:
    """Return the accuracy on the share `coverage` (rounded up) of the items with the highest confidence.

    One point of the risk-coverage curve of selective classification (Geifman and El-Yaniv, arXiv:1705.08500).
    """
    surest = np.argsort(-confidence, kind="stable")[: _kept(len(confidence), coverage)]
    return float(correct[surest].mean())


def confidence_at_coverage(confidence: FloatArray, coverage: float = 0.9) -> float:
    """Return the lowest confidence of those items: answering only from this confidence on covers the share `coverage`."""
    return float(np.sort(confidence)[::-1][_kept(len(confidence), coverage) - 1])


def _kept(items: int, coverage: float) -> int:
    # Rounded first: 0.9 × 10 must keep nine items, whatever the last bit of 0.9 is.
    return math.ceil(round(coverage * items, 6))


def confusion_matrix(chosen: Indices, targets: Indices, labels: int) -> Indices:
    """Count items by target (rows) and chosen label (columns): (K, K)."""
    confusion = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(confusion, (targets, chosen), 1)
    return confusion


def confusion_counts(chosen: Indices, targets: Indices, labels: int) -> tuple[Indices, Indices, Indices]:
    """Return hits, guesses and support of each label, (K,) each, when one label is chosen per example."""
    confusion = confusion_matrix(chosen, targets, labels)
    return np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)


def selection_counts(selected: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> tuple[Indices, Indices, Indices]:
    """Return hits, guesses and support of each label, (K,) each, when any number of labels is selected (N, K)."""
    return (selected & truth).sum(axis=0), selected.sum(axis=0), truth.sum(axis=0)


def ratios(hits: Indices, guesses: Indices, support: Indices) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return precision, recall and F1 of each label: (K,) each."""
    precision = hits / np.maximum(guesses, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + guesses, 1)
    return precision.astype(np.float32), recall.astype(np.float32), f1.astype(np.float32)


def macro(values: FloatArray, support: Indices) -> float:
    """Return the mean of a metric (K,) over the labels that occur."""
    return float(values[support > 0].mean()) if support.any() else 0.0


def average_precision(scores: Array, truth: npt.NDArray[np.bool_]) -> float:
    """Return the area below precision over recall of one label (N,), in steps; equal scores are one step.

    It is Σ (Rₙ − Rₙ₋₁) Pₙ as in scikit-learn's average_precision_score; 0 when the label does not occur.
    """
    if not truth.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
    hits = np.cumsum(truth[order])[last]
    recall = hits / truth.sum()
    return float((np.diff(recall, prepend=0.0) * hits / (last + 1)).sum())


def average_precisions(scores: Array, truth: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the average precision (K,) of each label of (N, K)."""
    values = [average_precision(scores[:, label], truth[:, label]) for label in range(truth.shape[1])]
    return np.asarray(values, dtype=np.float32)


def r_squared(values: Array, targets: Array) -> float:
    """Return R²: 1 − squared error / variance of the targets; without variance, 1 if all are right and 0 otherwise.

    It is scikit-learn's r2_score with force_finite.
    """
    wrong = float(((targets - values) ** 2).sum())
    spread = float(((targets - targets.mean()) ** 2).sum())
    if spread > 0:
        return 1.0 - wrong / spread
    return 1.0 if wrong == 0 else 0.0


def wilson(share: Array, items: Array) -> tuple[Array, Array]:
    """Return lower and upper ends of the 95 % score interval of a proportion of `items`, in arrays of one shape.

    Unlike others it has a width for proportions of 0 and 1 (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).
    """
    middle = (share + Z**2 / (2 * items)) / (1 + Z**2 / items)
    half = Z / (1 + Z**2 / items) * np.sqrt(share * (1 - share) / items + Z**2 / (4 * items**2))
    # Rounding may leave an end a hair below 0, above 1, or on the wrong side of the share that it bounds.
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
