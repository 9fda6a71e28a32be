"""Scoring of the multi-label target. N examples, K labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from polymodal.model.calibration import Nearest, best_threshold, by_set, fit_temperatures
from polymodal.model.config import BundleConfig, NetworkConfig, Scale
from polymodal.model.metrics import average_precisions, calibration_error, macro, ratios, selection_counts
from polymodal.model.targets.contract import SEPARATOR, Answered, Figure
from polymodal.model.targets.labels import (
    CALIBRATION_ERROR,
    DECIMALS,
    OTHER_FIGURES,
    LabelScoring,
    by_label,
    entropy,
    log_sigmoid_of,
    metrics_by_bin,
    metrics_by_label,
    rounded,
    score_cells,
    score_column,
    sigmoid,
    tempered,
)
from polymodal.model.targets.mistakes import SUREST, Mistake, Mistakes, ranked
from polymodal.model.types import Array, FloatArray, Observed, Prediction


@dataclass(frozen=True, slots=True)
class MultiLabel(LabelScoring):
    """Any number of K labels is right, also none; scores are independent. Targets are 0 or 1 (N, K)."""

    fewest_labels: ClassVar[int] = 1
    scaled: ClassVar[bool] = False
    calibrated_by: ClassVar[frozenset[str]] = frozenset({"temperatures", "thresholds"})
    watched: ClassVar[str] = "mean average precision"
    figures: ClassVar[Mapping[str, Figure]] = {
        "macro_f1": Figure("macro-F1"),
        "micro_f1": Figure("micro-F1"),
        "mean_average_precision": Figure("mean average precision"),
        "exact_match": Figure("all labels right"),
        "calibration_error": CALIBRATION_ERROR,
    }
    other_figures: ClassVar[Mapping[str, Figure]] = OTHER_FIGURES
    proportions: ClassVar[Mapping[str, float]] = {}

    labels: tuple[str, ...]
    temperatures: Mapping[str, float]
    thresholds: FloatArray
    """(K,), one of each label."""

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """Build with the temperatures and thresholds of a bundle."""
        labels = config.network.labels
        return cls(labels, by_set(config.temperatures, config.fallback), _array(labels, config.thresholds))

    @classmethod
    def for_answers(cls, labels: tuple[str, ...], thresholds: Mapping[str, float] | None, scale: Scale | None) -> Self:
        """Build with the labels and their thresholds."""
        return cls(labels, {}, _array(labels, thresholds))

    @staticmethod
    def monitor(logits: FloatArray, targets: Array) -> float:
        """Return the mean average precision over the labels that occur, which needs no threshold."""
        truth = targets > 0
        return macro(average_precisions(logits, truth), truth.sum(axis=0))

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """Fit a temperature for each set of modalities with enough rows, and for each label a threshold.

        A threshold has the best F1 over all sets.
        """
        temperatures = fit_temperatures(answered, log_sigmoid_of)
        of_set = Nearest(temperatures)
        scores = np.concatenate([sigmoid(logits / of_set[key]) for key, (logits, _) in answered.items()])
        truth = np.concatenate([targets for _, targets in answered.values()]) > 0
        best = [best_threshold(scores[:, index], truth[:, index], DECIMALS) for index in range(len(network.labels))]
        return {"temperatures": temperatures, "thresholds": dict(zip(network.labels, best, strict=True))}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> FloatArray:
        """Return the logistic function of logits / temperature."""
        return sigmoid(tempered(logits, used, self.temperatures))

    def decode(self, row: Array) -> dict[str, Any]:
        """Return every label's score and the labels that reach their thresholds."""
        return {"scores": by_label(self.labels, row), "selected": self._selected(row)}

    def observed(self, row: Array) -> Observed:
        """Return the selected labels and the mean entropy of the K decisions as a share of ln 2."""
        scores = rounded(row)
        decisions = np.concatenate([scores, 1 - scores])
        return Observed(self._selected(row), float(scores.max()), entropy(decisions) / (len(scores) * math.log(2)))

    def _selected(self, row: Array) -> frozenset[str]:
        reached = rounded(row) >= self.thresholds
        return frozenset(label for label, selected in zip(self.labels, reached, strict=True) if selected)

    def columns(self) -> tuple[str, ...]:
        """Return the columns: the selected labels, separated by | as in a manifest, then the score of every label."""
        return ("label", *map(score_column, self.labels))

    def record(self, prediction: Prediction) -> dict[str, str | float | None]:
        """Return the cells; the first is empty without a selected label."""
        selected = SEPARATOR.join(label for label in prediction.scores if label in (prediction.selected or ()))
        return {"label": selected, **score_cells(prediction.scores)}

    def mistakes(self, scores: Array, targets: Array, most: int) -> Mistakes:
        """Return rows with a wrong decision, by the score of the worst one."""
        selected, truth = scores >= self.thresholds, targets > 0
        sure = np.where(
            selected != truth, np.where(selected, scores, 1 - scores), -1.0
        )  # (N, K), -1 for right decisions
        rows = ranked((selected != truth).any(axis=1), sure.max(axis=1))
        worst = []
        for row in rows[:most]:
            labels = ", ".join(label for label, chosen in zip(self.labels, selected[row], strict=True) if chosen)
            label = int(sure[row].argmax())
            kind = "fits" if selected[row, label] else "does not fit"
            worst.append(
                Mistake(row, labels or "none", f"{sure[row, label]:.0%} sure that {self.labels[label]} {kind}")
            )
        return Mistakes(SUREST.format(wrong=len(rows), all=len(targets)), tuple(worst))

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Return F1 averaged over the labels that occur (macro-F1), and F1 over all decisions (micro-F1)."""
        hits, guesses, support = selection_counts(scores >= self.thresholds, targets > 0)
        _, _, f1 = ratios(hits, guesses, support)
        _, _, micro = ratios(hits.sum(), guesses.sum(), support.sum())
        return {"macro_f1": macro(f1, support), "micro_f1": float(micro)}

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """Return the summary; negative log-likelihood (nats) and calibration over all N · K decisions; metrics by label."""
        selected, truth = scores >= self.thresholds, targets > 0
        hits, guesses, support = selection_counts(selected, truth)
        precisions = average_precisions(scores, truth)
        likelihood = np.clip(np.where(truth, scores, 1 - scores), 1e-12, 1)
        labels = metrics_by_label(self.labels, support, *ratios(hits, guesses, support))
        for measures, precision, threshold in zip(labels.values(), precisions, self.thresholds, strict=True):
            measures |= {"average_precision": float(precision), "threshold": float(threshold)}
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "mean_average_precision": macro(precisions, support),
            "exact_match": float((selected == truth).all(axis=1).mean()),
            "negative_log_likelihood": float(-np.log(likelihood).mean()),
            "calibration_error": calibration_error(scores.ravel(), truth.ravel()),
            "reliability": metrics_by_bin(scores.ravel(), truth.ravel()),
            "labels": labels,
        }


def _array(labels: tuple[str, ...], thresholds: Mapping[str, float] | None) -> FloatArray:
    thresholds = thresholds or {}  # a multi-label target has them: the config checks it
    return np.asarray([thresholds[label] for label in labels])
