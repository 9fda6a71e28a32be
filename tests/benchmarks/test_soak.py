"""When make soak reports growth."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.soak import QUANTITIES, Sample, compare, windows

STEADY = Sample(0.0, 300.0, 40, 12, 14.0, 40.0, 90.0, 12.0, 11.0)
MEMORY, DESCRIPTORS, THREADS, PROCESSOR, *_, LATENCY = QUANTITIES


def minute(seed: int, noise: float, **changed: float) -> list[Sample]:
    """Return 20 noisy samples; descriptors vary upwards only."""
    rng, centre = np.random.default_rng(seed), replace(STEADY, **changed)
    return [
        replace(
            centre,
            memory_mib=centre.memory_mib * rng.normal(1, noise),
            descriptors=centre.descriptors + int(rng.integers(0, 10)),
            cpu_ms=centre.cpu_ms * rng.normal(1, noise),
            p95_ms=centre.p95_ms * rng.normal(1, noise),
        )
        for _ in range(20)
    ]


@pytest.mark.parametrize(
    ("quantity", "noise", "changed", "grown"),
    [
        pytest.param(MEMORY, 0.01, {}, False, id="steady"),
        pytest.param(MEMORY, 0.01, {"memory_mib": 309.0}, False, id="three-percent"),
        pytest.param(MEMORY, 0.01, {"memory_mib": 330.0}, True, id="ten-percent"),
        pytest.param(MEMORY, 0.01, {"memory_mib": 200.0}, False, id="shrunk"),
        pytest.param(LATENCY, 0.5, {"p95_ms": 96.0}, False, id="latency-within-noise"),
        pytest.param(LATENCY, 0.1, {"p95_ms": 120.0}, True, id="latency-beyond-noise"),
        pytest.param(
            LATENCY, 0.1, {"p95_ms": 120.0, "yardstick_ms": 16.0}, False, id="slower-machine-for-the-yardstick-too"
        ),
        pytest.param(PROCESSOR, 0.01, {"cpu_ms": 15.4}, True, id="more-processor-time"),
        pytest.param(
            PROCESSOR,
            0.01,
            {"cpu_ms": 15.4, "yardstick_cpu_ms": 12.1},
            False,
            id="slower-processor-for-the-yardstick-too",
        ),
        pytest.param(DESCRIPTORS, 0.0, {}, False, id="connections-come-and-go"),
        pytest.param(DESCRIPTORS, 0.0, {"descriptors": 50}, True, id="leaked-descriptors"),
        pytest.param(THREADS, 0.0, {"threads": 13}, True, id="one-more-thread"),
    ],
)
def test_growth_is_above_five_percent_and_above_the_noise(quantity, noise, changed, grown):
    assert compare(quantity, minute(1, noise), minute(2, noise, **changed)).grown is grown


def test_windows_are_the_first_minute_after_the_warm_up_and_the_last():
    samples = [replace(STEADY, at_s=3.0 * number) for number in range(1, 201)]
    first, last = windows(samples, 600.0)
    assert (first[0].at_s, first[-1].at_s) == (33.0, 90.0)
    assert (last[0].at_s, last[-1].at_s) == (543.0, 600.0)


def test_a_short_run_has_two_windows_that_do_not_overlap():
    first, last = windows([replace(STEADY, at_s=3.0 * number) for number in range(1, 13)], 36.0)
    assert first[-1].at_s < last[0].at_s
    assert min(len(first), len(last)) >= 4
