"""Scoring of the single-label target. N examples, K labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np

from polymodal.model.calibration import by_set, fit_temperatures
from polymodal.model.config import BundleConfig, NetworkConfig, Scale
from polymodal.model.metrics import (
    accuracy_at_coverage,
    calibration_error,
    confidence_at_coverage,
    confusion_counts,
    confusion_matrix,
    macro,
    ratios,
)
from polymodal.model.targets.contract import Answered, Figure
from polymodal.model.targets.labels import (
    CALIBRATION_ERROR,
    OTHER_FIGURES,
    LabelScoring,
    by_label,
    entropy,
    log_softmax_of,
    metrics_by_bin,
    metrics_by_label,
    rounded,
    score_cells,
    score_column,
    tempered,
)
from polymodal.model.targets.mistakes import SUREST, Mistake, Mistakes, ranked
from polymodal.model.types import Array, FloatArray, Observed, Prediction

CONFUSED: Final = 100
"""Most labels for which metrics have a confusion matrix; that of a thousand labels would be most of a bundle."""


@dataclass(frozen=True, slots=True)
class SingleLabel(LabelScoring):
    """Exactly one of K labels is right; scores sum to 1. Targets are label indices (N,)."""

    fewest_labels: ClassVar[int] = 2
    scaled: ClassVar[bool] = False
    calibrated_by: ClassVar[frozenset[str]] = frozenset({"temperatures"})
    watched: ClassVar[str] = "accuracy"
    figures: ClassVar[Mapping[str, Figure]] = {
        "accuracy": Figure("accuracy"),
        "macro_f1": Figure("macro-F1"),
        "calibration_error": CALIBRATION_ERROR,
    }
    other_figures: ClassVar[Mapping[str, Figure]] = {
        **OTHER_FIGURES,
        "accuracy_at_90_percent_coverage": Figure(
            "accuracy on the surest 90 %",
            explanation="Accuracy on the surest 90 % is what is left when the model abstains on the tenth of the items that it is "
            "least sure of.",
        ),
        "confidence_at_90_percent_coverage": Figure(
            "lowest score of the surest 90 %",
            explanation="Who answers only from the lowest score of the surest 90 % on, abstains on that tenth.",
        ),
    }
    proportions: ClassVar[Mapping[str, float]] = {"accuracy": 1.0, "accuracy_at_90_percent_coverage": 0.9}

    labels: tuple[str, ...]
    temperatures: Mapping[str, float]

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """Build with the temperatures of a bundle."""
        return cls(config.network.labels, by_set(config.temperatures, config.fallback))

    @classmethod
    def for_answers(cls, labels: tuple[str, ...], thresholds: Mapping[str, float] | None, scale: Scale | None) -> Self:
        """Build with the labels alone."""
        return cls(labels, {})

    @staticmethod
    def monitor(logits: FloatArray, targets: Array) -> float:
        """Return the accuracy."""
        return float((logits.argmax(axis=1) == targets).mean())

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """Fit a temperature for each set of modalities with enough rows."""
        return {"temperatures": fit_temperatures(answered, log_softmax_of)}

    def scores(self, logits: FloatArray, used: Sequence[str]) -> FloatArray:
        """Return the softmax of logits / temperature (Guo et al., arXiv:1706.04599)."""
        scaled = tempered(logits, used, self.temperatures)
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def decode(self, row: Array) -> dict[str, Any]:
        """Return every label's score."""
        return {"scores": by_label(self.labels, row)}

    def observed(self, row: Array) -> Observed:
        """Return the best label and the entropy of all scores as a share of ln K."""
        scores = rounded(row)
        best = int(scores.argmax())
        ratio = entropy(scores) / math.log(len(scores)) if len(scores) > 1 else 0.0
        return Observed(frozenset({self.labels[best]}), float(scores[best]), ratio)

    def columns(self) -> tuple[str, ...]:
        """Return the columns: the best label and its score, then the score of every label."""
        return ("label", "score", *map(score_column, self.labels))

    def record(self, prediction: Prediction) -> dict[str, str | float | None]:
        """Return the cells; the best label is the first of those with the highest score."""
        scores = prediction.scores
        best = max(scores, key=scores.__getitem__)
        return {"label": best, "score": scores[best], **score_cells(scores)}

    def mistakes(self, scores: Array, targets: Array, most: int) -> Mistakes:
        """Return rows with a wrong label, by its score."""
        chosen, sure = scores.argmax(axis=1), scores.max(axis=1)
        rows = ranked(chosen != targets, sure)
        worst = tuple(Mistake(row, self.labels[chosen[row]], f"{sure[row]:.0%} sure") for row in rows[:most])
        return Mistakes(SUREST.format(wrong=len(rows), all=len(targets)), worst)

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Return accuracy, macro-F1 over the labels that occur, likelihood, and accuracy with abstaining.

        The last two are the mean negative log-likelihood (nats) and the accuracy on the 90 % of the items with the highest scores.
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
        """Return the summary, calibration error and bins, lowest confidence of the 90 %, metrics by label, confusion matrix.

        `confusion` has a row for each true label and a column for each predicted one, in the order of the labels.
        """
        chosen, confidence = scores.argmax(axis=1), scores.max(axis=1)
        confusion = confusion_matrix(chosen, targets, len(self.labels))
        hits, guesses, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
        return {
            "items": len(targets),
            **self.summary(scores, targets),
            "confidence_at_90_percent_coverage": confidence_at_coverage(confidence, 0.9),
            "calibration_error": calibration_error(confidence, chosen == targets),
            "reliability": metrics_by_bin(confidence, chosen == targets),
            "labels": metrics_by_label(self.labels, support, *ratios(hits, guesses, support)),
            **({"confusion": confusion.tolist()} if len(self.labels) <= CONFUSED else {}),
        }
