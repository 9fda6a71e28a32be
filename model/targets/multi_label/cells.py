"""Label cells of the multi-label target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polymodal.model.config import Scale
from polymodal.model.targets.contract import SEPARATOR, WrongCell
from polymodal.model.targets.labels import without_training_rows
from polymodal.model.types import Array


class MultiLabelCells:
    """Cells with any number of labels, separated by |."""

    # Smoothing moves targets towards 1/2, which would overestimate rare labels.
    hyperparameters: Mapping[str, Any] = {"smoothing": 0.0}

    def normalise(self, value: object, decimal_mark: str = ".") -> object:
        """Join a list of labels with |; raises WrongCell for a list of anything else."""
        if not isinstance(value, list):
            return value
        labels = [str(label) if isinstance(label, int) and not isinstance(label, bool) else label for label in value]
        if wrong := [label for label in labels if not isinstance(label, str) or SEPARATOR in label]:
            raise WrongCell("label holds {}", repr(wrong[0]), allowed=f"a list of texts without «{SEPARATOR}»")
        return SEPARATOR.join(str(label) for label in labels)

    def validate(self, cell: str) -> str:
        """Strip blanks around the labels; an empty cell has no label."""
        labels = _labels_of(cell)
        if not all(labels):
            allowed = f"labels with one «{SEPARATOR}» between them"
            raise WrongCell("label {} names nothing at one place", repr(cell), allowed=allowed)
        return SEPARATOR.join(labels)

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return every label of every cell, sorted."""
        return tuple(sorted({label for cell in cells for label in _labels_of(cell)}))

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the labels of each cell; "", which is no label, for a cell without any."""
        return [tuple(dict.fromkeys(_labels_of(cell))) or ("",) for cell in cells]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Return None, because labels have no scale."""
        return None

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Return faults for labels without rows in the train split, and for no labels at all."""
        if not (labels := self.labels(cells)):
            return ["no labels; at least one is needed"]
        return without_training_rows(labels, set(self.labels(training)))

    def hint(self, cells: Sequence[str]) -> str:
        """Return a hint if every row has exactly one label."""
        if any(len(_labels_of(cell)) != 1 for cell in cells):
            return ""
        return "every row has exactly one label; did you mean --target single-label, whose scores sum to 1?"

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Return float32 (N, K): 1 where a row has the label, 0 elsewhere."""
        numbers = {label: number for number, label in enumerate(labels)}
        array = np.zeros((len(cells), len(labels)), dtype=np.float32)
        for row, cell in enumerate(cells):
            array[row, [numbers[label] for label in _labels_of(cell)]] = 1
        return array

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Return (rows without the label) / (rows with it), the ratio of the "balanced" weights n / (2 nₖ) of its two values."""
        counts = Counter(label for cell in training for label in set(_labels_of(cell)))
        return {label: max(1, len(training) - counts[label]) / counts[label] for label in labels}


def _labels_of(cell: str) -> list[str]:
    return [label.strip() for label in cell.split(SEPARATOR)] if cell else []
