"""What a bundle says of a whole manifest, and how good that is: without torch, and never imported while serving."""

from model.evaluation.answers import Evaluation, evaluate
from model.evaluation.grids import Grid, label_grid, summary_grid
from model.evaluation.scores import Interrupted, Scored, score

__all__ = [
    "Evaluation",
    "Grid",
    "Interrupted",
    "Scored",
    "evaluate",
    "label_grid",
    "score",
    "summary_grid",
]
