"""POST /rerank, /v1/rerank and /v2/rerank, as the clients of TEI, Cohere, Jina and infinity send and read them."""

import base64
import math

import pytest

from tests.media import solid

HALF = math.sqrt(0.5)
TEXTS = ["blue", "red", "red green"]


def score(cosine: float) -> float:
    return pytest.approx(1 / (1 + math.exp(10 - 20 * cosine)), abs=2e-6)


@pytest.fixture
async def client(serving, make):
    models = {"toy": make("toy", aligned=True), "plain": make("plain"), "empty": make("empty", aligned=True)}
    async with serving(models) as client:
        yield client


async def rerank(client, path="/rerank", **body):
    return await client.post(path, json={"query": "red", **body})


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_texts_are_answered_with_a_list_and_documents_with_an_object(client, path):
    texts = await rerank(client, path, texts=TEXTS)
    assert texts.json() == [
        {"index": 1, "score": score(1.0)},
        {"index": 2, "score": score(HALF)},
        {"index": 0, "score": score(0.0)},
    ]
    answer = await client.post(
        path, json={"query": "red", "documents": TEXTS, "top_n": 2, "model": "toy"}, headers={"X-Request-Id": "mine"}
    )
    assert answer.json() == {
        "id": "mine",
        "model": "toy",
        "digest": "ab" * 32,
        "results": [{"index": 1, "relevance_score": score(1.0)}, {"index": 2, "relevance_score": score(HALF)}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


async def test_texts_come_back_on_request(client):
    texts = (await rerank(client, texts=TEXTS, return_text=True)).json()
    assert [entry["text"] for entry in texts] == ["red", "red green", "blue"]
    documents = ["blue", {"text": "red"}]
    results = (await rerank(client, documents=documents, return_documents=True)).json()["results"]
    assert [entry["document"] for entry in results] == [{"text": "red"}, {"text": "blue"}]


async def test_raw_scores_are_cosines_and_need_no_calibration(client):
    image = base64.b64encode(solid("red")).decode()
    body = {"query": {"image": image}, "documents": [{"image": image}, "red green", {"text": "blue"}]}
    results = (await rerank(client, **body, raw_scores=True)).json()["results"]
    assert [(entry["index"], entry["relevance_score"]) for entry in results] == [
        (0, 1.0),
        (1, pytest.approx(HALF, abs=1e-6)),
        (2, 0.0),
    ]
    refused = await rerank(client, **body)
    assert refused.json()["detail"] == (
        "documents[0]: the pair image~image, for which this model has no calibrated scores; "
        "allowed: image~image+text, image~text, text~text; or raw_scores true, for cosines"
    )


async def test_fields_without_effect_are_named_in_a_header(client):
    answer = await rerank(client, texts=TEXTS, truncate=True, truncation_direction="Right")
    assert (answer.status_code, answer.headers["X-Ignored-Fields"]) == (200, "truncate, truncation_direction")
    assert "X-Ignored-Fields" not in (await rerank(client, texts=TEXTS)).headers


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        pytest.param({}, 422, "documents: none; allowed: a list, as either documents or texts", id="neither"),
        pytest.param({"texts": ["a"], "documents": ["a"]}, 422, "documents: next to texts; allowed: a list", id="both"),
        pytest.param({"texts": []}, 422, "texts: a list of 0; allowed: a list of 1 to 1,000 texts", id="empty"),
        pytest.param({"texts": "red"}, 422, 'texts: "red"; allowed: a list of 1 to 1,000', id="a-text"),
        pytest.param({"texts": ["a"] * 1001}, 422, "texts: 1,001 documents; allowed: up to 1,000", id="too-many"),
        pytest.param(
            {"texts": ["red", 5]}, 422, "texts[1]: 5; allowed: a text, or an object with image or text", id="5"
        ),
        pytest.param({"texts": ["red", " "]}, 422, "texts[1]: nothing, or only a blank text", id="blank"),
        pytest.param({"texts": ["red", "a\0"]}, 422, "texts[1]: text: a NUL character", id="nul"),
        pytest.param(
            {"documents": [{"image": "bm8="}]}, 415, "documents[0]: image: bytes of no known picture", id="image"
        ),
        pytest.param(
            {"documents": [{"image": "http://a.b/c.png"}]},
            422,
            "documents[0]: image: a URL of the scheme http; allowed: the file itself",
            id="url",
        ),
        pytest.param({"documents": [{"title": "x"}]}, 400, 'documents[0]: body: field "title"', id="unknown-input"),
        pytest.param({"query": " ", "texts": ["red"]}, 422, "query: nothing, or only a blank text", id="blank-query"),
        pytest.param(
            {"query": None, "texts": ["red"]}, 422, "query: null; allowed: a text, or an object", id="no-query"
        ),
        pytest.param({"texts": ["red"], "top_n": 0}, 422, "top_n: 0; allowed: an integer of at least 1", id="top-n"),
        pytest.param({"texts": ["red"], "raw_scores": "x"}, 422, 'raw_scores: "x"; allowed: true or false', id="flag"),
        pytest.param({"texts": ["red"], "rank_fields": ["a"]}, 400, 'body: field "rank_fields"; allowed:', id="field"),
        pytest.param({"texts": ["red"], "model": "plain"}, 404, "which has no aligned vectors to compare", id="plain"),
        pytest.param({"texts": ["red"], "model": "x"}, 404, 'model: "x"; allowed: toy, plain', id="model"),
    ],
)
async def test_a_problem_is_what_the_clients_of_each_api_read(client, body, status, detail):
    tei = await rerank(client, **body)
    assert tei.status_code == status
    assert detail in tei.json()["detail"]
    assert tei.json()["error"] == tei.json()["message"] == tei.json()["detail"]
    assert tei.json()["error_type"] == tei.json()["code"]
    cohere = await rerank(client, "/v2/rerank", **body)
    assert cohere.status_code == (400 if status in (415, 422) else status)
    assert cohere.json()["message"] == cohere.json()["error"]["message"] == tei.json()["detail"]


async def test_each_dialect_can_be_switched_off(serving):
    async with serving(dialects=("tei",)) as client:
        assert (await client.post("/v1/rerank", json={})).status_code == 404
        assert (await client.post("/rerank", json={})).status_code == 422
    async with serving(dialects=("cohere",)) as client:
        assert (await client.post("/rerank", json={})).status_code == 404


async def test_the_examples_of_requests_are_accepted(client):
    document = (await client.get("/openapi.json")).json()
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            assert (await client.post(path, json=example["value"])).status_code == 200
