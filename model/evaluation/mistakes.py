"""The answers that are worst, and what they said, for people to look at; a function for each task.

N rows, K labels.
"""

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from model.tasks import MultiLabel, Regression, SingleLabel, Task
from model.types import Array

_SUREST = "{wrong:,} of {all:,} answers are wrong. These are the wrong ones that it is surest of."


@dataclass(frozen=True, slots=True)
class Mistake:
    """An answer that is wrong."""

    row: int
    """Of the scores."""
    said: str
    how: str
    """How sure it was, or how far off."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How many answers are wrong, in words, and the worst of them, worst first."""

    told: str
    worst: tuple[Mistake, ...]


@singledispatch
def mistakes(task: Task, scores: Array, targets: Array, most: int) -> Mistakes:
    """The `most` worst of a task's answers, given as its scores, against the targets."""
    raise NotImplementedError(type(task).__name__)


@mistakes.register
def _(task: SingleLabel, scores: Array, targets: Array, most: int) -> Mistakes:
    """Wrong labels, by their scores."""
    chosen, sure = scores.argmax(axis=1), scores.max(axis=1)
    rows = _ranked(chosen != targets, sure)
    worst = tuple(Mistake(row, task.labels[chosen[row]], f"{sure[row]:.0%} sure") for row in rows[:most])
    return Mistakes(_SUREST.format(wrong=len(rows), all=len(targets)), worst)


@mistakes.register
def _(task: MultiLabel, scores: Array, targets: Array, most: int) -> Mistakes:
    """Rows with a wrong decision, by the score that spoke for the worst of them."""
    selected, truth = scores >= task.thresholds, targets > 0
    sure = np.where(selected != truth, np.where(selected, scores, 1 - scores), -1.0)  # (N, K), -1 where it is right
    rows = _ranked((selected != truth).any(axis=1), sure.max(axis=1))
    worst = []
    for row in rows[:most]:
        said = ", ".join(label for label, here in zip(task.labels, selected[row], strict=True) if here)
        label = int(sure[row].argmax())
        kind = "fits" if selected[row, label] else "does not fit"
        worst.append(Mistake(row, said or "none", f"{sure[row, label]:.0%} sure that {task.labels[label]} {kind}"))
    return Mistakes(_SUREST.format(wrong=len(rows), all=len(targets)), tuple(worst))


@mistakes.register
def _(task: Regression, scores: Array, targets: Array, most: int) -> Mistakes:
    """Numbers, by how far they are off."""
    wrong = scores[:, 0] - task.in_unit(targets)
    rows = _ranked(wrong != 0, np.abs(wrong))
    worst = tuple(Mistake(row, f"{scores[row, 0]:.4g}", f"{wrong[row]:+.4g} off") for row in rows[:most])
    return Mistakes("These are the answers that are furthest off.", worst)


def _ranked(wrong: Array, weight: Array) -> list[int]:
    """Rows that are wrong, those of the largest weight first."""
    rows = np.flatnonzero(wrong)
    ranked: list[int] = rows[np.argsort(-weight[rows], kind="stable")].tolist()
    return ranked
