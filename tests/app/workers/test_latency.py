"""The prediction of a batch's time, with a clock that the test moves."""

import io

import pytest
from PIL import Image

from polymodal.app.workers.latency import LatencyModel
from polymodal.model import Probe, workload


def jpeg(side, **options):
    content = io.BytesIO()
    Image.effect_noise((side, side), 60).save(content, "JPEG", **options)
    return content.getvalue()


DRAFTS = Probe(jpeg(8), jpeg(64), most=50_000.0, embeds_alike=True)
WHOLES = Probe(b"." * 100, b"." * 1100, most=50_000.0, embeds_alike=True)  # of no known format: one unit for each byte
TEXTS = Probe("word", "word " * 20, most=20.0)
IMAGE_S, DRAFT_S, WHOLE_S, TOKEN_S, BATCH_S = 0.01, 1e-6, 1e-5, 0.0005, 0.005


class Machine:
    """Takes 5 ms for a batch, 10 ms to embed an image, time for each unit by its kind, and 100 ms more in every other call."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def decode(self, inputs) -> None:
        units = workload(inputs)
        self.now += DRAFT_S * units.get("image/jpeg", 0.0) + WHOLE_S * units.get("image", 0.0)
        self.add_noise()

    def compute(self, batch) -> None:
        self.now += BATCH_S
        for inputs in batch:
            units = workload(inputs)
            self.now += IMAGE_S if "image" in inputs else 0.0
            self.now += DRAFT_S * units.get("image/jpeg", 0.0) + WHOLE_S * units.get("image", 0.0)
            self.now += TOKEN_S * min(20, units.get("text", 0.0))
        self.add_noise()

    def add_noise(self) -> None:
        self.calls += 1
        self.now += 0.1 if self.calls % 2 else 0.0  # another process needed the core


@pytest.fixture
def latency():
    machine = Machine()
    probes = {"image": [DRAFTS, WHOLES], "text": [TEXTS]}
    return LatencyModel.measured(machine.compute, machine.decode, probes, clock=lambda: machine.now)


def test_fixed_time_and_time_per_unit_of_each_kind_are_separated(latency):
    assert latency.batch_s == pytest.approx(BATCH_S)
    draft, whole, text = (latency.rates[kind] for kind in ("image/jpeg", "image", "text"))
    assert (draft.fixed_s, draft.unit_s) == pytest.approx((IMAGE_S, DRAFT_S))
    assert (whole.fixed_s, whole.unit_s) == pytest.approx((IMAGE_S, WHOLE_S), rel=0.2)  # the thumbnails are JPEGs
    assert (text.fixed_s, text.unit_s) == pytest.approx((0.0, TOKEN_S))


def test_the_time_of_an_item_is_the_sum_over_its_inputs(latency):
    image_s = IMAGE_S + DRAFT_S * 500
    assert latency.item_s({"image/jpeg": 500.0, "text": 8.0}) == pytest.approx(image_s + 8 * TOKEN_S)
    assert latency.item_s({}) == 0.0


def test_units_that_are_cut_off_take_no_time(latency):
    assert latency.item_s({"text": 1e6}) == pytest.approx(20 * TOKEN_S)


def test_a_stopped_clock_predicts_no_time():
    nothing = {"text": [TEXTS], "image": [DRAFTS, WHOLES]}
    latency = LatencyModel.measured(lambda batch: None, lambda inputs: None, nothing, clock=lambda: 1.0)
    assert (latency.batch_s, latency.item_s({"text": 9.0, "image": 9.0, "image/jpeg": 9.0})) == (0.0, 0.0)


def test_inputs_of_one_size_have_only_a_fixed_time():
    machine = Machine()
    same = Probe("word", "word", most=20.0)
    latency = LatencyModel.measured(machine.compute, machine.decode, {"text": [same]}, clock=lambda: machine.now)
    assert latency.rates["text"].unit_s == 0.0
    assert latency.rates["text"].fixed_s > 0.0
