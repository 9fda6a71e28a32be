"""Searches: what is sent, and how the answers are read."""

import json

import httpx
import pytest

from polymodal_client import Hit, Index, IndexOfAnotherModel, SearchAnswer, UnexpectedAnswer, UnknownIndex
from tests.app.conftest import write_toy_index
from tests.client.toy_service import problem

HIT = {"id": "a", "cosine": 1, "match": 0.5, "modalities": ["text"], "metadata": {"shade": "red", "words": 1}}
ANSWER = {"index": "things", "model": "toy", "digest": "ab", "modalities": ["text"], "prior": 0.5, "hits": [HIT]}


def test_a_search_by_words_is_json(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER, headers={"X-Request-Id": "mine"}))
    options = {"index": "things", "top_k": 3, "filter": {"shade": "red", "words": 1}, "min_match": 0.1, "prior": 0.5}
    answer = both.call(service, "search", text="red", request_id="mine", **options)
    assert json.loads(service.seen[0].content) == {**options, "query": {"text": "red"}}
    hit = Hit("a", 1.0, 0.5, ("text",), {"shade": "red", "words": 1})
    assert answer == SearchAnswer("things", "toy", "ab", ("text",), 0.5, (hit,), request_id="mine")


def test_a_search_with_a_file_is_a_form(both, scripted):
    service = scripted(httpx.Response(200, json=ANSWER))
    both.call(service, "search", b"image", "red", filter={"new": True}, top_k=2)
    content = service.seen[0].content
    assert service.seen[0].headers["content-type"].startswith("multipart/form-data")
    for field, value in (("text", "red"), ("filter", '{"new": true}'), ("top_k", "2")):
        assert f'name="{field}"\r\n\r\n{value}\r\n'.encode() in content


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"index": 5}, "index: int; allowed: a name of indexes"),
        ({"filter": "shade=red"}, "filter: str; allowed: a mapping"),
        ({"filter": {"shade": ["red"]}}, "filter: shade: list; allowed: a number"),
        ({"top_k": 1.5}, "top_k: 1.5; allowed: a whole number"),
        ({"prior": "0.5"}, "prior: str; allowed: a number"),
    ],
    ids=str,
)
def test_an_option_of_another_type_is_refused_before_anything_is_sent(both, scripted, options, error):
    service = scripted(httpx.Response(200, json=ANSWER))
    with pytest.raises((TypeError, ValueError), match=error):
        both.call(service, "search", text="red", **options)
    assert service.seen == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "unknown_index", UnknownIndex), (409, "index_of_another_model", IndexOfAnotherModel)],
)
def test_problems_of_indexes_have_their_own_errors(both, scripted, status, code, kind):
    with pytest.raises(kind):
        both.call(scripted(problem(status, code)), "search", text="red")


@pytest.mark.parametrize("changed", [{"hits": None}, {"hits": [{}]}, {"prior": "x"}], ids=str)
def test_another_answer_is_not_read_as_a_search(both, scripted, changed):
    with pytest.raises(UnexpectedAnswer):
        both.call(scripted(httpx.Response(200, json=ANSWER | changed)), "search", text="red")


def test_the_real_service_answers_both_forms(both, listening, make, solid, tmp_path):
    index = write_toy_index(tmp_path / "things")
    with listening({"toy": make(aligned=True)}, indexes=(index,)) as service:
        by_words = both.call(None, "search", text="red", filter={"words": 2}, url=service.url)
        by_image = both.call(
            None, "search", solid("blue"), top_k=1, min_match=0.5, filter={"shade": "blue"}, url=service.url
        )
        (listed,) = both.call(None, "indexes", url=service.url)
    assert [hit.id for hit in by_words.hits] == ["b"]
    assert [(hit.id, hit.cosine) for hit in by_image.hits] == [("c", 1.0)]
    filters = ("text", "shade", "words", "modalities")
    assert listed == Index("things", 3, "ab" * 32, "toy", filters, usable=True)
