"""The forecast of a batch's time, with a clock that is told what things take."""

import pytest

from app.latency import LatencyModel
from model import Sample


class Machine:
    """Predicts nothing, and takes 5 ms for a batch, 20 ms for a picture, 4 ms for the longest text, and now and then longer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def predict(self, samples) -> None:
        self.calls += 1
        self.now += 0.005 + sum(
            0.02 * sample.costs.get("image", 0) + 0.004 * sample.costs.get("text", 0) for sample in samples
        )
        self.now += 0.1 if self.calls % 2 else 0.0  # somebody else needed the core


@pytest.fixture
def latency():
    machine = Machine()
    probes = {name: Sample({name: None}, {name: 1.0}) for name in ("image", "text")}
    return LatencyModel.measured(machine.predict, probes, clock=lambda: machine.now)


def test_the_parts_of_a_batch_are_told_apart(latency):
    assert latency.batch_s == pytest.approx(0.005)
    assert latency.rates == pytest.approx({"image": 0.02, "text": 0.004})


def test_an_item_takes_what_its_modalities_take(latency):
    sample = Sample({"image": None, "text": None}, {"image": 1.0, "text": 0.25})
    assert latency.item_s(sample) == pytest.approx(0.021)


def test_a_clock_that_sees_nothing_gives_a_forecast_of_nothing():
    probe = Sample({"text": None}, {"text": 1.0})
    latency = LatencyModel.measured(lambda samples: None, {"text": probe}, clock=lambda: 1.0)
    assert (latency.batch_s, latency.item_s(probe)) == (0.0, 0.0)
