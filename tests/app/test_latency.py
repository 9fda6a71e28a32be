"""The forecast of a batch's time, with a clock that is told what things take."""

import io

import pytest
from PIL import Image

from app.latency import LatencyModel
from model import Probe, workload


def jpeg(side, **options):
    content = io.BytesIO()
    Image.effect_noise((side, side), 60).save(content, "JPEG", **options)
    return content.getvalue()


DRAFTS = Probe(jpeg(8), jpeg(64), most=50_000.0, embeds_alike=True)
WHOLES = Probe(b"." * 100, b"." * 1100, most=50_000.0, embeds_alike=True)  # of no known format: as many units as bytes
TEXTS = Probe("word", "word " * 20, most=20.0)
PICTURE_S, DRAFT_S, WHOLE_S, TOKEN_S, BATCH_S = 0.01, 1e-6, 1e-5, 0.0005, 0.005


class Machine:
    """Takes 5 ms for a batch, 10 ms to embed a picture, and some for each unit of its kind; and now and then longer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def decode(self, parts) -> None:
        units = workload(parts)
        self.now += DRAFT_S * units.get("image/jpeg", 0.0) + WHOLE_S * units.get("image", 0.0)
        self.take_longer_now_and_then()

    def compute(self, batch) -> None:
        self.now += BATCH_S
        for parts in batch:
            units = workload(parts)
            self.now += PICTURE_S if "image" in parts else 0.0
            self.now += DRAFT_S * units.get("image/jpeg", 0.0) + WHOLE_S * units.get("image", 0.0)
            self.now += TOKEN_S * min(20, units.get("text", 0.0))
        self.take_longer_now_and_then()

    def take_longer_now_and_then(self) -> None:
        self.calls += 1
        self.now += 0.1 if self.calls % 2 else 0.0  # somebody else needed the core


@pytest.fixture
def latency():
    machine = Machine()
    probes = {"image": [DRAFTS, WHOLES], "text": [TEXTS]}
    return LatencyModel.measured(machine.compute, machine.decode, probes, clock=lambda: machine.now)


def test_the_parts_of_a_batch_are_told_apart(latency):
    assert latency.batch_s == pytest.approx(BATCH_S)
    draft, whole, text = (latency.rates[kind] for kind in ("image/jpeg", "image", "text"))
    assert (draft.fixed_s, draft.unit_s) == pytest.approx((PICTURE_S, DRAFT_S))
    assert (whole.fixed_s, whole.unit_s) == pytest.approx((PICTURE_S, WHOLE_S), rel=0.2)  # the thumbnails are JPEGs
    assert (text.fixed_s, text.unit_s) == pytest.approx((0.0, TOKEN_S))


def test_an_item_takes_what_its_parts_take(latency):
    picture = PICTURE_S + DRAFT_S * 500
    assert latency.item_s({"image/jpeg": 500.0, "text": 8.0}) == pytest.approx(picture + 8 * TOKEN_S)
    assert latency.item_s({}) == 0.0


def test_what_is_cut_off_takes_no_time(latency):
    assert latency.item_s({"text": 1e6}) == pytest.approx(20 * TOKEN_S)


def test_a_clock_that_sees_nothing_gives_a_forecast_of_nothing():
    nothing = {"text": [TEXTS], "image": [DRAFTS, WHOLES]}
    latency = LatencyModel.measured(lambda batch: None, lambda parts: None, nothing, clock=lambda: 1.0)
    assert (latency.batch_s, latency.item_s({"text": 9.0, "image": 9.0, "image/jpeg": 9.0})) == (0.0, 0.0)
