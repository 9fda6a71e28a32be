"""Figures of the single-label target. Matplotlib."""

from matplotlib.figure import Figure

from polymodal.model.evaluation.plots import confusion, reliability_diagram
from polymodal.model.metrics import confusion_matrix
from polymodal.model.targets.single_label.scoring import SingleLabel
from polymodal.model.types import Array


def draw(scoring: SingleLabel, scores: Array, targets: Array) -> dict[str, Figure]:
    """Draw the confusion matrix and the reliability diagram."""
    chosen = scores.argmax(axis=1)
    return {
        "confusion": confusion(confusion_matrix(chosen, targets, len(scoring.labels)), scoring.labels),
        "reliability": reliability_diagram(scores.max(axis=1), chosen == targets),
    }
