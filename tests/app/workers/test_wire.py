"""Messages between the service and a worker: they arrive unchanged, and invalid ones are refused."""

import io
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers import wire
from polymodal.app.workers.engine import Item, ItemResult, Loaded
from polymodal.app.workers.latency import LatencyModel, Rate
from polymodal.model import Description, InputError, InputSpec, MatchConfig, Took

LENGTH = wire.LENGTH.size
MODALITIES = st.sampled_from(["image", "text"])


def received(buffers: list[wire.Buffer]) -> bytes:
    """Return a message without its length."""
    message = b"".join(buffers)
    assert wire.LENGTH.unpack(message[:LENGTH]) == (len(message) - LENGTH,)
    return message[LENGTH:]


def pieces(buffers: list[wire.Buffer]) -> list[bytes]:
    """Return a message as a worker reads it."""
    return wire.receive(io.BytesIO(b"".join(buffers)))


def encoded(content: bytes | str) -> bytes:
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content


INPUTS = st.dictionaries(MODALITIES, st.binary(max_size=50) | st.text(max_size=20))
KEPT = st.dictionaries(MODALITIES, st.binary(max_size=16))
OPTIONS = st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=5), max_size=2)


@given(st.lists(st.builds(Item, INPUTS, KEPT, OPTIONS)))
@example([Item({"text": "half a character \ud800"}), Item({"image": bytearray(b"123")})])
def test_inputs_cached_embeddings_and_options_arrive_unchanged(items):
    batch = wire.read_request(pieces(wire.request(wire.Compute("toy#1", "classify", items))))
    assert (batch.ref, batch.task) == ("toy#1", "classify")
    assert [(item.kept, item.options) for item in batch.items] == [(item.kept, item.options) for item in items]
    for item, sent in zip(batch.items, items, strict=True):
        assert item.inputs == {name: encoded(content) for name, content in sent.inputs.items()}


def test_inputs_are_not_copied_when_they_are_encoded():
    image, kept = bytearray(b"a large image"), b"1234"
    buffers = wire.request(wire.Compute("toy#1", "classify", [Item({"image": image}, {"text": kept})]))
    assert any(buffer is image for buffer in buffers)
    assert any(buffer is kept for buffer in buffers)


@pytest.mark.parametrize("kind", ["load", "unload"])
def test_requests_to_load_and_unload_arrive_unchanged(kind, tmp_path):
    message = wire.Load("toy#2", BundleSource("toy", tmp_path)) if kind == "load" else wire.Unload("toy#1")
    assert wire.read_request(pieces(wire.request(message))) == message


ARRAYS = [
    pytest.param(np.array(values, dtype=dtype), id=f"{dtype}-{np.ndim(values)}d")
    for dtype in sorted(wire.DTYPES)
    for values in (1, [0, 1, 1], [[1], [0]], [])
]


@pytest.mark.parametrize("array", ARRAYS)
def test_an_array_of_every_type_and_shape_arrives_unchanged(array):
    (result,) = wire.read_results(received(wire.results([ItemResult({"scores": array})])))
    arrived = result.arrays["scores"]
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert np.array_equal(arrived, array)


def test_an_array_that_is_not_contiguous_arrives_unchanged():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    (result,) = wire.read_results(received(wire.results([ItemResult({"scores": array})])))
    assert np.array_equal(result.arrays["scores"], array)


def test_a_result_arrives_with_its_modalities_stages_and_embeddings():
    scores, vector = np.array([0.25, 0.75], dtype=np.float32), np.array([1.0, 2.0], dtype=np.float32)
    stages = {"decode": Took(0.0, 0.1), "encode_text": Took(0.1, 0.2)}
    sent = [ItemResult({"scores": scores}, frozenset({"text"}), stages, {"text": vector}), ItemResult()]
    result, nothing = wire.read_results(received(wire.results(sent)))
    assert (result.used, result.stages, result.error) == (frozenset({"text"}), stages, None)
    assert np.array_equal(result.arrays["scores"], scores)
    assert np.array_equal(result.embeddings["text"], vector)
    assert nothing == ItemResult()


@pytest.mark.parametrize("kind", [InputError, *InputError.__subclasses__()])
def test_an_input_error_arrives_as_the_same_error(kind):
    problem = kind("image", "3 bytes", "a whole image")
    (result,) = wire.read_results(received(wire.results([ItemResult(error=problem)])))
    error = result.error
    assert type(error) is kind
    assert (error.input, error.found, error.allowed) == ("image", "3 bytes", "a whole image")


@pytest.mark.parametrize("dtype", ["O", "U3", "S3", "datetime64[s]", "complex64", ">f4", "f2,f2"])
def test_an_array_of_any_other_type_is_not_sent(dtype):
    with pytest.raises(ValueError, match=r"array 'scores' of type .*; allowed: .*<f4"):
        wire.results([ItemResult({"scores": np.zeros(2, dtype=dtype)})])


INVALID_ARRAYS = {
    "unknown-type": ["<c8", [1], 0],
    "objects": ["|O", [1], 0],
    "text": ["<U2", [1], 0],
    "structure": ["<f4,<f4", [1], 0],
    "byte-order": [">f8", [1], 0],
    "too-many-bytes": ["<f4", [1], 0],
    "too-few-bytes": ["<f4", [3], 0],
    "axes": ["<f8", [1] * (wire.MOST_AXES + 1), 0],
    "negative-size": ["<f8", [-1], 0],
    "two-negative-sizes": ["<f4", [-1, -2], 0],
    "huge-size": ["|u1", [wire.LONGEST + 1], 0],
    "huge-product": ["<f8", [wire.LONGEST] * wire.MOST_AXES, 0],
    "product-beyond-64-bits": ["|u1", [2**16] * 4 + [8], 0],
    "blob-beyond-the-last": ["<f8", [1], 1],
    "blob-before-the-first": ["<f8", [1], -1],
    "size-that-is-text": ["<f8", ["a"], 0],
    "no-shape": ["<f8", None, 0],
}


