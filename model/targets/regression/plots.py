"""Figures of the regression target. Matplotlib."""

from matplotlib.figure import Figure

from polymodal.model.evaluation.plots import predictions
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.types import Array


def draw(scoring: Regression, scores: Array, targets: Array) -> dict[str, Figure]:
    """Draw the predictions over the right numbers."""
    return {"predictions": predictions(scores, scoring.in_unit(targets))}
