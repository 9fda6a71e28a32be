"""Calibration, fitted on the validation split: temperatures, thresholds, half-widths of intervals.

N rows, K labels. Numpy only; each target's `calibrate` fits those that it needs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from polymodal.model.config import BundleConfig, sets_to_measure
from polymodal.model.metrics import ratios
from polymodal.model.types import Array, FloatArray

TEMPERATURES: Final[list[float]] = np.geomspace(0.1, 10.0, 400).round(4).tolist()
"""Candidates, 1.2 % apart: finer than a validation split of a thousand items can resolve."""
UNDECIDED: Final = 0.5
"""Threshold of a label for which the validation split gives no better one."""
COVERAGE: Final = 0.9
"""Share of intervals that should hold the right number."""

FEWEST_ROWS: Final = 20
"""Fewest rows of a set of modalities with a temperature of its own; fewer rows would fit noise."""

LogLikelihood = Callable[[Array, Array], Array]
"""Returns the log-likelihood (N,) of each row from logits (N, K) and targets."""


def fit_temperature(logits: FloatArray, targets: Array, log_likelihood: LogLikelihood) -> float:
    """Return the temperature that makes the targets likeliest (Guo et al., arXiv:1706.04599); 1 without rows."""
    if not len(targets):
        return 1.0
    wide = logits.astype(np.float64)
    return max(TEMPERATURES, key=lambda temperature: float(log_likelihood(wide / temperature, targets).mean()))


def fit_temperatures(
    answered: Mapping[str, tuple[FloatArray, Array]], log_likelihood: LogLikelihood
) -> dict[str, float]:
    """Fit a temperature for each set of modalities with at least FEWEST_ROWS rows, or for every set if none has as many."""
    enough = [key for key, (_, targets) in answered.items() if len(targets) >= FEWEST_ROWS]
    return {key: fit_temperature(*answered[key], log_likelihood) for key in enough or answered}


class Nearest(Mapping[str, float]):
    """Values of measured sets of modalities; any other set has that of the nearest measured one.

    Without a measured set, a lookup raises KeyError.
    """

    def __init__(self, measured: Mapping[str, float]) -> None:
        self._measured = dict(measured)

    def __getitem__(self, key: str) -> float:
        if key not in self._measured and (nearest := nearest_set(key, self._measured)):
            return self._measured[nearest]
        return self._measured[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._measured)

    def __len__(self) -> int:
        return len(self._measured)


def nearest_set(key: str, measured: Iterable[str]) -> str:
    """Return the measured set of modalities whose calibration another set gets, "" when none is measured.

    It is the set that differs in the fewest modalities; of equally near ones the one with the fewest modalities, whose
    scores are the least confident, then the first by name.
    """
    names = set(key.split("+"))

    def distance(other: str) -> tuple[int, int, str]:
        others = set(other.split("+"))
        return len(names ^ others), len(others), other

    return min(measured, key=distance, default="")


def calibration_sources(config: BundleConfig, measured: Iterable[str]) -> dict[str, str | None]:
    """Return the set whose calibration is used for each measured set of modalities, all together, and each alone.

    It is the set itself if it has a temperature or half-width of its own; None if no set has one.
    """
    order, own = config.network.order, config.temperatures or config.half_widths or {}
    fallback = own if config.fallback == "nearest" else ()
    keys = sets_to_measure(order, (frozenset(key.split("+")) for key in measured))
    return {key: key if key in own else nearest_set(key, fallback) or None for key in keys}


def by_set(values: Mapping[str, float] | None, fallback: str) -> Mapping[str, float]:
    """Return values by set of modalities with the fallback that a config names."""
    return Nearest(values or {}) if fallback == "nearest" else values or {}


def best_threshold(scores: FloatArray, truth: npt.NDArray[np.bool_], decimals: int) -> float:
    """Return the threshold of one label (N,) with the best F1, half-way between two scores; of equals the nearest to 0.5.

    It is 0.5 for a label that no row or every row has.
    """
    if truth.all() or not truth.any():
        return UNDECIDED
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    # Sizes of the selections that a threshold can make.
    selected = np.flatnonzero(np.append(np.diff(ranked) != 0, True)) + 1
    _, _, f1 = ratios(
        np.cumsum(truth[order], dtype=np.int64)[selected - 1], selected, np.full(len(selected), truth.sum())
    )
    between = (ranked[selected - 1] + np.append(ranked[selected[:-1]], 0.0)) / 2
    candidates: list[float] = between[f1 >= f1.max() - 1e-9].round(decimals).tolist()
    return min(candidates, key=lambda threshold: abs(threshold - UNDECIDED))


def conformal_half_width(residuals: Array, coverage: float) -> float | None:
    """Return the half-width that holds a further, exchangeable residual with at least this probability.

    It is the ⌈(n + 1) · coverage⌉-th smallest of n absolute residuals (Lei et al., arXiv:1604.04173, split conformal); None
    if there are too few.
    """
    rank = math.ceil((len(residuals) + 1) * coverage - 1e-9)  # 30 · 0.9 is a little more than 27
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else None
