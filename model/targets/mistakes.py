"""The worst mistakes of a model, as the page of an evaluation shows them.

N rows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from polymodal.model.types import Array

SUREST: Final = "{wrong:,} of {all:,} answers are wrong. These are the wrong ones that it is surest of."


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong prediction."""

    row: int
    """Row of the scores."""
    predicted: str
    detail: str
    """Confidence, or distance from the right number."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """A sentence with the number of mistakes, and the worst of them, worst first."""

    summary: str
    worst: tuple[Mistake, ...]


def ranked(wrong: Array, weight: Array) -> list[int]:
    """Return the indices of rows that are wrong (N,), by falling weight (N,)."""
    rows = np.flatnonzero(wrong)
    order: list[int] = rows[np.argsort(-weight[rows], kind="stable")].tolist()
    return order
