"""A batch of one worker: decoded, classified, each item for itself, and nothing computed twice that was kept."""

import struct

import pytest

from app.engine import Engine, Item
from model import InputError, Prediction, load_bundle, workload


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return load_bundle(tiny_bundle, threads=1)


@pytest.fixture
def engine(predictor):
    return Engine({"shapes": predictor}, keep_embeddings=True)


@pytest.fixture(scope="module")
def picture(manifest_folder):
    return (manifest_folder / "images/test-tomato-0.png").read_bytes()


def ask(predictor, parts):
    (prediction,) = predictor.predict([predictor.prepare(parts)])
    return prediction


def test_a_batch_says_what_the_predictor_says_of_each_alone(engine, predictor, picture):
    examples = [{"text": "blue, deep water"}, {"image": picture}, {"image": picture, "text": "red"}]
    answers = engine.compute("shapes", [Item(parts) for parts in examples])
    for answer, parts in zip(answers, examples, strict=True):
        assert answer.outcome.scores == pytest.approx(ask(predictor, parts).scores, abs=1e-5)
        assert answer.outcome.used == set(parts)
        assert answer.embeddings.keys() == set(parts)


def test_what_cannot_be_used_disturbs_no_other(engine, predictor):
    bad, good, nothing = engine.compute("shapes", [Item({"image": b"words"}), Item({"text": "red"}), Item({})])
    assert isinstance(bad.outcome, InputError)
    assert isinstance(nothing.outcome, InputError)
    assert bad.embeddings == {}
    assert good.outcome.scores == pytest.approx(ask(predictor, {"text": "red"}).scores, abs=1e-6)
    (alone,) = engine.compute("shapes", [Item({"image": b"words"})])
    assert isinstance(alone.outcome, InputError)


def test_kept_and_new_embeddings_share_a_batch_without_mixing(engine, predictor, picture):
    (first,) = engine.compute("shapes", [Item({"image": picture, "text": "red"})])
    image, red = first.embeddings["image"], first.embeddings["text"]
    items = [
        Item({"text": "blue, deep water"}),
        Item({}, {"image": image}),
        Item({"text": "ripe fruit"}, {"image": image}),
        Item({}, {"image": image, "text": red}),
        Item({"text": "waves at the coast"}),
    ]
    expected = [
        {"text": "blue, deep water"},
        {"image": picture},
        {"image": picture, "text": "ripe fruit"},
        {"image": picture, "text": "red"},
        {"text": "waves at the coast"},
    ]
    for answer, item, parts in zip(engine.compute("shapes", items), items, expected, strict=True):
        assert answer.outcome.scores == pytest.approx(ask(predictor, parts).scores, abs=1e-5)
        assert answer.outcome.used == set(parts)
        assert answer.embeddings.keys() == set(item.parts)  # what was kept is not computed again


def test_every_answer_tells_what_was_done_for_it_and_how_long_it_took(engine, picture):
    both, text, bad = engine.compute(
        "shapes", [Item({"image": picture, "text": "red"}), Item({"text": "blue"}), Item({"image": b"words"})]
    )
    assert list(both.stages) == ["decode", "encode_image", "encode_text", "fuse"]
    assert list(text.stages) == ["decode", "encode_text", "fuse"]
    assert list(bad.stages) == ["decode"]
    assert text.stages["fuse"] == both.stages["fuse"]  # of the whole batch
    ends = 0.0  # one after the other
    for took in (both.stages["decode"], text.stages["decode"], bad.stages["decode"], *list(both.stages.values())[1:]):
        assert took.after_s >= ends - 1e-6
        assert took.seconds >= 0
        ends = took.after_s + took.seconds


def test_what_was_kept_is_not_encoded(engine, picture):
    (first,) = engine.compute("shapes", [Item({"image": picture})])
    (again,) = engine.compute("shapes", [Item({"text": "red"}, {"image": first.embeddings["image"]})])
    assert list(again.stages) == ["decode", "encode_text", "fuse"]


def test_embeddings_stay_where_they_are_unless_they_are_to_be_kept(predictor):
    (answer,) = Engine({"shapes": predictor}).compute("shapes", [Item({"text": "red"})])
    assert isinstance(answer.outcome, Prediction)
    assert answer.embeddings == {}


def test_warming_up_tells_what_the_models_are_and_how_long_they_take(engine, predictor):
    model = engine.warm_up()["shapes"]
    assert model.description == predictor.description
    assert model.latency.rates.keys() == {"image/jpeg", "image", "text"}
    assert model.latency.item_s({"image": 640 * 480, "text": 5}) > 0


def test_a_huge_picture_is_not_taken_for_a_quick_one(engine, picture):
    latency = engine.warm_up()["shapes"].latency
    huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 8000, 6000)  # its head is all that is looked at
    assert latency.item_s(workload({"image": huge})) > 10 * latency.item_s(workload({"image": picture}))
