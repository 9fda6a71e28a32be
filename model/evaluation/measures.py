"""Metrics of one split for one set of modalities: in all with intervals, and by source."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from polymodal.model.manifest import Row
from polymodal.model.metrics import wilson
from polymodal.model.targets.contract import Scoring
from polymodal.model.types import Array

RESAMPLES: Final = 1000
"""Number of draws of the bootstrap over groups."""
TAILS: Final = (2.5, 97.5)
"""Percentiles that bound a 95 % interval."""
FEWEST_GROUPS: Final = 6
"""Fewest groups for a 95 % interval. The values of n groups lie on both sides of their median with probability 1 − 2¹⁻ⁿ, and a
bootstrap never leaves their range."""


def measure(scores: Array, targets: Array, rows: Sequence[Row], target: Scoring) -> dict[str, Any]:
    """Return metrics of scores against targets, intervals of the most important ones, and the metrics of every source."""
    sources = np.asarray([row.source for row in rows])
    return {
        **target.metrics(scores, targets),
        "intervals": intervals(scores, targets, [row.group for row in rows], target),
        "sources": {
            source: {
                "items": int((sources == source).sum()),
                **target.summary(scores[sources == source], targets[sources == source]),
            }
            for source in sorted(set(sources.tolist()))
            if source
        },
    }


def intervals(
    scores: Array, targets: Array, groups: Sequence[str], target: Scoring, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Return 95 % intervals by a bootstrap that draws whole groups, because items of one group are not independent.

    The target's summary has intervals, without calibration error: drawing with repetition adds noise to every bin, which can
    only increase the differences, so that the interval would be above the figure.

    With fewer than FEWEST_GROUPS groups, or if every draw has the same result (all right, all wrong), the bootstrap would be
    too narrow. A proportion then gets Wilson's interval, as if each group were one item; other metrics get None.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    clusters = [np.asarray(rows) for rows in members.values()]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([clusters[index] for index in generator.integers(len(clusters), size=len(clusters))])
        drawn.append(target.summary(scores[chosen], targets[chosen]))
    bounds: dict[str, tuple[float, float] | None] = {}
    for name, value in target.summary(scores, targets).items():
        low, high = np.percentile([summary[name] for summary in drawn], TAILS)
        if len(clusters) >= FEWEST_GROUPS and not math.isclose(low, high):
            bounds[name] = (float(low), float(high))
        elif name in target.proportions:
            low, high = wilson(np.asarray(value), np.asarray(target.proportions[name] * len(clusters)))
            bounds[name] = (float(low), float(high))
        else:
            bounds[name] = None
    return bounds
