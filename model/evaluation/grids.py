"""Tables of an evaluation's metrics as strings, for terminals and pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polymodal.model.evaluation.answers import Evaluation
from polymodal.model.targets.contract import Figure


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: titles of columns, and rows of cells, of which the first is the row's title."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary_grid(evaluation: Evaluation) -> Grid:
    """Return every metric of every set of modalities, with its interval if it has one."""
    metrics = evaluation.metrics
    rows = []
    for name in _numbers(evaluation):
        figure = _figure(evaluation, name)
        rows.append((figure.title, *(_with_interval(measures, name, figure.form) for measures in metrics.values())))
    return Grid(("given", *(spaced(key) for key in metrics)), tuple(rows))


def label_grid(evaluation: Evaluation) -> Grid:
    """Return items and metrics of each label for each set of modalities; no rows without labels."""
    metrics = evaluation.metrics
    labels: Mapping[str, Mapping[str, Any]] = next(iter(metrics.values())).get("labels", {})
    names = [name for name in next(iter(labels.values()), {}) if name != "items"]
    titles = ", ".join(_figure(evaluation, name).title for name in names)

    def cell(measures: Mapping[str, float]) -> str:
        return "  ".join(f"{measures[name]:.2f}" for name in names)

    rows = tuple(
        (label, f"{first['items']:,}", *(cell(measures["labels"][label]) for measures in metrics.values()))
        for label, first in labels.items()
    )
    return Grid(("label", "items", *(f"{spaced(key)}: {titles}" for key in metrics)), rows)


def explanation(evaluation: Evaluation) -> str:
    """Return an explanation of the figures of `summary_grid`."""
    brackets = (
        "In brackets: 95 % intervals by a bootstrap that draws whole groups of rows. Where groups are too few, or all answers "
        "right or all wrong, a share of right answers has Wilson's interval, and other measures have none."
    )
    explanations = (_figure(evaluation, name).explanation for name in _numbers(evaluation))
    return " ".join([brackets, *filter(None, explanations)])


def spaced(key: str) -> str:
    """Return a set of modalities with spaces: "image + text"."""
    return key.replace("+", " + ")


def _numbers(evaluation: Evaluation) -> list[str]:
    """Return the names of metrics that are single numbers."""
    return [
        name for name, value in next(iter(evaluation.metrics.values())).items() if not isinstance(value, Mapping | list)
    ]


def _figure(evaluation: Evaluation, name: str) -> Figure:
    known = {**evaluation.target.other_figures, **evaluation.target.figures}
    return known.get(name, Figure(name.replace("_", " ")))


def _with_interval(measures: Mapping[str, Any], name: str, form: str) -> str:
    value = measures[name]
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if (interval := measures["intervals"].get(name)) is None:
        return f"{value:{form}}"
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
