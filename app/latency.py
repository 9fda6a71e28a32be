"""How long a batch should take, measured once at start-up: a fixed part, and seconds for each unit of a modality's work."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from model import Sample

ITEMS: Final = 4  # of the larger of the two batches that are timed
REPEATS: Final = 2  # of which the quicker counts


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Seconds of a batch = `batch_s` + Σ over its items and their modalities of rate · cost.

    A sum, as embedding one modality after the other is most of the work. Rows are padded to the longest text of a batch, which
    this leaves out; the queue corrects the whole by what it measures.
    """

    batch_s: float
    rates: Mapping[str, float]
    """Seconds for each unit of cost, by modality."""

    @classmethod
    def measured(
        cls,
        predict: Callable[[Sequence[Sample]], object],
        probes: Mapping[str, Sample],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Self:
        """Time one and several of each modality's probe, the dearest example that has it alone."""
        rates: dict[str, float] = {}
        fixed: list[float] = []
        for name, probe in probes.items():
            one, several = (_quickest(predict, [probe] * count, clock) for count in (1, ITEMS))
            item_s = max(0.0, (several - one) / (ITEMS - 1))
            rates[name] = item_s / probe.cost
            fixed.append(max(0.0, one - item_s))
        return cls(max(fixed, default=0.0), rates)

    def item_s(self, sample: Sample) -> float:
        """Seconds that this example adds to its batch."""
        return sum(self.rates[name] * cost for name, cost in sample.costs.items())


def _quickest(
    predict: Callable[[Sequence[Sample]], object], batch: Sequence[Sample], clock: Callable[[], float]
) -> float:
    taken = []
    for _ in range(REPEATS):
        started = clock()
        predict(batch)
        taken.append(clock() - started)
    return min(taken)
