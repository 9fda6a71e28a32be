"""Figures of the multi-label target. Matplotlib."""

from matplotlib.figure import Figure

from polymodal.model.evaluation.plots import reliability_diagram
from polymodal.model.targets.multi_label.scoring import MultiLabel
from polymodal.model.types import Array


def draw(scoring: MultiLabel, scores: Array, targets: Array) -> dict[str, Figure]:
    """Draw one reliability diagram of the decisions about all labels."""
    return {"reliability": reliability_diagram(scores.ravel(), targets.ravel() > 0)}
