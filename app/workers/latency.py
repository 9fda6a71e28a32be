"""Predicted time of a batch, measured when a model is loaded: an overhead per batch, and time per unit of each input."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from polymodal.model import Inputs, Probe, workload

ITEMS: Final = 4
"""Items of the larger of the two batches that are timed."""
REPEATS: Final = 2
"""Repetitions of a batch, of which the fastest counts."""
DECODINGS: Final = 3
"""Repetitions of decoding, of which the fastest counts."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of one modality of one item = `fixed_s` + `unit_s` · min(units of work, `most`)."""

    fixed_s: float
    unit_s: float
    most: float

    def seconds(self, units: float) -> float:
        """Return the seconds of decoding and embedding an input of this many units."""
        return self.fixed_s + self.unit_s * min(units, self.most)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Seconds of a batch = `batch_s` + Σ of `Rate.seconds` over the inputs of its items.

    A sum, because inputs are decoded and modalities embedded one after the other. Padding to the longest text of a batch is left
    out; the queue corrects the prediction by its measurements.
    """

    batch_s: float
    rates: Mapping[str, Rate]
    """By kind of workload."""

    @classmethod
    def measured(
        cls,
        compute: Callable[[Sequence[Inputs]], object],
        decode: Callable[[Inputs], object],
        probes: Mapping[str, Sequence[Probe]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Self:
        """Time one item and several items with a small and a large input of each modality alone, and with all modalities.

        The overhead per batch is that of the latter, as networks that evict each other from a core's cache cost a small batch more
        than a large one. Where inputs differ in decoding alone, decoding is timed by itself, so that a difference of milliseconds
        is not lost in the noise of embedding.
        """

        def timed(inputs: Inputs) -> tuple[float, float]:
            """Return the overhead per batch and the time per item."""
            one = _fastest(lambda: compute([inputs]), REPEATS, clock)
            several = _fastest(lambda: compute([inputs] * ITEMS), REPEATS, clock)
            item_s = max(0.0, (several - one) / (ITEMS - 1))
            return max(0.0, one - item_s), item_s

        def decoding(inputs: Inputs) -> float:
            return _fastest(lambda: decode(inputs), DECODINGS, clock)

        rates: dict[str, Rate] = {}
        if alone := [(name, probe) for name, kinds in probes.items() for probe in kinds if probe.alone]:
            return cls(0.0, dict(_rate_alone(name, probe, compute, clock) for name, probe in alone))
        for name, kinds in probes.items():
            _, small_s = timed({name: kinds[0].small})
            for probe in kinds:
                small, large = {name: probe.small}, {name: probe.large}
                ((kind, less),), ((_, more),) = workload(small).items(), workload(large).items()
                more_s = decoding(large) - decoding(small) if probe.embeds_alike else timed(large)[1] - small_s
                range_units = min(more, probe.most) - less  # 0 for a modality whose inputs are all alike
                unit_s = max(0.0, more_s / range_units) if range_units > 0 else 0.0
                rates[kind] = Rate(max(0.0, small_s - unit_s * less), unit_s, probe.most)
        batch_s, _ = timed({name: first.small for name, (first, *_) in probes.items()})
        return cls(batch_s, rates)

    def item_s(self, units: Mapping[str, float]) -> float:
        """Return the seconds that an item adds to its batch; `units` are its workload by kind."""
        return sum(self.rates[kind].seconds(count) for kind, count in units.items() if kind in self.rates)


def _rate_alone(
    name: str, probe: Probe, compute: Callable[[Sequence[Inputs]], object], clock: Callable[[], float]
) -> tuple[str, Rate]:
    """Time the two inputs of a probe once each; return the kind of their workload and its rate."""
    small, large = {name: probe.small}, {name: probe.large}
    ((kind, less),), ((_, more),) = workload(small).items(), workload(large).items()
    small_s, large_s = _fastest(lambda: compute([small]), 1, clock), _fastest(lambda: compute([large]), 1, clock)
    unit_s = max(0.0, large_s - small_s) / (more - less) if more > less else 0.0
    return kind, Rate(max(0.0, small_s - unit_s * less), unit_s, probe.most)


def _fastest(work: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(times):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken)
