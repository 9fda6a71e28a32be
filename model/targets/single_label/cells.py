"""Label cells of the single-label target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from polymodal.model.config import Scale
from polymodal.model.targets.contract import SEPARATOR, WrongCell
from polymodal.model.targets.labels import without_training_rows
from polymodal.model.targets.numbers import is_number
from polymodal.model.targets.single_label.scoring import SingleLabel
from polymodal.model.types import Array

MANY_NUMBERS: Final = 20
"""Cells with more different numbers than this look like measurements, not names."""
ROWS_OF_A_NAME: Final = 5
"""Fewest rows per different number, on average, of numbers that are names."""
SOME: Final = 0.05
"""Smallest share of cells with a separator at which cells look like lists of labels."""


class SingleLabelCells:
    """Cells with one label."""

    hyperparameters: Mapping[str, Any] = {}

    def normalise(self, value: object, decimal_mark: str = ".") -> object:
        """Return texts and whole numbers; raises WrongCell for values of other targets."""
        if isinstance(value, list):
            raise WrongCell("label is a list", allowed="text, or lists with --target multi-label")
        if isinstance(value, float | Decimal):
            raise WrongCell(f"label is a {type(value).__name__}", allowed="text, or numbers with --target regression")
        return value

    def validate(self, cell: str) -> str:
        """Return any text."""
        if not cell:
            raise WrongCell("no label", allowed="any text")
        return cell

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return every different cell, sorted."""
        return tuple(sorted(set(cells)))

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the label of each cell."""
        return [(cell,) for cell in cells]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Return None, because labels have no scale."""
        return None

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Return faults for labels without rows in the train split, and for fewer than two labels."""
        labels = self.labels(cells)
        problems = without_training_rows(labels, set(training))
        if len(labels) < SingleLabel.fewest_labels:
            problems.append("only one label; at least two are needed")
        return problems

    def hint(self, cells: Sequence[str]) -> str:
        """Return a hint if cells look like lists of labels, or like measurements."""
        separated = sum(SEPARATOR in cell for cell in cells)
        if separated > 1 and separated >= SOME * len(cells):
            example = next(cell for cell in cells if SEPARATOR in cell)
            return f"{separated} of {len(cells)} labels hold «{SEPARATOR}», e.g. {example!r}; did you mean --target multi-label?"
        different = set(cells)
        if len(different) > MANY_NUMBERS and all(is_number(cell) for cell in different):
            fractions = any(not float(cell).is_integer() for cell in different)
            if fractions or len(cells) < ROWS_OF_A_NAME * len(different):
                return f"labels are {len(different)} different numbers; did you mean --target regression?"
        return ""

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Return the indices of the labels: int64 (N,)."""
        numbers = {label: number for number, label in enumerate(labels)}
        return np.asarray([numbers[cell] for cell in cells], dtype=np.int64)

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Return n / (K · nₖ), as scikit-learn's class_weight="balanced" (King and Zeng, 2001): 1 on average over the rows."""
        counts = Counter(training)
        return {label: len(training) / (len(labels) * counts[label]) for label in labels}
