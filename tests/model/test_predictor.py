"""The predictor prepares inputs and returns calibrated scores, with every runtime."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from polymodal import cores
from polymodal.model import (
    BundleError,
    InputError,
    NothingGiven,
    Sample,
    TooLarge,
    Undecodable,
    UnknownModality,
    UnsupportedFormat,
    load_bundle,
)
from polymodal.model.bundle import AnyBundle
from polymodal.model.kinds import encoders

LABELS = ("sea", "tomato")


def png(label, size=50):
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    shape, colour = (draw.ellipse, "red") if label == "tomato" else (draw.rectangle, "blue")
    shape((8, 10, size - 12, size - 10), fill=colour)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


EXAMPLES = [
    {"image": png("tomato"), "text": "a ripe tomato, red"},
    {"text": "deep blue water"},
    {"image": png("sea")},
    {"image": png("sea", size=33), "text": "waves " * 60},
    {"image": png("tomato"), "text": " "},
    {"text": "深い海"},
]


def scores_of(predictions):
    return np.asarray([list(prediction.scores.values()) for prediction in predictions])


def test_a_prediction_names_labels_inputs_and_bundle(predictor):
    (prediction,) = predictor.predict([predictor.prepare(EXAMPLES[0])])
    assert tuple(prediction.scores) == predictor.description.labels == LABELS
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.used == {"image", "text"}
    assert prediction.bundle == predictor.description.digest


def test_learned_labels_are_predicted(predictor):
    samples = [predictor.prepare({"text": "red, ripe fruit"}), predictor.prepare({"text": "blue, deep water"})]
    tomato, sea = predictor.predict(samples)
    assert max(tomato.scores, key=tomato.scores.get) == "tomato"
    assert max(sea.scores, key=sea.scores.get) == "sea"


@pytest.mark.parametrize(
    ("inputs", "used"),
    [
        pytest.param(EXAMPLES[0], {"image", "text"}, id="both"),
        pytest.param(EXAMPLES[1], {"text"}, id="text"),
        pytest.param(EXAMPLES[2], {"image"}, id="image"),
        pytest.param(EXAMPLES[4], {"image"}, id="blank-text"),
        pytest.param(EXAMPLES[0] | {"text": "\u200b\ufeff\ue000"}, {"image"}, id="invisible-text"),
        pytest.param({"text": b"deep water"}, {"text"}, id="text-in-bytes"),
    ],
)
def test_either_modality_may_be_missing(predictor, inputs, used):
    sample = predictor.prepare(inputs)
    (prediction,) = predictor.predict([sample])
    assert sample.present == prediction.used == used
    assert all(0 <= score <= 1 for score in prediction.scores.values())


def test_a_batch_has_the_predictions_of_its_single_examples(predictor):
    samples = [predictor.prepare(inputs) for inputs in EXAMPLES]
    alone = [predictor.predict([sample])[0] for sample in samples]
    together = predictor.predict(samples)
    assert [prediction.used for prediction in together] == [prediction.used for prediction in alone]
    assert scores_of(together) == pytest.approx(scores_of(alone), abs=1e-4)


@pytest.mark.parametrize("size", [2, 3, 7, 12])
def test_an_input_has_the_same_embedding_to_the_bit_in_every_batch(predictors, int8_predictor, size):
    for model in (predictors["onnx"], int8_predictor):
        samples = [model.prepare(inputs) for inputs in [*EXAMPLES, {"text": "red"}, {"text": "red, ripe"}] * 3]
        for name in ("image", "text"):
            alone = np.concatenate([model.encode(name, [sample]) for sample in samples])
            batches = [samples[start : start + size] for start in range(0, len(samples), size)]
            assert np.array_equal(np.concatenate([model.encode(name, batch) for batch in batches]), alone)


def test_shuffling_the_batch_shuffles_the_predictions(predictor):
    samples = [predictor.prepare(inputs) for inputs in EXAMPLES * 3]
    order = np.random.default_rng(1).permutation(len(samples))
    shuffled = scores_of(predictor.predict([samples[index] for index in order]))
    assert shuffled == pytest.approx(scores_of(predictor.predict(samples))[order], abs=1e-4)


def test_scores_of_runtimes_agree(predictors):
    for batch in (EXAMPLES, *([inputs] for inputs in EXAMPLES)):
        scores = [
            scores_of(predictor.predict([predictor.prepare(inputs) for inputs in batch]))
            for predictor in predictors.values()
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_8_bits_agree_with_float32(predictors, int8_predictor):
    samples = [int8_predictor.prepare(inputs) for inputs in EXAMPLES]
    exact, fast = (scores_of(model.predict(samples)) for model in (predictors["onnx"], int8_predictor))
    assert fast == pytest.approx(exact, abs=0.05)
    assert np.abs(fast - exact).max() > 0


def test_embeddings_and_logits_of_runtimes_agree(predictors):
    samples = [predictors["onnx"].prepare(inputs) for inputs in EXAMPLES]
    used = [sample.present for sample in samples]
    embeddings = {
        runtime: {name: model.encode(name, samples) for name in ("image", "text")}
        for runtime, model in predictors.items()
    }
    for name in ("image", "text"):
        assert embeddings["onnx"][name] == pytest.approx(embeddings["torch"][name], abs=1e-4)
    logits = [model.logits(embeddings[runtime], used) for runtime, model in predictors.items()]
    assert logits[0].dtype == np.float32
    assert logits[0] == pytest.approx(logits[1], abs=1e-3)


def test_scores_are_calibrated_by_the_temperature_of_the_present_modalities(bundle_copy, seal):
    temperatures = {"image": 2.0, "text": 50.0, "image+text": 5.0}
    config = json.loads((bundle_copy / "config.json").read_text(encoding="utf-8"))
    (bundle_copy / "config.json").write_text(json.dumps({**config, "temperatures": temperatures}), encoding="utf-8")
    seal(bundle_copy)
    predictor = load_bundle(bundle_copy, threads=1)
    samples = [predictor.prepare(inputs) for inputs in EXAMPLES[:3]]
    used = [sample.present for sample in samples]
    embeddings = {name: predictor.encode(name, samples) for name in ("image", "text")}
    divisors = np.asarray([[5.0], [50.0], [2.0]])
    powers = np.exp(predictor.logits(embeddings, used) / divisors)
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert scores_of(predictor.predict(samples)) == pytest.approx(expected, abs=1e-5)


def test_kept_embeddings_can_be_fused_later(predictor):
    samples = [predictor.prepare(inputs) for inputs in EXAMPLES]
    kept = {name: predictor.encode(name, samples) for name in ("image", "text")}
    later = predictor.fuse(kept, [sample.present for sample in samples])
    assert scores_of(later) == pytest.approx(scores_of(predictor.predict(samples)), abs=1e-6)


def test_an_absent_modality_has_an_embedding_of_zeros(predictor):
    samples = [predictor.prepare(inputs) for inputs in (EXAMPLES[1], EXAMPLES[2])]
    embeddings = predictor.encode("image", samples)
    assert not embeddings[0].any()
    assert embeddings[1].any()


def test_an_empty_batch_has_no_predictions(predictor):
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        pytest.param({}, NothingGiven, "at least one of image, text", id="nothing"),
        pytest.param({"text": " \n"}, NothingGiven, "or only blank ones", id="only-blank"),
        pytest.param({"text": "\u200b"}, NothingGiven, "or only blank ones", id="only-invisible"),
        pytest.param({"sound": b"x", "text": "sea"}, UnknownModality, "sound: not an input", id="unknown"),
        pytest.param({"image": b"words"}, UnsupportedFormat, "image: bytes of no known", id="no-image"),
        pytest.param({"image": b"", "text": "sea"}, Undecodable, "image: 0 bytes", id="empty-image"),
        pytest.param({"image": png("sea"), "text": b"\xff"}, Undecodable, "text: a byte", id="no-text"),
        pytest.param({"text": "x" * 20_001}, TooLarge, "text: 20,001 characters", id="long-text"),
    ],
)
def test_inputs_that_cannot_be_prepared_are_explained(predictor, inputs, error, message):
    with pytest.raises(error) as caught:
        predictor.prepare(inputs)
    assert isinstance(caught.value, InputError)
    assert message in str(caught.value)


def test_prepare_is_thread_safe(predictors):
    predictor = predictors["onnx"]
    work = EXAMPLES * 10
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(predictor.prepare, work))
    expected = [predictor.prepare(inputs) for inputs in EXAMPLES] * 10
    for sample, other in zip(samples, expected, strict=True):
        assert sample.present == other.present
        assert all((sample.arrays[name] == other.arrays[name]).all() for name in sample.present)


def test_predicting_does_not_change_a_sample(predictor):
    sample = predictor.prepare(EXAMPLES[0])
    before = {name: array.copy() for name, array in sample.arrays.items()}
    predictor.predict([sample, sample])
    assert all((sample.arrays[name] == array).all() for name, array in before.items())
    assert isinstance(sample, Sample)


def test_a_model_has_a_description(predictor):
    description = predictor.description
    assert (description.name, description.target, description.labels) == ("shapes", "single-label", LABELS)
    assert [spec.name for spec in description.inputs] == ["image", "text"]
    assert description.runtime in ("onnx-int8", "onnx", "torch")
    assert description.card.startswith("# shapes")
    assert set(description.report) >= {"metrics", "data", "code", "training"}


def test_a_model_can_be_loaded_under_another_name(tiny_bundle):
    assert load_bundle(tiny_bundle, name="other", threads=1).description.name == "other"


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("max 100000", 8)], ids=["one-core", "no-quota"])
def test_by_default_a_forward_pass_uses_the_cores_that_the_containers_quota_allows(
    tiny_bundle, tmp_path, monkeypatch, quota, expected
):
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "membership").write_text("0::/\n")
    monkeypatch.setattr(cores.available_cpus, "__defaults__", (tmp_path, tmp_path / "membership"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    threads = []
    monkeypatch.setattr(encoders, "start_runtime", lambda name, bundle, count: threads.append(count) or Idle())
    load_bundle(tiny_bundle)
    load_bundle(tiny_bundle, threads=3)
    assert threads == [expected, 3]


class Idle:
    """A runtime that computes nothing."""

    name = "idle"


def test_a_runtime_copies_the_weights(tiny_bundle, monkeypatch):
    """The arrays that were read are freed once it has started."""
    read, stored = AnyBundle.read_stored, []

    def read_and_keep(bundle, *graph):
        weights = read(bundle, *graph)
        stored.extend(weights.values())
        return weights

    monkeypatch.setattr(AnyBundle, "read_stored", read_and_keep)
    for runtime in ("onnx-int8", "onnx", "torch"):
        predictor = load_bundle(tiny_bundle, runtime=runtime, threads=1)
        samples = [predictor.prepare(inputs) for inputs in EXAMPLES]
        before = scores_of(predictor.predict(samples))
        for array in stored:
            array.fill(np.nan if array.dtype.kind == "f" else 0)
        assert (scores_of(predictor.predict(samples)) == before).all()


# --- golden inputs ---


def test_float32_is_used_when_8_bits_fail_the_golden_inputs(bundle_copy, seal, caplog):
    """As on a processor where sums of 8-bit products overflow."""

    def wrong(golden):
        return [{**entry, "onnx-int8": {"scores": dict.fromkeys(LABELS, 0.5)}} for entry in golden]

    assert load_bundle(bundle_copy, threads=1).description.runtime == "onnx-int8"
    change_golden(bundle_copy, wrong)
    seal(bundle_copy)
    predictor = load_bundle(bundle_copy, threads=1)
    predictor.warm_up()
    assert predictor.description.runtime == "onnx"
    assert "runtime onnx-int8 is not used" in caplog.text
    exact = load_bundle(bundle_copy, runtime="onnx", threads=1)
    samples = [predictor.prepare(inputs) for inputs in EXAMPLES]
    assert (scores_of(predictor.predict(samples)) == scores_of(exact.predict(samples))).all()
    with pytest.raises(BundleError, match="golden input 1 is"):
        load_bundle(bundle_copy, runtime="onnx-int8", threads=1).warm_up()


def change_golden(folder, change):
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    (folder / "golden.json").write_text(json.dumps(change(golden)), encoding="utf-8")


def change_weights(folder, change):
    weights = load_file(folder / "weights.safetensors")
    changed = {name: change(array) if name.startswith("head.classify") else array for name, array in weights.items()}
    save_file(changed, folder / "weights.safetensors")


def mirror_scores(golden):
    for entry in golden:
        entry["scores"] = {label: 1 - score for label, score in entry["scores"].items()}
    return golden


def with_inputs(**inputs):
    return lambda golden: [{**golden[0], "parts": inputs}, *golden[1:]]


def test_a_good_bundle_passes_its_golden_inputs(predictor):
    predictor.warm_up()


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(mirror_scores, "golden input 1 is .* away from what the bundle recorded", id="other-scores"),
        pytest.param(with_inputs(image="bm90IGFuIGltYWdl"), "golden input 1 cannot be replayed", id="no-image"),
        pytest.param(with_inputs(image="!"), "golden input 1 cannot be replayed", id="no-base64"),
        pytest.param(with_inputs(), "golden input 1 cannot be replayed", id="no-inputs"),
        pytest.param(lambda golden: [{**golden[0], "parts": 3}], "golden input 1 cannot be replayed", id="nonsense"),
        pytest.param(
            lambda golden: [{"parts": golden[0]["parts"]}], "golden input 1 cannot be replayed", id="no-scores"
        ),
    ],
)
def test_a_bundle_that_fails_its_golden_inputs_is_rejected(bundle_copy, seal, change, message, runtime):
    change_golden(bundle_copy, change)
    seal(bundle_copy)
    predictor = load_bundle(bundle_copy, runtime=runtime, threads=1)
    with pytest.raises(BundleError, match=message):
        predictor.warm_up()


@pytest.mark.parametrize(
    ("change", "runtime", "message"),
    [
        pytest.param(np.negative, "onnx", "away from what the bundle recorded", id="negated-onnx"),
        pytest.param(np.negative, "torch", "away from what the bundle recorded", id="negated-torch"),
        pytest.param(lambda array: np.full_like(array, np.nan), "auto", "is nan away", id="nan"),
    ],
)
def test_other_weights_are_rejected(bundle_copy, seal, change, runtime, message):
    change_weights(bundle_copy, change)
    seal(bundle_copy)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle_copy, runtime=runtime, threads=1).warm_up()


def test_labels_in_another_order_are_rejected(bundle_copy, seal):
    config = json.loads((bundle_copy / "config.json").read_text(encoding="utf-8"))
    config["network"]["labels"].reverse()
    (bundle_copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    seal(bundle_copy)
    with pytest.raises(BundleError, match="away from what the bundle recorded"):
        load_bundle(bundle_copy, threads=1).warm_up()