@pytest.mark.parametrize("field", ["arrays", "embeddings"])
@pytest.mark.parametrize("described", INVALID_ARRAYS.values(), ids=INVALID_ARRAYS)
def test_an_invalid_array_is_refused(field, described):
    result = {"arrays": {}, "used": [], "stages": {}, "embeddings": {}, field: {"scores": described}}
    message = received(wire.encode(json.dumps([result]).encode(), [b"12345678"]))
    with pytest.raises((ValueError, LookupError)):
        wire.read_results(message)


def test_a_failure_can_be_the_reply_to_every_request():
    failed = wire.Failed("ValueError")
    assert wire.read_results(received(wire.results(failed))) == failed
    assert wire.read_loaded(received(wire.loaded(failed))) == failed
    assert wire.read_done(received(wire.done(failed))) == failed
    assert wire.read_done(received(wire.done(wire.Done()))) == wire.Done()


def test_the_first_message_has_the_settings(tmp_path):
    settings = Settings(bundles=(BundleSource("toy", tmp_path),), workers=3, runtime="onnx", max_batch_ms=7.5)
    init = wire.read_init(pieces(wire.init(settings, 2)))
    assert (init.settings, init.number) == (settings, 2)


def test_the_description_of_a_loaded_model_arrives_unchanged():
    inputs = (InputSpec("text", ("text/plain",), {"max_tokens": 8}),)
    description = Description(
        "toy",
        "ab" * 32,
        "single-label",
        ("sea", "lake"),
        inputs,
        "onnx",
        "# Toy",
        {"test": {"n": [1, 2.5]}},
        capabilities=frozenset({"embeds", "scores"}),
        spaces={"aligned": 3, "classifier": 2},
        matches={"image~text": MatchConfig(slope=9.0, intercept=-4.0, threshold=0.6)},
    )
    loaded = Loaded(description, {"classify": LatencyModel(0.001, {"text": Rate(0.0, 0.25, 8.0)})})
    assert wire.read_loaded(received(wire.loaded(loaded))) == loaded


def test_heartbeats_messages_and_the_end_are_distinguished():
    stream = io.BytesIO(wire.encode_signal(wire.HEARTBEAT) + b"".join(wire.request(wire.Unload("toy#1"))))
    assert wire.receive(stream) == []
    assert wire.read_request(wire.receive(stream)) == wire.Unload("toy#1")
    assert wire.receive(stream) is None


def test_a_truncated_message_counts_as_the_end():
    message = b"".join(wire.request(wire.Compute("toy#1", "classify", [Item({"text": "red"})])))
    for size in range(len(message)):
        assert wire.receive(io.BytesIO(message[:size])) is None


READERS = (wire.read_results, wire.read_loaded, wire.read_done)


def read_as_worker(read, message: bytes):
    return read(wire.pieces_of(message))


@given(st.binary(max_size=100))
def test_any_bytes_that_are_no_message_are_an_error(content):
    for read in READERS:
        with pytest.raises((ValueError, LookupError)):
            read(content)
    for read in (wire.read_request, wire.read_init):
        with pytest.raises((ValueError, LookupError)):
            read_as_worker(read, content)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@given(JSON_VALUES, st.lists(st.binary(max_size=4), max_size=2))
@example({"kind": "compute", "ref": "a", "task": "b", "items": [{"inputs": {"a": 0}, "kept": {}, "options": {}}]}, [])
@example(
    {"kind": "compute", "ref": "a", "task": "b", "items": [{"inputs": {"a": -1}, "kept": {}, "options": {}}]}, [b"a"]
)
@example([{"arrays": {"a": ["<f4", [1], 0]}, "used": [], "stages": {}, "embeddings": {}}], [b"1234"])
def test_any_json_in_a_message_is_read_or_an_error(document, blobs):
    message = received(wire.encode(json.dumps(document).encode(), blobs))
    for read in READERS:
        with suppress(ValueError, LookupError):
            assert read(message) is not None
    for read in (wire.read_request, wire.read_init):
        with suppress(ValueError, LookupError):
            assert read_as_worker(read, message) is not None


def test_a_message_whose_pieces_have_other_lengths_is_refused():
    with pytest.raises(ValueError, match="pieces"):
        wire.read_results(received(wire.encode(b"[]")) + b"more")
    with pytest.raises(ValueError, match="a message of 4 bytes"):
        wire.pieces_of(b"\xff\xff\xff\xff")  # the largest number of sizes, and none of them


def test_a_message_that_is_too_long_is_refused_before_it_is_read():
    assert wire.length(wire.LENGTH.pack(wire.LONGEST)) == wire.LONGEST
    with pytest.raises(ValueError, match="a message of"):
        wire.length(wire.LENGTH.pack(wire.LONGEST + 1))


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1", "1e300"])
def test_an_impossible_time_of_a_stage_is_refused(seconds):
    document, *_ = wire.pieces_of(received(wire.results([ItemResult(stages={"fuse": Took(0.5, 0.25)})])))
    assert b"0.25]" in document
    with pytest.raises(ValidationError):
        wire.read_results(received(wire.encode(document.replace(b"0.25]", f"{seconds}]".encode()))))


def test_a_stop_names_a_request_and_nothing_else_does():
    message = b"".join(wire.stop(17))
    pieces = wire.receive(io.BytesIO(message))
    assert wire.read_stop(pieces) == 17
    assert wire.read_stop([b'{"kind": "unload", "ref": "stop "}']) is None
