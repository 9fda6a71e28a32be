"""Evaluate and score a bundle on a manifest: without torch, and never imported by serving."""

from polymodal.model.evaluation.answers import Evaluation, evaluate
from polymodal.model.evaluation.grids import Grid, label_grid, summary_grid
from polymodal.model.evaluation.indexing import build_index
from polymodal.model.evaluation.scores import Interrupted, RunSummary, embed, score

__all__ = [
    "Evaluation",
    "Grid",
    "Interrupted",
    "RunSummary",
    "build_index",
    "embed",
    "evaluate",
    "label_grid",
    "score",
    "summary_grid",
]
