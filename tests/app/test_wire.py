"""What goes through the socket between the service and a worker comes out as it went in, and runs nothing."""

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from app import wire
from app.engine import Answer, Item, Model
from app.latency import LatencyModel, Rate
from app.settings import BundleSource, Settings
from app.timeline import Took
from model import Description, InputError, InputSpec, Prediction

LENGTH = wire.LENGTH.size


def received(message: bytes) -> bytes:
    """Without the length, which the reader has taken off."""
    assert wire.LENGTH.unpack(message[:LENGTH]) == (len(message) - LENGTH,)
    return message[LENGTH:]


PARTS = st.dictionaries(st.sampled_from(["image", "text"]), st.binary(max_size=50) | st.text(max_size=20))


@given(st.lists(st.builds(Item, PARTS, st.dictionaries(st.sampled_from(["image", "text"]), st.binary(max_size=16)))))
def test_a_batch(items):
    model, again = wire.read_batch(received(wire.batch("toy", items)))
    assert model == "toy"
    assert [each.embeddings for each in again] == [each.embeddings for each in items]
    for each, item in zip(again, items, strict=True):
        told = {name: part.encode() if isinstance(part, str) else part for name, part in item.parts.items()}
        assert each.parts == told


SINGLE = Prediction({"sea": 0.75, "lake": 0.25}, frozenset({"text"}), "ab" * 32)
STAGES = {"decode": Took(0.0, 0.1), "encode_image": Took(0.1, 0.2), "fuse": Took(0.3, 0.1)}
MULTI = Prediction({"sea": 0.5}, frozenset({"image", "text"}), "ab" * 32, selected=frozenset())


@pytest.mark.parametrize("prediction", [SINGLE, MULTI], ids=["single-label", "multi-label"])
def test_an_answer(prediction):
    answers = [
        Answer(prediction, STAGES, {"image": b"123", "text": b"45"}),
        Answer(prediction, {"fuse": Took(0.3, 0.1)}, {"text": b""}),
    ]
    assert wire.read_answered(received(wire.answered(answers))) == answers


@pytest.mark.parametrize("kind", [InputError, *InputError.__subclasses__()])
def test_a_refusal_is_the_same_error_on_the_other_side(kind):
    problem = kind("image", "3 bytes", "a whole picture")
    (answer,) = wire.read_answered(received(wire.answered([Answer(problem, {"decode": Took(0.0, 0.1)}, {})])))
    assert type(answer.outcome) is kind
    assert (answer.outcome.modality, answer.outcome.problem, answer.outcome.allowed) == (
        "image",
        "3 bytes",
        "a whole picture",
    )


def test_a_failure():
    assert wire.read_answered(received(wire.answered(wire.Failed("ValueError")))) == wire.Failed("ValueError")


def test_how_a_worker_begins(tmp_path):
    settings = Settings(bundles=(BundleSource("toy", tmp_path),), workers=3, runtime="onnx", max_batch_ms=7.5)
    orders = wire.read_orders(received(wire.orders(settings, 2)))
    assert (orders.settings, orders.number) == (settings, 2)
    inputs = (InputSpec("text", ("text/plain",), {"max_tokens": 8}),)
    description = Description(
        "toy", "ab" * 32, "single-label", ("sea", "lake"), inputs, "onnx", "# Toy", {"test": {"n": [1, 2.5]}}
    )
    models = {"toy": Model(description, LatencyModel(0.001, {"text": Rate(0.0, 0.25, 8.0)}))}
    assert wire.read_begun(received(wire.begun(models))) == models
    refused = wire.Refused("weights.safetensors was altered")
    assert wire.read_begun(received(wire.begun(refused))) == refused


@given(st.binary(max_size=100))
def test_what_is_no_message_is_an_error_and_nothing_else(content):
    for read in (wire.read_answered, wire.read_begun, wire.read_batch, wire.read_orders):
        with pytest.raises((ValueError, LookupError)):
            read(content)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@given(JSON_VALUES, st.lists(st.binary(max_size=4), max_size=2))
@example(["toy", [[{"text": 0}, {}]]], [])
@example(["toy", [[{"text": -1}, {}]]], [b"a"])
@example(["toy", 7], [])
def test_any_json_in_a_message_is_read_or_an_error_and_nothing_else(document, blobs):
    message = received(wire.framed(json.dumps(document).encode(), blobs))
    for read in (wire.read_answered, wire.read_begun, wire.read_batch, wire.read_orders):
        with suppress(ValueError, LookupError):
            assert read(message) is not None


def test_a_lying_worker_is_caught():
    with pytest.raises(ValidationError):
        wire.read_answered(received(wire.framed(b'[{"outcome": {"scores": 1}}]')))
    with pytest.raises(ValueError, match="pieces"):
        wire.read_answered(received(wire.framed(b"[]")) + b"more")


def test_a_message_longer_than_any_is_refused_before_it_is_read():
    assert wire.length(wire.LENGTH.pack(wire.LONGEST)) == wire.LONGEST
    with pytest.raises(ValueError, match="a message of"):
        wire.length(wire.LENGTH.pack(wire.LONGEST + 1))


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", "1e300"])
def test_no_stage_takes_an_impossible_time(seconds):
    message = received(wire.answered([Answer(SINGLE, {"fuse": Took(0.5, 0.25)}, {})]))
    document = message[4 + 8 :]
    assert b"0.25]" in document
    with pytest.raises(ValidationError):
        wire.read_answered(received(wire.framed(document.replace(b"0.25]", f"{seconds}]".encode()))))
