"""The calls about aligned vectors, against a real service: similarity, labels of the client, and embeddings in a space."""

import math

import httpx
import pytest

from polymodal_client import (
    FailedCandidate,
    InvalidInput,
    InvalidRequest,
    Item,
    NotFound,
    Pair,
    Similarity,
    UnexpectedAnswer,
)

HALF = math.sqrt(0.5)
ANSWER = {
    "model": "toy",
    "digest": "ab",
    "modalities": ["text"],
    "prior": 0.5,
    "pairs": [{"index": 1, "cosine": 1, "match": 0.9, "selected": True, "threshold": 0.5, "modalities": ["image"]}],
    "failed": [{"index": 0, "status": 415, "problem": {"status": 415, "code": "unsupported_format"}}],
}


@pytest.fixture
def aligned(listening, make):
    with listening({"toy": make("toy", aligned=True), "plain": make("plain")}) as service:
        yield service


def test_candidates_are_compared_in_one_request_and_keep_their_ids(both, aligned, solid):
    candidates = [
        {"text": "blue", "id": "b"},
        Item(image=solid("red"), id=7),
        {"image": b"no picture", "id": "bad"},
        {"text": "red green"},
    ]
    answer = both.call(
        None, "similarity", {"text": "red"}, iter(candidates), prior=0.2, request_id="mine", url=aligned.url
    )
    assert (answer.model, answer.modalities, answer.prior, answer.request_id) == ("toy", ("text",), 0.2, "mine")
    assert [(pair.index, pair.id, pair.modalities) for pair in answer.pairs] == [
        (1, 7, ("image",)),
        (3, None, ("text",)),
        (0, "b", ("text",)),
    ]
    assert answer.best.cosine == 1.0
    assert answer.best.match == pytest.approx(0.25 * math.exp(5) / (1 + 0.25 * math.exp(5)), abs=2e-6)
    assert (answer.best.selected, answer.best.threshold) == (True, 0.5)
    (failed,) = answer.failed
    assert (failed.index, failed.id, type(failed.error)) == (2, "bad", InvalidInput)


def test_top_k_limits_the_pairs(both, aligned):
    answer = both.call(None, "similarity", {"text": "red"}, [{"text": "red"}] * 3, top_k=2, url=aligned.url)
    assert [pair.index for pair in answer.pairs] == [0, 1]


def test_a_pair_that_was_not_calibrated_has_no_match(both, aligned, solid):
    answer = both.call(None, "similarity", Item(solid("red")), [Item(solid("red"))], url=aligned.url)
    assert answer.best == Pair(0, None, 1.0, None, None, ("image",))


def test_an_answer_is_read(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER, headers={"X-Request-Id": "mine"}))
    answer = both.call(service, "similarity", {"text": "a"}, [{"text": "b", "id": "b"}, {"text": "c", "id": "c"}])
    (failed,) = answer.failed
    pairs = (Pair(1, "c", 1.0, 0.9, True, ("image",), 0.5),)
    assert answer == Similarity("toy", "ab", ("text",), 0.5, pairs, (FailedCandidate(0, "b", failed.error),), "mine")


@pytest.mark.parametrize(
    "changed",
    [{"pairs": None}, {"pairs": [{"index": 5}]}, {"failed": [{"index": 0}]}, {"prior": None}],
    ids=str,
)
def test_another_answer_is_not_read(both, scripted, changed):
    with pytest.raises(UnexpectedAnswer):
        both.call(scripted(httpx.Response(200, json=ANSWER | changed)), "similarity", {"text": "a"}, [{}, {}])


def test_without_pairs_there_is_no_best_one(both, scripted):
    answer = both.call(scripted(httpx.Response(200, json=ANSWER | {"pairs": []})), "similarity", {}, [{}, {}])
    with pytest.raises(LookupError, match="every candidate failed"):
        _ = answer.best


