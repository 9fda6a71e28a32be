"""How long a batch should take, measured once at start-up: a fixed part, and what each item's pixels and tokens add."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from model import Parts, Probe, workload

ITEMS: Final = 4  # of the larger of the two batches that are timed
REPEATS: Final = 2  # of which the quicker counts
DECODINGS: Final = 3  # the same


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of one modality of one item = `fixed_s` + `unit_s` · its units of work, of which at most `most` count."""

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
    longest text of a batch; that is left out, and the queue corrects the whole by what it measures.
    """

    batch_s: float
    rates: Mapping[str, Rate]
    """By kind of workload."""

    @classmethod
    def measured(
        cls,
        compute: Callable[[Sequence[Parts]], object],
        decode: Callable[[Parts], object],
        probes: Mapping[str, Sequence[Probe]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Self:
        """Time one and several of a small and of a large example of each modality alone, and of examples that have all of them.

        The latter tell the fixed part: networks that take turns in a core's cache cost a small batch more than a large one. Where
        examples differ in decoding alone, that is timed by itself: it is quicker, and a difference of milliseconds is not lost in
        the noise of embedding.
        """

        def timed(parts: Parts) -> tuple[float, float]:
            """Seconds beside the items, and of each."""
            one = _quickest(lambda: compute([parts]), REPEATS, clock)
            several = _quickest(lambda: compute([parts] * ITEMS), REPEATS, clock)
            item_s = max(0.0, (several - one) / (ITEMS - 1))
            return max(0.0, one - item_s), item_s

        def decoding(parts: Parts) -> float:
            return _quickest(lambda: decode(parts), DECODINGS, clock)

        rates: dict[str, Rate] = {}
        for name, kinds in probes.items():
            _, small_s = timed({name: kinds[0].small})
            for probe in kinds:
                small, large = {name: probe.small}, {name: probe.large}
                ((kind, less),), ((_, more),) = workload(small).items(), workload(large).items()
                more_s = decoding(large) - decoding(small) if probe.embeds_alike else timed(large)[1] - small_s
                unit_s = max(0.0, more_s / (min(more, probe.most) - less))
                rates[kind] = Rate(max(0.0, small_s - unit_s * less), unit_s, probe.most)
        batch_s, _ = timed({name: first.small for name, (first, *_) in probes.items()})
        return cls(batch_s, rates)

    def item_s(self, units: Mapping[str, float]) -> float:
        """Seconds that an item with so many units of work, by kind, adds to its batch."""
        return sum(self.rates[kind].seconds(each) for kind, each in units.items() if kind in self.rates)


def _quickest(work: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(times):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken)
