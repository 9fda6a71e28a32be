"""Label cells of the regression target."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from polymodal.model.config import Scale
from polymodal.model.errors import ModelError
from polymodal.model.targets.contract import WrongCell
from polymodal.model.targets.numbers import NUMBER, is_number
from polymodal.model.types import Array

FEWEST_NUMBERS: Final = 2
"""Cells with at most this many different numbers look like names."""
MOST_BINS: Final = 10
"""Most bins of numbers; the bins are the strata of a split."""
ROWS_OF_A_BIN: Final = 10
"""Fewest rows of each bin."""


class RegressionCells:
    """Cells with a number."""

    hyperparameters: Mapping[str, Any] = {"smoothing": 0.0}

    def normalise(self, value: object, decimal_mark: str = ".") -> object:
        """Return a number as text with a decimal point. Raises WrongCell for a point in a table with decimal commas."""
        if isinstance(value, float | Decimal):
            return str(value)
        if decimal_mark == "," and isinstance(value, str):
            if "." in value:
                allowed = "a number with a decimal comma, as labels before it have"
                raise WrongCell("label {}", repr(value[:40]), allowed=allowed)
            return value.replace(",", ".")
        return value

    def validate(self, cell: str) -> str:
        """Return the shortest spelling of the same number."""
        if not cell:
            raise WrongCell("no label", allowed=NUMBER)
        if not is_number(cell):
            raise WrongCell("label {}", repr(cell[:40]), allowed=NUMBER)
        return repr(float(cell))

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return no labels."""
        return ()

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the bin of each number: up to ten bins with nearly equal numbers of cells, equal numbers in one bin."""
        numbers = np.asarray([float(cell) for cell in cells])
        bins = min(MOST_BINS, max(1, len(cells) // ROWS_OF_A_BIN))
        edges = np.quantile(numbers, np.arange(1, bins) / bins) if len(cells) else []
        return [(f"bin {number}",) for number in np.searchsorted(edges, numbers, side="right")]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Return mean and standard deviation (divided by n)."""
        numbers = np.asarray([float(cell) for cell in training])
        return Scale(mean=float(numbers.mean()), std=float(numbers.std()))

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Return a fault if the train split has fewer than two different numbers."""
        if training and not np.std([float(cell) for cell in training]) > 0:
            return ["only one number in the train split; at least two are needed"]
        return []

    def hint(self, cells: Sequence[str]) -> str:
        """Return a hint if there are so few different numbers that they look like names."""
        if len(set(cells)) > FEWEST_NUMBERS:
            return ""
        return f"labels are only the numbers {' and '.join(sorted(set(cells)))}; did you mean --target single-label?"

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Return float32 (N,): standard deviations from the mean of the train split."""
        scale = scale or Scale(mean=0, std=1)
        return np.asarray([(float(cell) - scale.mean) / scale.std for cell in cells], dtype=np.float32)

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Raise ModelError, because numbers have no class weights."""
        raise ModelError("class weights: 'balanced'; allowed for regression: none")
