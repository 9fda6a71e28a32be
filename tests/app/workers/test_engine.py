"""Batches of one worker: results do not depend on the other items, and cached embeddings are not computed again."""

import struct

import numpy as np
import pytest

from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Engine, Item
from polymodal.model import TASKS, BundleError, InputError, load_bundle, tasks_of, workload

REF = "shapes#1"


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return load_bundle(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def source(tiny_bundle):
    return BundleSource("shapes", tiny_bundle)


def make_engine(predictor, source, **changed):
    engine = Engine(Settings(workers=0, **{"embedding_cache_bytes": 2**20, **changed}), {"shapes": predictor})
    engine.loaded = engine.load(REF, source)
    return engine


@pytest.fixture(scope="module")
def engine(predictor, source):
    return make_engine(predictor, source)


@pytest.fixture(scope="module")
def image_file(manifest_folder):
    return (manifest_folder / "images/test-tomato-0.png").read_bytes()


def scores_of(predictor, inputs):
    sample = predictor.prepare(inputs)
    (row,) = predictor.scores(predictor.embed([sample]), [sample.present])
    return row


def classified(engine, items):
    return engine.compute(REF, "classify", items)


def kept(result):
    return {name: vector.tobytes() for name, vector in result.embeddings.items()}


def test_scores_of_a_batch_are_those_of_the_model_for_each_item_alone(engine, predictor, image_file):
    examples = [{"text": "blue, deep water"}, {"image": image_file}, {"image": image_file, "text": "red"}]
    results = classified(engine, [Item(inputs) for inputs in examples])
    for result, inputs in zip(results, examples, strict=True):
        assert result.arrays["scores"] == pytest.approx(scores_of(predictor, inputs), abs=1e-5)
        assert result.used == set(inputs)
        assert result.embeddings.keys() == set(inputs)


def test_embeddings_of_a_batch_are_those_of_each_item_alone_and_have_length_one(engine, image_file):
    examples = [{"text": "blue, deep water"}, {"image": image_file}, {"image": image_file, "text": "red"}]
    results = engine.compute(REF, "embed", [Item(inputs) for inputs in examples])
    for result, inputs in zip(results, examples, strict=True):
        (alone,) = engine.compute(REF, "embed", [Item(inputs)])
        assert result.arrays.keys() == alone.arrays.keys() == set(inputs)
        for name, vector in result.arrays.items():
            assert vector == pytest.approx(alone.arrays[name], abs=1e-5)
            assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("task", ["classify", "embed"])
def test_a_task_returns_the_arrays_that_it_describes(engine, predictor, image_file, task):
    (result,) = engine.compute(REF, task, [Item({"image": image_file, "text": "red"})])
    specs = {spec.name: spec for spec in TASKS[task].outputs(predictor.description)}
    assert result.arrays.keys() == specs.keys()
    for name, array in result.arrays.items():
        assert array.shape == specs[name].shape
        assert {"float32": "FP32", "float64": "FP64"}[array.dtype.name] == specs[name].datatype


def test_an_item_with_unusable_inputs_does_not_affect_the_others(engine, predictor):
    bad, good, nothing = classified(engine, [Item({"image": b"words"}), Item({"text": "red"}), Item({})])
    assert isinstance(bad.error, InputError)
    assert isinstance(nothing.error, InputError)
    assert (bad.arrays, bad.embeddings) == ({}, {})
    assert good.error is None
    assert good.arrays["scores"] == pytest.approx(scores_of(predictor, {"text": "red"}), abs=1e-6)
    (alone,) = classified(engine, [Item({"image": b"words"})])
    assert isinstance(alone.error, InputError)


def test_a_batch_may_mix_cached_and_new_embeddings(engine, predictor, image_file):
    (first,) = classified(engine, [Item({"image": image_file, "text": "red"})])
    image, red = kept(first)["image"], kept(first)["text"]
    items = [
        Item({"text": "blue, deep water"}),
        Item({}, {"image": image}),
        Item({"text": "ripe fruit"}, {"image": image}),
        Item({}, {"image": image, "text": red}),
        Item({"text": "waves at the coast"}),
    ]
    expected = [
        {"text": "blue, deep water"},
        {"image": image_file},
        {"image": image_file, "text": "ripe fruit"},
        {"image": image_file, "text": "red"},
        {"text": "waves at the coast"},
    ]
    for result, item, inputs in zip(classified(engine, items), items, expected, strict=True):
        assert result.arrays["scores"] == pytest.approx(scores_of(predictor, inputs), abs=1e-5)
        assert result.used == set(inputs)
        assert result.embeddings.keys() == set(item.inputs)  # cached ones are not computed again


def test_an_embedding_cached_for_one_task_is_used_by_the_other(engine, image_file):
    (classification,) = classified(engine, [Item({"image": image_file})])
    (computed,) = engine.compute(REF, "embed", [Item({"image": image_file})])
    (from_kept,) = engine.compute(REF, "embed", [Item({}, kept(classification))])
    assert from_kept.arrays["image"] == pytest.approx(computed.arrays["image"], abs=1e-6)
    assert list(from_kept.stages) == ["decode"]


def test_every_result_has_the_stages_that_ran_for_its_item(engine, image_file):
    both, text, bad = classified(
        engine, [Item({"image": image_file, "text": "red"}), Item({"text": "blue"}), Item({"image": b"words"})]
    )
    assert list(both.stages) == ["decode", "encode_image", "encode_text", "fuse"]
    assert list(text.stages) == ["decode", "encode_text", "fuse"]
    assert list(bad.stages) == ["decode"]
    assert text.stages["fuse"] == both.stages["fuse"]  # of the whole batch
    end_s = 0.0  # one after the other
    for took in (both.stages["decode"], text.stages["decode"], bad.stages["decode"], *list(both.stages.values())[1:]):
        assert took.after_s >= end_s - 1e-5
        assert took.seconds >= 0
        end_s = took.after_s + took.seconds


def test_embeddings_are_only_returned_when_they_are_cached(predictor, source):
    (result,) = classified(make_engine(predictor, source, embedding_cache_bytes=0), [Item({"text": "red"})])
    assert result.arrays
    assert result.embeddings == {}


def test_a_loaded_model_is_described_with_the_latency_of_every_task(engine, predictor):
    assert engine.loaded.description == predictor.description
    assert set(engine.loaded.latency) == set(tasks_of(predictor.description)) == {"classify", "embed"}
    for latency in engine.loaded.latency.values():
        assert latency.rates.keys() == {"image/jpeg", "image", "text"}
        assert latency.item_s({"image": 640 * 480, "text": 5}) > 0


def test_tasks_with_equal_probes_share_one_measurement(engine):
    assert engine.loaded.latency["embed"] is engine.loaded.latency["classify"]


def test_tasks_with_different_probes_are_measured_separately(predictor, source):
    class ByTask:
        def __getattr__(self, name):
            return getattr(predictor, name)

        def probes(self, task):
            return {name: probes for name, probes in predictor.probes().items() if task == "classify" or name == "text"}

    engine = Engine(Settings(workers=0), {"shapes": ByTask()})
    latency = engine.load(REF, source).latency
    assert latency["classify"].rates.keys() == {"image/jpeg", "image", "text"}
    assert latency["embed"].rates.keys() == {"text"}


def test_two_versions_of_a_model_can_be_loaded_until_one_is_unloaded(predictor, source):
    engine = make_engine(predictor, source)
    engine.load("shapes#2", source)
    for ref in (REF, "shapes#2"):
        assert engine.compute(ref, "classify", [Item({"text": "red"})])[0].arrays
    engine.unload(REF)
    with pytest.raises(KeyError):
        engine.compute(REF, "classify", [Item({"text": "red"})])
    assert engine.compute("shapes#2", "classify", [Item({"text": "red"})])[0].arrays


@pytest.mark.parametrize("step", ["warm_up", "probes"])
def test_a_model_that_cannot_be_loaded_is_forgotten(predictor, source, monkeypatch, step):
    def fail(*_arguments):
        raise BundleError("weights.safetensors was altered")

    monkeypatch.setattr(predictor, step, fail)
    engine = Engine(Settings(workers=0), {"shapes": predictor})
    with pytest.raises(BundleError, match="altered"):
        engine.load(REF, source)
    with pytest.raises(KeyError):
        engine.compute(REF, "classify", [Item({"text": "red"})])


def test_a_huge_image_is_predicted_to_take_longer(engine, image_file):
    latency = engine.loaded.latency["classify"]
    huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 8000, 6000)  # only the header is read
    assert latency.item_s(workload({"image": huge})) > 10 * latency.item_s(workload({"image": image_file}))
