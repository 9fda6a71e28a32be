"""From a manifest's label cells to what a network is to say: the third part of a task, beside tasks.py and heads.py.

N rows, K labels. The table TARGETS names every task.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol

import numpy as np

from model.config import FEWEST_LABELS, Scale
from model.errors import ModelError
from model.faults import Fault
from model.spelling import spelled
from model.types import Array

SEPARATOR: Final = "|"
"""Between the labels of one cell."""
MANY_NUMBERS: Final = 20
"""Cells with more different numbers than this look measured rather than named."""
ROWS_OF_A_NAME: Final = 5
"""Names are rarely on fewer rows than this on average."""
MOST_BINS: Final = 10
"""Into which numbers fall, to be spread over the parts of a split."""
ROWS_OF_A_BIN: Final = 10
"""At least so many rows are needed for each bin."""
SOME: Final = 0.05
"""Part of the cells with a separator from which on it looks meant."""
NUMBER: Final = "a finite number such as 12.5"


class WrongCell(Exception):
    """A label cell that its task can't read; `fault` says what was found and what is allowed."""

    def __init__(self, found: str, value: str = "", *, allowed: str = "") -> None:
        self.fault = Fault(found, value, allowed=allowed)
        super().__init__(self.fault)


class Targets(Protocol):
    """How the label cells of a task are read; `plain` and `checked` raise WrongCell."""

    hyperparameters: Mapping[str, Any]
    """What this task changes in every preset."""

    def plain(self, value: object, decimal_mark: str = ".") -> object:
        """A cell as it was found, brought to text where this task knows how; numbers in text have this decimal mark."""
        ...

    def checked(self, cell: str) -> str:
        """A cell in its one spelling."""
        ...

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Every label that occurs, sorted."""
        ...

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """For each cell that of which every part of a split should have its share; never nothing."""
        ...

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Mean and standard deviation of the training part's numbers, where cells are numbers."""
        ...

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Why nothing can be learned from these cells, of which those of the training part are `training`."""
        ...

    def doubt(self, cells: Sequence[str]) -> str:
        """What lets cells look like those of another task, and which; empty when nothing does."""
        ...

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """What the network is to say of each row, N of them."""
        ...

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """A weight for each label under which rare labels count as much as frequent ones."""
        ...


class SingleLabelTargets:
    """The cell is the label."""

    hyperparameters: Mapping[str, Any] = {}

    def plain(self, value: object, decimal_mark: str = ".") -> object:
        """Text and whole numbers alone; raises WrongCell for what another task would take."""
        if isinstance(value, list):
            raise WrongCell("label is a list", allowed="text, or lists with --task multi-label")
        if isinstance(value, float | Decimal):
            raise WrongCell(f"label is a {type(value).__name__}", allowed="text, or numbers with --task regression")
        return value

    def checked(self, cell: str) -> str:
        """Any text."""
        if not cell:
            raise WrongCell("no label", allowed="any text")
        return cell

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Every cell."""
        return tuple(sorted(set(cells)))

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """The label."""
        return [(cell,) for cell in cells]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Labels have none."""
        return None

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """A label that can't be learned, or nothing to tell apart."""
        problems = _without_training_rows(self.labels(cells), set(training))
        if len(self.labels(cells)) < FEWEST_LABELS["single-label"]:
            problems.append("only one label; at least two are needed")
        return problems

    def doubt(self, cells: Sequence[str]) -> str:
        """Many different numbers look measured; several cells with | look like lists."""
        separated = sum(SEPARATOR in cell for cell in cells)
        if separated > 1 and separated >= SOME * len(cells):
            example = next(cell for cell in cells if SEPARATOR in cell)
            return f"{separated} of {len(cells)} labels hold «{SEPARATOR}», e.g. {example!r}; did you mean --task multi-label?"
        different = set(cells)
        if len(different) > MANY_NUMBERS and all(_is_number(cell) for cell in different):
            fractions = any(not float(cell).is_integer() for cell in different)
            if fractions or len(cells) < ROWS_OF_A_NAME * len(different):
                return f"labels are {len(different)} different numbers; did you mean --task regression?"
        return ""

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Each label's number: int64 (N,)."""
        numbers = {label: number for number, label in enumerate(labels)}
        return np.asarray([numbers[cell] for cell in cells], dtype=np.int64)

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """n / (K · nₖ), as scikit-learn's class_weight="balanced" (King and Zeng, 2001): 1 on the average of the rows."""
        counts = Counter(training)
        return {label: len(training) / (len(labels) * counts[label]) for label in labels}


