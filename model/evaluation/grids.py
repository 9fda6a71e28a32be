"""An evaluation's measures as tables of words, for a terminal and for a page alike; what a task measures, they show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from model.evaluation.answers import Evaluation
from model.tasks import TASKS, Figure

FIGURES: Final[Mapping[str, Figure]] = {
    "accuracy_at_90_percent_coverage": Figure("accuracy on the surest 90 %"),
    "confidence_at_90_percent_coverage": Figure("lowest score of the surest 90 %"),
    "negative_log_likelihood": Figure("negative log-likelihood"),
    "f1": Figure("F1"),
}
"""How metrics are shown that no model card has; one that is nowhere named is called by its name."""

EXPLANATIONS: Final[Mapping[str, str]] = {
    "negative_log_likelihood": "Negative log-likelihood is that of the true label, in nats.",
    "calibration_error": "Calibration error is the mean gap between confidence and accuracy over 15 bins of equal mass.",
    "accuracy_at_90_percent_coverage": "Accuracy on the surest 90 % is what is left when the model abstains on the tenth of the "
    "items that it is least sure of.",
    "confidence_at_90_percent_coverage": "Who answers only from the lowest score of the surest 90 % on, abstains on that tenth.",
    "r2": "R² is the part of the variance that is explained.",
    "coverage": "Inside the interval are right numbers that the answer's own interval, made to hold 90 % of them, does hold.",
}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its columns' titles, and rows of as many cells; the first cell of a row is its title."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary_grid(evaluation: Evaluation) -> Grid:
    """Every figure of every set of modalities, with its interval if it has one."""
    metrics = evaluation.metrics
    rows = []
    for name in _measured(evaluation):
        figure = _figure(evaluation, name)
        rows.append((figure.title, *(_with_interval(told, name, figure.form) for told in metrics.values())))
    return Grid(("given", *(spaced(key) for key in metrics)), tuple(rows))


def label_grid(evaluation: Evaluation) -> Grid:
    """For each label its items, and what is measured of it for each set of modalities; no rows without labels."""
    metrics = evaluation.metrics
    labels: Mapping[str, Mapping[str, Any]] = _first(evaluation).get("labels", {})
    named = [name for name in next(iter(labels.values()), {}) if name != "items"]
    shown = ", ".join(_figure(evaluation, name).title for name in named)
    rows = tuple(
        (label, f"{told['items']:,}", *(_figures(each["labels"][label], named) for each in metrics.values()))
        for label, told in labels.items()
    )
    return Grid(("label", "items", *(f"{spaced(key)}: {shown}" for key in metrics)), rows)


def explanation(evaluation: Evaluation) -> str:
    """What the figures of `summary_grid` mean."""
    brackets = (
        "In brackets: 95 % intervals by a bootstrap that draws whole groups of rows. Where groups are too few, or all answers "
        "right or all wrong, a share of right answers has Wilson's interval, and other measures have none."
    )
    return " ".join([brackets, *(EXPLANATIONS[name] for name in _measured(evaluation) if name in EXPLANATIONS)])


def spaced(key: str) -> str:
    """A set of modalities, as people write it: "image + text"."""
    return key.replace("+", " + ")


def _first(evaluation: Evaluation) -> Mapping[str, Any]:
    told: Mapping[str, Any] = next(iter(evaluation.metrics.values()))
    return told


def _measured(evaluation: Evaluation) -> list[str]:
    """What is one figure; the rest is shown elsewhere, or drawn."""
    return [name for name, value in _first(evaluation).items() if not isinstance(value, Mapping | list)]


def _figure(evaluation: Evaluation, name: str) -> Figure:
    known = {**FIGURES, **TASKS[evaluation.description.task].figures}
    return known.get(name, Figure(name.replace("_", " ")))


def _with_interval(told: Mapping[str, Any], name: str, form: str) -> str:
    value = told[name]
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if (interval := told["intervals"].get(name)) is None:
        return f"{value:{form}}"
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _figures(told: Mapping[str, Any], names: list[str]) -> str:
    return "  ".join(f"{told[name]:.2f}" for name in names)
