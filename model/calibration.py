"""What is fitted on the validation part, so that an answer means what it says: temperatures, thresholds, intervals.

N rows, K labels. Numpy only; tasks.py says which task needs which.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from model.metrics import ratios
from model.types import Array, FloatArray

TEMPERATURES: Final[list[float]] = np.geomspace(0.1, 10.0, 400).round(4).tolist()
"""Candidates, 1.2 % apart: finer than a validation part of a thousand items can tell."""
UNDECIDED: Final = 0.5
"""Threshold of a label for which the validation part can tell no better one."""
COVERAGE: Final = 0.9
"""How often an interval is to hold the right number."""

LogLikelihood = Callable[[Array, Array], Array]
"""From logits (N, K) and targets to the log-likelihood of each row: (N,)."""


def fit_temperature(logits: FloatArray, targets: Array, log_likelihood: LogLikelihood) -> float:
    """The temperature under which the targets are likeliest (Guo et al., arXiv:1706.04599); 1 without rows."""
    if not len(targets):
        return 1.0
    wide = logits.astype(np.float64)
    return max(TEMPERATURES, key=lambda temperature: float(log_likelihood(wide / temperature, targets).mean()))


def best_threshold(scores: FloatArray, truth: npt.NDArray[np.bool_], decimals: int) -> float:
    """The threshold of one label (N,) with the best F1, half-way between two scores; of equally good ones that nearest to 0.5.

    It is 0.5 for a label that no row has, or every row.
    """
    if truth.all() or not truth.any():
        return UNDECIDED
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    selected = (
        np.flatnonzero(np.append(np.diff(ranked) != 0, True)) + 1
    )  # sizes of the selections that a threshold can make
    _, _, f1 = ratios(
        np.cumsum(truth[order], dtype=np.int64)[selected - 1], selected, np.full(len(selected), truth.sum())
    )
    between = (ranked[selected - 1] + np.append(ranked[selected[:-1]], 0.0)) / 2
    candidates: list[float] = between[f1 >= f1.max() - 1e-9].round(decimals).tolist()
    return min(candidates, key=lambda threshold: abs(threshold - UNDECIDED))


def conformal_half_width(residuals: Array, coverage: float) -> float | None:
    """The half-width within which a further residual lies with at least this probability, when it is exchangeable with these.

    The ⌈(n + 1) · coverage⌉-th smallest of n absolute residuals (Lei et al., arXiv:1604.04173, split conformal); None when
    they are too few for any.
    """
    rank = math.ceil((len(residuals) + 1) * coverage - 1e-9)  # 30 · 0.9 is a little more than 27
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else None