@pytest.mark.parametrize(
    ("query", "candidates", "options", "message"),
    [
        pytest.param({"text": "a"}, {"text": "b"}, {}, "candidates: dict; allowed: an iterable of Items", id="one"),
        pytest.param("a", [{"text": "b"}], {}, "item: str; allowed: an Item, or a mapping", id="query"),
        pytest.param({"text": "a"}, ["b"], {}, "item: str; allowed: an Item, or a mapping", id="candidate"),
        pytest.param({"text": "a"}, [{}], {"prior": "x"}, "prior: str; allowed: a number", id="prior"),
        pytest.param({"text": "a"}, [{}], {"top_k": "x"}, "top_k: str; allowed: a whole number", id="top-k"),
    ],
)
def test_what_cannot_be_sent_is_a_type_error(both, scripted, query, candidates, options, message):
    with pytest.raises(TypeError, match=message):
        both.call(scripted(httpx.Response(200, json=ANSWER)), "similarity", query, candidates, **options)


def test_problems_of_the_request_are_raised(both, aligned):
    with pytest.raises(InvalidInput, match="neither of the inputs"):
        both.call(None, "similarity", {}, [{"text": "red"}], url=aligned.url)
    with pytest.raises(InvalidRequest, match="up to 64 items"):
        both.call(None, "similarity", {"text": "red"}, [{"text": "red"}] * 65, url=aligned.url)
    with pytest.raises(NotFound, match="which has no aligned vectors to compare; allowed: toy"):
        both.call(None, "similarity", {"text": "red"}, [{"text": "red"}], model="plain", url=aligned.url)


@pytest.mark.parametrize("with_file", [False, True], ids=["json", "form"])
def test_labels_of_the_client_are_scored(both, aligned, solid, with_file):
    inputs = {"image": solid("red")} if with_file else {"text": "red"}
    labels = ("blue", "red, and other", "red")
    answer = both.call(None, "classify", **inputs, candidate_labels=labels, prior=0.5, top_k=2, url=aligned.url)
    assert [entry.label for entry in answer.labels] == ["red, and other", "red"]
    assert all(entry.selected for entry in answer.labels)
    (item,) = both.call(None, "classify_batch", [inputs], candidate_labels=labels, top_k=2, url=aligned.url)
    assert item.result().labels == answer.labels


@pytest.mark.parametrize("labels", ["red", [], [5], 5], ids=str)
def test_other_labels_than_texts_are_a_type_error(both, scripted, labels):
    with pytest.raises(TypeError, match=r"candidate_labels: .*; allowed: an iterable of at least one text"):
        both.call(scripted(httpx.Response(200, json={})), "classify", text="red", candidate_labels=labels)


@pytest.mark.parametrize("with_file", [False, True], ids=["json", "form"])
def test_a_space_and_one_vector_for_all_inputs_may_be_chosen(both, aligned, solid, with_file):
    inputs = {"image": solid("red"), "text": "green"} if with_file else {"text": "green"}
    answer = both.call(None, "embed", **inputs, space="aligned", fused=True, url=aligned.url)
    assert (answer.space, answer.aligned) == ("aligned", True)
    assert answer.vector == answer.fused == pytest.approx((HALF, HALF, 0.0) if with_file else (0.0, 1.0, 0.0))
    own = both.call(None, "embed", text="green", space="classifier", fused=False, url=aligned.url)
    assert (own.space, own.aligned, own.fused) == ("classifier", False, None)
    (item,) = both.call(None, "embed_batch", [inputs], space="aligned", fused=True, url=aligned.url)
    assert item.result().fused == answer.fused


def test_options_of_another_type_are_a_type_error(both, scripted):
    for options, message in (({"space": 5}, "space: int"), ({"fused": "yes"}, "fused: str; allowed: True or False")):
        with pytest.raises(TypeError, match=message):
            both.call(scripted(httpx.Response(200, json={})), "embed", text="red", **options)
