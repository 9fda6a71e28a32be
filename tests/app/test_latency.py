"""The forecast of a batch's time, with a clock that is told what things take."""

import pytest

from app.latency import LatencyModel
from model import Probe, workload

PICTURES = Probe(b"." * 100, b"." * 1100, most=5000.0)  # of no known format: as many pixels as bytes
TEXTS = Probe("word", "word " * 20, most=20.0)


class Machine:
    """Takes 5 ms for a batch, 10 ms for a picture and 10 µs for each of its pixels, 0.5 ms for a token; and now and then longer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def compute(self, batch) -> None:
        self.calls += 1
        self.now += 0.005
        for parts in batch:
            units = workload(parts)
            self.now += 0.01 + 1e-5 * units["image"] if "image" in units else 0.0
            self.now += 0.0005 * min(20, units.get("text", 0.0))
        self.now += 0.1 if self.calls % 2 else 0.0  # somebody else needed the core


@pytest.fixture
def latency():
    machine = Machine()
    return LatencyModel.measured(machine.compute, {"image": PICTURES, "text": TEXTS}, clock=lambda: machine.now)


def test_the_parts_of_a_batch_are_told_apart(latency):
    assert latency.batch_s == pytest.approx(0.005)
    picture, text = latency.rates["image"], latency.rates["text"]
    assert (picture.fixed_s, picture.unit_s) == pytest.approx((0.01, 1e-5))
    assert (text.fixed_s, text.unit_s) == pytest.approx((0.0, 0.0005))


def test_an_item_takes_what_its_parts_take(latency):
    assert latency.item_s({"image": 500.0, "text": 8.0}) == pytest.approx(0.01 + 0.005 + 0.004)
    assert latency.item_s({}) == 0.0


def test_what_is_cut_off_takes_no_time(latency):
    assert latency.item_s({"text": 1e6}) == pytest.approx(0.01)


def test_a_clock_that_sees_nothing_gives_a_forecast_of_nothing():
    latency = LatencyModel.measured(lambda batch: None, {"text": TEXTS}, clock=lambda: 1.0)
    assert (latency.batch_s, latency.item_s({"text": 9.0})) == (0.0, 0.0)
