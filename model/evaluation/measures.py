"""What is told of one part for one set of modalities: metrics with their intervals, and the same by source."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.manifest import Row
from model.tasks import Task
from model.types import Array

RESAMPLES: Final = 1000
"""Of the bootstrap over groups."""
CONFIDENCE: Final = 0.95


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
) -> dict[str, tuple[float, float]]:
    """95 % intervals by a bootstrap that draws whole groups, as items of one group are not independent.

    Of the task's summary only. Calibration error is not among them: drawing with repetition adds noise to every bin, which
    can only widen the gaps, so that the interval would lie above the figure.
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
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    return {name: _pair(np.percentile([each[name] for each in drawn], tails)) for name in drawn[0]}


def _pair(ends: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = ends.tolist()
    return low, high
