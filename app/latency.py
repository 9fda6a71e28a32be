"""How long a batch should take, measured once at start-up: a fixed part, and what each item's pixels and tokens add."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from model import Parts, Probe, workload

ITEMS: Final = 4  # of the larger of the two batches that are timed
REPEATS: Final = 2  # of which the quicker counts


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of one modality of one item = `fixed_s` + `unit_s` · its pixels or tokens, of which at most `most` count."""

    fixed_s: float
    unit_s: float
    most: float

    def seconds(self, units: float) -> float:
        """Decoding and embedding that many."""
        return self.fixed_s + self.unit_s * min(units, self.most)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Seconds of a batch = `batch_s` + Σ over its items and their modalities of what their rates say.

    A sum, as decoding one after the other and embedding one modality after the other is most of the work. Rows are padded to the
    longest text of a batch, and formats differ; both are left out, and the queue corrects the whole by what it measures.
    """

    batch_s: float
    rates: Mapping[str, Rate]
    """By modality."""

    @classmethod
    def measured(
        cls,
        compute: Callable[[Sequence[Parts]], object],
        probes: Mapping[str, Probe],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Self:
        """Time one and several of a small and of a large example of each modality alone, and of examples that have all of them.

        The latter tell the fixed part: networks that take turns in a core's cache cost a small batch more than a large one.
        """

        def timed(parts: Parts) -> tuple[float, float]:
            """Seconds beside the items, and of each."""
            one, several = (_quickest(compute, [parts] * count, clock) for count in (1, ITEMS))
            item_s = max(0.0, (several - one) / (ITEMS - 1))
            return max(0.0, one - item_s), item_s

        rates: dict[str, Rate] = {}
        for name, probe in probes.items():
            (small, small_s), (large, large_s) = (
                (min(workload({name: content})[name], probe.most), timed({name: content})[1])
                for content in (probe.small, probe.large)
            )
            unit_s = max(0.0, (large_s - small_s) / (large - small))
            rates[name] = Rate(max(0.0, large_s - unit_s * large), unit_s, probe.most)
        batch_s, _ = timed({name: probe.small for name, probe in probes.items()})
        return cls(batch_s, rates)

    def item_s(self, units: Mapping[str, float]) -> float:
        """Seconds that an item with so many pixels and tokens, by modality, adds to its batch."""
        return sum(self.rates[name].seconds(each) for name, each in units.items() if name in self.rates)


def _quickest(
    compute: Callable[[Sequence[Parts]], object], batch: Sequence[Parts], clock: Callable[[], float]
) -> float:
    taken = []
    for _ in range(REPEATS):
        started = clock()
        compute(batch)
        taken.append(clock() - started)
    return min(taken)
