"""What is told of one part for one set of modalities: metrics with their intervals, and the same by source."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from model.manifest import Row
from model.metrics import wilson
from model.tasks import Task
from model.types import Array

RESAMPLES: Final = 1000
"""Of the bootstrap over groups."""
TAILS: Final = (2.5, 97.5)
"""Percentiles that bound a 95 % interval."""
FEWEST_GROUPS: Final = 6
"""With this many groups or more, a bootstrap can be right 95 % of the time: n values lie on both sides of their median with
probability 1 − 2¹⁻ⁿ, and the bootstrap never goes beyond them."""


def measure(scores: Array, targets: Array, rows: Sequence[Row], task: Task) -> dict[str, Any]:
    """Metrics of a task's scores against the targets, intervals of the most important ones, and those of every source."""
    sources = np.asarray([row.source for row in rows])
    return {
        **task.metrics(scores, targets),
        "intervals": intervals(scores, targets, [row.group for row in rows], task),
        "sources": {
            source: {
                "items": int((sources == source).sum()),
                **task.summary(scores[sources == source], targets[sources == source]),
            }
            for source in sorted(set(sources.tolist()))
            if source
        },
    }


def intervals(
    scores: Array, targets: Array, groups: Sequence[str], task: Task, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals by a bootstrap that draws whole groups, as items of one group are not independent.

    Of the task's summary only. Calibration error is not among them: drawing with repetition adds noise to every bin, which
    can only widen the gaps, so that the interval would lie above the figure.

    Where there are fewer than FEWEST_GROUPS, or every draw says the same (all right, all wrong), the bootstrap would claim to
    be surer than anybody can be. A proportion then gets Wilson's interval, as if each group were one item; any other metric
    gets None.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    parts = [np.asarray(part) for part in members.values()]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([parts[index] for index in generator.integers(len(parts), size=len(parts))])
        drawn.append(task.summary(scores[chosen], targets[chosen]))
    found: dict[str, tuple[float, float] | None] = {}
    for name, value in task.summary(scores, targets).items():
        low, high = np.percentile([each[name] for each in drawn], TAILS)
        if len(parts) >= FEWEST_GROUPS and not math.isclose(low, high):
            found[name] = (float(low), float(high))
        elif name in task.proportions:
            low, high = wilson(np.asarray(value), np.asarray(task.proportions[name] * len(parts)))
            found[name] = (float(low), float(high))
        else:
            found[name] = None
    return found
