"""Interfaces of targets: reading label cells, and scoring logits. The table TARGETS has their implementations.

N examples, K labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self

from polymodal.model.config import BundleConfig, NetworkConfig, Scale
from polymodal.model.faults import Fault
from polymodal.model.targets.mistakes import Mistakes
from polymodal.model.types import Array, FloatArray, Observed, Prediction

SEPARATOR: Final = "|"
"""Separates the labels of one cell."""

Answered = Mapping[str, tuple[FloatArray, Array]]
"""Logits (N, K) and targets of the rows that have exactly one set of modalities, by that set."""


class WrongCell(Exception):
    """A label cell that its target can't read, with the `fault` to report."""

    def __init__(self, problem: str, value: str = "", *, allowed: str = "") -> None:
        self.fault = Fault(problem, value, allowed=allowed)
        super().__init__(self.fault)


class Cells(Protocol):
    """Reads the label cells of a target; `normalise` and `validate` raise WrongCell."""

    hyperparameters: Mapping[str, Any]
    """Hyperparameters that this target changes in every preset."""

    def normalise(self, value: object, decimal_mark: str = ".") -> object:
        """Convert a cell of a file to text where this target has a rule for it; numbers in texts have this decimal mark."""
        ...

    def validate(self, cell: str) -> str:
        """Return a cell in its canonical spelling."""
        ...

    def labels(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return every label that occurs, sorted."""
        ...

    def strata(self, cells: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the strata of each cell, at least one, which splits represent in proportion."""
        ...

    def scale(self, training: Sequence[str]) -> Scale | None:
        """Return mean and standard deviation of the train split's numbers; None for labels."""
        ...

    def problems(self, cells: Sequence[str], training: Sequence[str]) -> list[str]:
        """Return reasons why these cells, of which the train split has `training`, can't be learned."""
        ...

    def hint(self, cells: Sequence[str]) -> str:
        """Return a hint if the cells look like those of another target, else ""."""
        ...

    def array(self, cells: Sequence[str], labels: tuple[str, ...], scale: Scale | None) -> Array:
        """Return the network's targets (N, …) of the cells."""
        ...

    def balanced_weights(self, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
        """Return weights by label with which rare labels count as much as frequent ones."""
        ...


class Figure(NamedTuple):
    """Presentation of a metric."""

    title: str
    form: str = ".3f"
    explanation: str = ""
    """Meaning in a sentence; empty where the title is enough."""


class Words(NamedTuple):
    """Model card texts of a target; {inputs}, {labels}, {count} and {example} are filled in."""

    purpose: str
    figures: str
    limits: str


class Scoring(Protocol):
    """Turns a network's logits into calibrated predictions, and measures them."""

    fewest_labels: ClassVar[int]
    """0 if the target has no labels."""
    scaled: ClassVar[bool]
    """Whether the target predicts numbers, and so has a scale."""
    calibrated_by: ClassVar[frozenset[str]]
    """Fields of BundleConfig that `calibrate` fits."""
    watched: ClassVar[str]
    """Name of the metric that `monitor` computes."""
    figures: ClassVar[Mapping[str, Figure]]
    """Metrics that a model card shows, by name; the first is the headline, which `summary` has too."""
    other_figures: ClassVar[Mapping[str, Figure]]
    """Metrics that no model card shows. One that is in neither table is shown by its name."""
    proportions: ClassVar[Mapping[str, float]]
    """Metrics of the summary that are a share of right items, and the share of all items that each is measured on."""

    @classmethod
    def of(cls, config: BundleConfig) -> Self:
        """Build with the labels and the calibration of a bundle."""
        ...

    @classmethod
    def for_answers(cls, labels: tuple[str, ...], thresholds: Mapping[str, float] | None, scale: Scale | None) -> Self:
        """Build without calibration, for `decode` and `observed` of rows that `scores` returned in another process.

        The arguments are fields of a Description.
        """
        ...

    @staticmethod
    def monitor(logits: FloatArray, targets: Array) -> float:
        """Return a finite number for early stopping, higher is better, that needs no calibration."""
        ...

    @staticmethod
    def calibrate(answered: Answered, network: NetworkConfig) -> dict[str, Any]:
        """Fit the fields of BundleConfig that `calibrated_by` names on the validation split."""
        ...

    def scores(self, logits: FloatArray, used: Sequence[str]) -> Array:
        """Return calibrated scores, one row per item, of logits (N, K) and the set of modalities of each row."""
        ...

    def decode(self, row: Array) -> dict[str, Any]:
        """Return the fields of a Prediction, besides `used` and `bundle`, from one row of `scores`."""
        ...

    def observed(self, row: Array) -> Observed:
        """Return the values that the service's metrics count, from one row of `scores`."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that `record` fills, in order."""
        ...

    def record(self, prediction: Prediction) -> dict[str, str | float | None]:
        """Return the cells of one prediction in a file of scores; a column may be missing."""
        ...

    def mistakes(self, scores: Array, targets: Array, most: int) -> Mistakes:
        """Return the `most` worst rows of scores against the targets."""
        ...

    def metrics(self, scores: Array, targets: Array) -> dict[str, Any]:
        """Measure scores against targets, as JSON-ready numbers."""
        ...

    def summary(self, scores: Array, targets: Array) -> dict[str, float]:
        """Return the numbers of `metrics` that get confidence intervals."""
        ...

    def golden(self, prediction: Prediction) -> dict[str, Any]:
        """Return the entry of a prediction in golden.json."""
        ...

    def deviation(self, prediction: Prediction, golden: Mapping[str, Any]) -> float:
        """Return the deviation of a prediction from its entry in golden.json, in scores or standard deviations."""
        ...