class MultiLabelTargets:
    """The cell holds any number of labels, with | between them."""

    # Smoothed towards 1/2, many rare labels would all be thought likelier than they are.
    hyperparameters: Mapping[str, Any] = {"smoothing": 0.0}

    def plain(self, value: object, decimal_mark: str = ".") -> object:
        """A list of labels with | between them; raises WrongCell for a list of anything else."""
        if not isinstance(value, list):
            return value
        texts = [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in value]
        if wrong := [each for each in texts if not isinstance(each, str) or SEPARATOR in each]:
            raise WrongCell("label holds {}", repr(wrong[0]), allowed=f"a list of texts without «{SEPARATOR}»")
        return SEPARATOR.join(str(each) for each in texts)

    def checked(self, cell: str) -> str:
        """The labels without blanks around them; an empty cell has none."""
        labels = _parts(cell)
        if not all(labels):
            allowed = f"labels with one «{SEPARATOR}» between them"
            raise WrongCell("label {} names nothing at one place", repr(cell), allowed=allowed)
        return SEPARATOR.join(labels)

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Every label of every cell."""
        return tuple(sorted({label for cell in cells for label in _parts(cell)}))

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Each label; to have none is one of its own, "" (no label is spelled so)."""
        return [tuple(dict.fromkeys(_parts(cell))) or ("",) for cell in cells]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Labels have none."""
        return None

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """A label that can't be learned, or none at all."""
        labels = self.labels(cells)
        learnt = set(self.labels(training))
        return _without_training_rows(labels, learnt) + ([] if labels else ["no labels; at least one is needed"])

    def doubt(self, cells: Sequence[str]) -> str:
        """Exactly one label everywhere is another question."""
        if any(len(_parts(cell)) != 1 for cell in cells):
            return ""
        return "every row has exactly one label; did you mean --task single-label, whose scores sum to 1?"

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """1 where a row has the label and 0 elsewhere: float32 (N, K)."""
        numbers = {label: number for number, label in enumerate(labels)}
        array = np.zeros((len(cells), len(labels)), dtype=np.float32)
        for row, cell in enumerate(cells):
            array[row, [numbers[label] for label in _parts(cell)]] = 1
        return array

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Rows without the label / rows with it: the ratio of the "balanced" weights of its two answers, n / (2 nₖ)."""
        counts = Counter(label for cell in training for label in set(_parts(cell)))
        return {label: max(1, len(training) - counts[label]) / counts[label] for label in labels}


class RegressionTargets:
    """The cell is a number."""

    hyperparameters: Mapping[str, Any] = {"smoothing": 0.0}

    def plain(self, value: object, decimal_mark: str = ".") -> object:
        """Any number as text with a decimal point; raises WrongCell for a point in a table with decimal commas."""
        if isinstance(value, float | Decimal):
            return str(value)
        if decimal_mark == "," and isinstance(value, str):
            if "." in value:
                allowed = "a number with a decimal comma, as labels before it have"
                raise WrongCell("label {}", repr(value[:40]), allowed=allowed)
            return value.replace(",", ".")
        return value

    def checked(self, cell: str) -> str:
        """The shortest spelling that is read as the same number."""
        if not cell:
            raise WrongCell("no label", allowed=NUMBER)
        if not _is_number(cell):
            raise WrongCell("label {}", repr(cell[:40]), allowed=NUMBER)
        return repr(float(cell))

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Numbers have none."""
        return ()

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Up to ten bins of equal mass, from the smallest numbers to the largest; equal numbers are in one bin."""
        numbers = np.asarray([float(cell) for cell in cells])
        bins = min(MOST_BINS, max(1, len(cells) // ROWS_OF_A_BIN))
        edges = np.quantile(numbers, np.arange(1, bins) / bins) if len(cells) else []
        return [(f"bin {number}",) for number in np.searchsorted(edges, numbers, side="right")]

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Mean and standard deviation (divided by n)."""
        numbers = np.asarray([float(cell) for cell in training])
        return Scale(mean=float(numbers.mean()), std=float(numbers.std()))

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Nothing to tell apart."""
        if training and not np.std([float(cell) for cell in training]) > 0:
            return ["only one number in the train part; at least two are needed"]
        return []

    def doubt(self, cells: Sequence[str]) -> str:
        """Two numbers look like names."""
        if len(set(cells)) > FEWEST_LABELS["single-label"]:
            return ""
        return f"labels are only the numbers {' and '.join(sorted(set(cells)))}; did you mean --task single-label?"

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Standard deviations from the mean of the training part: float32 (N,)."""
        scale = scale or Scale(mean=0, std=1)
        return np.asarray([(float(cell) - scale.mean) / scale.std for cell in cells], dtype=np.float32)

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Numbers have none; raises ModelError."""
        raise ModelError("class weights: 'balanced'; allowed for regression: none")


TARGETS: Final[Mapping[str, Targets]] = {
    "single-label": SingleLabelTargets(),
    "multi-label": MultiLabelTargets(),
    "regression": RegressionTargets(),
}


def class_weights(wanted: str, task: str, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
    """What each label counts in the loss: "none" (empty), "balanced", or LABEL=WEIGHT,… (a label that is not named counts 1).

    Raises ModelError when a label is not known or a weight is no positive number.
    """
    if wanted == "none":
        return {}
    if wanted == "balanced":
        return TARGETS[task].balanced_weights(training, labels)
    weights = dict.fromkeys(labels, 1.0)
    for each in wanted.split(","):
        name, _, weight = each.rpartition("=")
        label = spelled(name)
        if label not in weights:
            known = f"none, balanced, or LABEL=WEIGHT,… for {', '.join(labels)}" if labels else "none"
            raise ModelError(f"class weights: {each!r}; allowed for this {task} data: {known}")
        if not _is_number(weight) or not float(weight) > 0:
            raise ModelError(f"class weights: {weight!r} for {label!r}; allowed: a number above 0")
        weights[label] = float(weight)
    return weights


def _parts(cell: str) -> list[str]:
    return [label.strip() for label in cell.split(SEPARATOR)] if cell else []


def _is_number(cell: str) -> bool:
    """Whether this is a finite number as people write it (Python also reads 1_000)."""
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def _without_training_rows(labels: Sequence[str], learnt: set[str]) -> list[str]:
    return [Fault("label {} has no rows in the train part", repr(label)) for label in labels if label not in learnt]
