"""From logits to answers, and how good answers are; numpy only (the trainable half stands in heads.py).

N examples, K labels. The table TASKS names every task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from model.calibration import COVERAGE, best_threshold, conformal_half_width, fit_temperature
from model.config import BundleConfig, NetworkConfig, Scale
from model.metrics import (
    Truths,
    accuracy_at_coverage,
    average_precisions,
    calibration_error,
    confidence_at_coverage,
    confusion_counts,
    confusion_matrix,
    macro,
    r_squared,
    ratios,
    reliability,
    selection_counts,
)
from model.types import Array, FloatArray, Interval, Prediction

DECIMALS: Final = 6  # of a score, and of a number in standard deviations; single precision has no more to say

CONFUSED: Final = 100
"""Labels up to which metrics have a confusion matrix; that of a thousand would be most of a bundle."""

Answered = Mapping[str, tuple[FloatArray, Array]]
"""Logits (N, K) and targets by set of present modalities, of the rows that have exactly this set."""


class Figure(NamedTuple):
    """How a metric is shown to people."""

    title: str
    form: str = ".3f"


class Task(Protocol):
    """What a network is trained to say, with what turns its numbers into answers."""

    watched: ClassVar[str]
    """In words, what `watch` measures."""
    figures: ClassVar[Mapping[str, Figure]]
    """The metrics that a model card shows, by name; the first is the headline, which `summary` has too."""
    proportions: ClassVar[Mapping[str, float]]
    """Which of the summary's metrics are the share of items that are right, and of which part of all items."""

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """The task of a bundle."""
        ...

    @staticmethod
    def watch(logits: FloatArray, targets: Array) -> float:
        """A finite number for early stopping, the higher the better, that needs no calibration."""
        ...

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """The fields of BundleConfig that this task has, fitted on the validation part."""
        ...

    def scores(self, logits: FloatArray, used: Sequence[str]) -> Array:
        """Calibrated answers from logits (N, K) and the set of modalities that each row has; a row for each example."""
        ...

    def claims(self, row: Array) -> dict[str, Any]:
        """What one row of `scores` says: the fields of a Prediction beside `used` and `bundle`."""
        ...

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """How well scores say the targets, as JSON-ready numbers."""
        ...

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """The few numbers of `metrics` that are worth an interval."""
        ...

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        """What golden.json records of a prediction."""
        ...

    def gap(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        """How far a prediction is from what golden.json recorded, in scores or standard deviations."""
        ...


class _Scored:
    """What the tasks share that give every label a score."""

    __slots__ = ()

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        return {"scores": dict(prediction.scores)}

    def gap(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        recorded: Mapping[str, float] = golden["scores"]
        return _largest([prediction.scores.get(label, 0.0) - score for label, score in recorded.items()])


@dataclass(frozen=True, slots=True)
class SingleLabel(_Scored):
    """Exactly one of K labels is right; scores sum to 1. Targets are the labels' numbers (N,)."""

    watched: ClassVar[str] = "accuracy"
    figures: ClassVar[Mapping[str, Figure]] = {
        "accuracy": Figure("accuracy"),
        "macro_f1": Figure("macro-F1"),
        "calibration_error": Figure("calibration error"),
    }
    proportions: ClassVar[Mapping[str, float]] = {"accuracy": 1.0, "accuracy_at_90_percent_coverage": 0.9}

    labels: tuple[str, ...]
    temperatures: Mapping[str, float]

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """With the temperatures of a bundle."""
        return cls(config.network.labels, config.temperatures or {})

    @staticmethod
    def watch(logits: FloatArray, targets: Array) -> float:
        """Accuracy."""
        return float((logits.argmax(axis=1) == targets).mean())

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """A temperature for each set of modalities."""
        return {"temperatures": {key: fit_temperature(*each, _log_softmax_of) for key, each in answered.items()}}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> FloatArray:
        """Softmax of logits / temperature (Guo et al., arXiv:1706.04599)."""
        scaled = _tempered(logits, used, self.temperatures)
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def claims(self, row: Array) -> dict[str, Any]:
        """Every label's score."""
        return {"scores": _by_label(self.labels, row)}

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Accuracy, F1 averaged over the labels that occur (macro-F1), likelihood, and accuracy with abstaining.

        That is: the mean negative log-likelihood (nats), and the accuracy on the 90 % of the items with the highest scores.
        """
        chosen = scores.argmax(axis=1)
        hits, guesses, support = confusion_counts(chosen, targets, scores.shape[1])
        _, _, f1 = ratios(hits, guesses, support)
        likelihood = np.clip(scores[np.arange(len(targets)), targets], 1e-12, 1)
        return {
            "accuracy": float((chosen == targets).mean()),
            "macro_f1": macro(f1, support),
            "negative_log_likelihood": float(-np.log(likelihood).mean()),
            "accuracy_at_90_percent_coverage": accuracy_at_coverage(scores.max(axis=1), chosen == targets, 0.9),
        }

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """The summary, calibration error with its bins, how sure the 90 % are, every label, and what is taken for what.

        `confusion` has a row for each true label and a column for each that was said, in the order of the labels.
        """
        chosen, confidence = scores.argmax(axis=1), scores.max(axis=1)
        confusion = confusion_matrix(chosen, targets, len(self.labels))
        hits, guesses, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "confidence_at_90_percent_coverage": confidence_at_coverage(confidence, 0.9),
            "calibration_error": calibration_error(confidence, chosen == targets),
            "reliability": _told_by_bin(confidence, chosen == targets),
            "labels": _told_by_label(self.labels, support, *ratios(hits, guesses, support)),
            **({"confusion": confusion.tolist()} if len(self.labels) <= CONFUSED else {}),
        }


@dataclass(frozen=True, slots=True)
class MultiLabel(_Scored):
    """Any number of K labels is right, also none; scores are independent. Targets are 0 or 1 (N, K)."""

    watched: ClassVar[str] = "mean average precision"
    figures: ClassVar[Mapping[str, Figure]] = {
        "macro_f1": Figure("macro-F1"),
        "micro_f1": Figure("micro-F1"),
        "mean_average_precision": Figure("mean average precision"),
        "exact_match": Figure("all labels right"),
        "calibration_error": Figure("calibration error"),
    }
    proportions: ClassVar[Mapping[str, float]] = {}

    labels: tuple[str, ...]
    temperatures: Mapping[str, float]
    thresholds: FloatArray
    """Of each label: (K,)."""

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """With the temperatures and thresholds of a bundle."""
        labels, thresholds = config.network.labels, config.thresholds or {}
        return cls(labels, config.temperatures or {}, np.asarray([thresholds[label] for label in labels]))

    @staticmethod
    def watch(logits: FloatArray, targets: Array) -> float:
        """Average precision, averaged over the labels that occur: it needs no threshold."""
        truth = targets > 0
        return macro(average_precisions(logits, truth), truth.sum(axis=0))

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """A temperature for each set of modalities, and for each label the threshold with the best F1 over all sets."""
        temperatures = {key: fit_temperature(*each, _log_sigmoid_of) for key, each in answered.items()}
        scores = np.concatenate([_sigmoid(logits / temperatures[key]) for key, (logits, _) in answered.items()])
        truth = np.concatenate([targets for _, targets in answered.values()]) > 0
        best = [best_threshold(scores[:, index], truth[:, index], DECIMALS) for index in range(len(network.labels))]
        return {"temperatures": temperatures, "thresholds": dict(zip(network.labels, best, strict=True))}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> FloatArray:
        """Logistic function of logits / temperature, each label by itself."""
        return _sigmoid(_tempered(logits, used, self.temperatures))

    def claims(self, row: Array) -> dict[str, Any]:
        """Every label's score, and which labels reach their thresholds."""
        scores = _by_label(self.labels, row)
        reached = [label for label, limit in zip(self.labels, self.thresholds, strict=True) if scores[label] >= limit]
        return {"scores": scores, "selected": frozenset(reached)}

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """F1 averaged over the labels that occur (macro-F1), and F1 over all decisions (micro-F1)."""
        hits, guesses, support = selection_counts(scores >= self.thresholds, targets > 0)
        _, _, f1 = ratios(hits, guesses, support)
        _, _, micro = ratios(hits.sum(), guesses.sum(), support.sum())
        return {"macro_f1": macro(f1, support), "micro_f1": float(micro)}

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """The summary; over all N · K decisions the negative log-likelihood (nats) and calibration; every label."""
        selected, truth = scores >= self.thresholds, targets > 0
        hits, guesses, support = selection_counts(selected, truth)
        precisions = average_precisions(scores, truth)
        likelihood = np.clip(np.where(truth, scores, 1 - scores), 1e-12, 1)
        labels = _told_by_label(self.labels, support, *ratios(hits, guesses, support))
        for told, precision, threshold in zip(labels.values(), precisions, self.thresholds, strict=True):
            told |= {"average_precision": float(precision), "threshold": float(threshold)}
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "mean_average_precision": macro(precisions, support),
            "exact_match": float((selected == truth).all(axis=1).mean()),
            "negative_log_likelihood": float(-np.log(likelihood).mean()),
            "calibration_error": calibration_error(scores.ravel(), truth.ravel()),
            "reliability": _told_by_bin(scores.ravel(), truth.ravel()),
            "labels": labels,
        }


@dataclass(frozen=True, slots=True)
class Regression:
    """A number, with an interval. Targets (N,) and logits (N, 1) are in standard deviations from the training part's mean."""

    watched: ClassVar[str] = "R²"
    figures: ClassVar[Mapping[str, Figure]] = {
        "mae": Figure("mean absolute error", ".4g"),
        "rmse": Figure("root mean squared error", ".4g"),
        "r2": Figure("R²"),
        "coverage": Figure("inside the interval"),
        "mean_interval_width": Figure("mean width of the interval", ".4g"),
    }
    proportions: ClassVar[Mapping[str, float]] = {}

    scale: Scale
    half_widths: Mapping[str, float]

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """With the scale and half-widths of a bundle."""
        return cls(_scale_of(config.network), config.half_widths or {})

    @staticmethod
    def watch(logits: FloatArray, targets: Array) -> float:
        """R², which is the same in every unit."""
        return r_squared(logits[:, 0], targets)

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """For each set of modalities that has enough rows half the width of a 90 % interval."""
        std = _scale_of(network).std
        residuals = {key: std * np.abs(logits[:, 0] - targets) for key, (logits, targets) in answered.items()}
        found = {key: conformal_half_width(each, COVERAGE) for key, each in residuals.items()}
        return {"half_widths": {key: width for key, width in found.items() if width is not None}}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> Array:
        """Value, lower and upper end of its interval, NaN where there is none: (N, 3), in the number's own unit."""
        values = self.in_unit(logits[:, 0])
        half = np.asarray([self.half_widths.get(key, math.nan) for key in used])
        return np.stack([values, values - half, values + half], axis=1)

    def claims(self, row: Array) -> dict[str, Any]:
        """The value, and its interval where it has one."""
        decimals = max(0, DECIMALS - math.floor(math.log10(self.scale.std)))
        value, low, high = (round(each, decimals) for each in row.tolist())
        interval = None if math.isnan(low) else Interval(low, high, COVERAGE)
        return {"scores": {}, "value": value, "interval": interval}

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Mean absolute error and root of the mean squared error, in the number's unit, and R²."""
        right = self.in_unit(targets)
        wrong = scores[:, 0] - right
        return {
            "mae": float(np.abs(wrong).mean()),
            "rmse": float(np.sqrt((wrong**2).mean())),
            "r2": r_squared(scores[:, 0], right),
        }

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """The summary, how often intervals hold the right number, and how wide they are (None without any)."""
        right = self.in_unit(targets)
        told = ~np.isnan(scores[:, 1])
        inside = (scores[told, 1] <= right[told]) & (right[told] <= scores[told, 2])
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "coverage": float(inside.mean()) if told.any() else None,
            "mean_interval_width": float((scores[told, 2] - scores[told, 1]).mean()) if told.any() else None,
        }

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        """The value."""
        return {"value": prediction.value}

    def gap(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        """In standard deviations."""
        value = math.nan if prediction.value is None else prediction.value
        return abs(value - golden["value"]) / self.scale.std

    def in_unit(self, standardised: Array) -> Array:
        """Standard deviations from the mean, as targets are, in the number's own unit."""
        return standardised.astype(np.float64) * self.scale.std + self.scale.mean


TASKS: Final[Mapping[str, type[Task]]] = {
    "single-label": SingleLabel,
    "multi-label": MultiLabel,
    "regression": Regression,
}


def _scale_of(network: NetworkConfig) -> Scale:
    return network.scale or Scale(mean=0, std=1)  # a regression has one: the config checks it


def _tempered(logits: FloatArray, used: Sequence[str], temperatures: Mapping[str, float]) -> Array:
    """Logits divided by the temperature of what each row has: (N, K)."""
    each = np.asarray([temperatures[key] for key in used], dtype=np.float32)
    return logits.astype(np.float64) / each[:, None]


def _log_softmax_of(logits: Array, targets: Array) -> Array:
    """Log-probability of the right label: (N,)."""
    right = logits[np.arange(len(targets)), targets]
    return right - np.logaddexp.reduce(logits, axis=1)


def _log_sigmoid_of(logits: Array, targets: Array) -> Array:
    """Mean log-probability of the K right decisions: (N,)."""
    return -np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)


def _sigmoid(logits: Array) -> FloatArray:
    # By tanh, which does not overflow.
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)


def _by_label(labels: Sequence[str], row: Array) -> dict[str, float]:
    return dict(zip(labels, row.astype(np.float64).round(DECIMALS).tolist(), strict=True))


def _largest(gaps: Sequence[float]) -> float:
    """The largest absolute gap, NaN if one is."""
    return math.nan if any(math.isnan(gap) for gap in gaps) else max(abs(gap) for gap in gaps)


def _told_by_label(
    labels: Sequence[str], support: npt.NDArray[np.int64], precision: FloatArray, recall: FloatArray, f1: FloatArray
) -> dict[str, dict[str, float]]:
    return {
        label: {
            "items": int(support[index]),
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
        }
        for index, label in enumerate(labels)
    }


def _told_by_bin(confidence: FloatArray, correct: Truths) -> list[dict[str, float]]:
    """A reliability diagram's points, by rising confidence."""
    return [
        {"items": int(items), "confidence": round(float(sure), DECIMALS), "accuracy": round(float(right), DECIMALS)}
        for items, sure, right in zip(*reliability(confidence, correct), strict=True)
    ]
