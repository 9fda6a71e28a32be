"""POST /v1/similarity: pairs of a query with candidates; and labels that a client names, for POST /v1/classify."""

import base64
import json
import math
import threading

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.app.access.rates import Rate
from polymodal.app.serving import similarity
from tests.app.conftest import ALIGNED
from tests.media import solid

HALF = math.sqrt(0.5)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def match(pair: str, cosine: float, prior: float = 0.5) -> float:
    odds = prior / (1 - prior) * math.exp(ALIGNED[pair]["slope"] * cosine + ALIGNED[pair]["intercept"])
    return pytest.approx(odds / (1 + odds), abs=2e-6)


@pytest.fixture
def aligned(serving, make):
    """`aligned(**settings)`: a service with an aligned model and a plain one."""
    return lambda **changed: serving({"toy": make("toy", aligned=True), "plain": make("plain")}, **changed)


@pytest.fixture
async def client(aligned):
    async with aligned() as client:
        yield client


async def compare(client, query, *candidates, **options) -> httpx.Response:
    return await client.post("/v1/similarity", json={"query": query, "candidates": candidates, **options})


async def test_candidates_are_ranked_by_the_probability_that_they_belong_to_the_query(client):
    answer = await compare(
        client,
        {"text": "red"},
        {"id": "b", "text": "blue"},
        {"text": "red green"},
        {"id": "r", "image": encoded(solid("red"))},
    )
    assert answer.status_code == 200
    body = answer.json()
    assert {name: body[name] for name in ("model", "digest", "modalities", "prior", "failed")} == {
        "model": "toy",
        "digest": "ab" * 32,
        "modalities": ["text"],
        "prior": 0.5,
        "failed": [],
    }
    assert body["pairs"] == [
        {
            "index": 2,
            "id": "r",
            "cosine": 1.0,
            "match": match("image~text", 1.0),
            "threshold": 0.5,
            "selected": True,
            "modalities": ["image"],
        },
        {
            "index": 1,
            "cosine": pytest.approx(HALF, abs=1e-6),
            "match": match("text~text", HALF),
            "threshold": 0.5,
            "selected": True,
            "modalities": ["text"],
        },
        {
            "index": 0,
            "id": "b",
            "cosine": 0.0,
            "match": match("text~text", 0.0),
            "threshold": 0.5,
            "selected": False,
            "modalities": ["text"],
        },
    ]


async def test_a_form_with_two_inputs_is_one_pair(client):
    files = {"image": ("a.png", solid("red"))}
    form = await client.post("/v1/similarity", files=files, data={"text": "red blue", "prior": "0.1"})
    pair = await compare(client, {"image": encoded(solid("red"))}, {"text": "red blue"}, prior=0.1)
    assert form.status_code == 200
    assert form.json() == pair.json()
    assert (form.json()["prior"], form.json()["modalities"]) == (0.1, ["image"])
    (pair,) = form.json()["pairs"]
    assert (pair["match"], pair["modalities"]) == (match("image~text", HALF, prior=0.1), ["text"])


async def test_a_pair_that_was_not_calibrated_has_no_match_and_comes_last(client):
    candidates = ({"image": encoded(solid("red"))}, {"text": "blue"}, {"image": encoded(solid("maroon"))})
    pairs = (await compare(client, {"image": encoded(solid("red"))}, *candidates)).json()["pairs"]
    assert [pair["index"] for pair in pairs] == [1, 0, 2]
    assert [pair.keys() & {"match", "threshold", "selected"} for pair in pairs[1:]] == [set(), set()]
    assert [pair["cosine"] for pair in pairs] == [0.0, 1.0, 1.0]


async def test_each_pair_of_sets_of_modalities_has_its_own_calibration(client):
    both = {"image": encoded(solid("red")), "text": "red"}
    pairs = (await compare(client, {"image": encoded(solid("red"))}, both, {"text": "red"})).json()["pairs"]
    assert [(pair["index"], pair["match"], pair["threshold"]) for pair in pairs] == [
        (1, match("image~text", 1.0), 0.5),
        (0, match("image~image+text", 1.0), 0.4),
    ]


async def test_top_k_limits_the_pairs_and_may_exceed_their_number(client):
    texts = [{"text": "blue"}, {"text": "red"}]
    assert [pair["index"] for pair in (await compare(client, {"text": "red"}, *texts, top_k=1)).json()["pairs"]] == [1]
    assert len((await compare(client, {"text": "red"}, *texts, top_k=9.0)).json()["pairs"]) == 2


async def test_an_input_without_a_direction_has_the_cosine_0(client):
    (pair,) = (await compare(client, {"text": "nothing of these"}, {"text": "red"})).json()["pairs"]
    assert (pair["cosine"], pair["match"]) == (0.0, match("text~text", 0.0))


async def test_a_bad_candidate_fails_alone(client):
    candidates = (
        {"id": "good", "text": "red"},
        {"id": "bad", "image": encoded(b"no picture")},
        {"id": "blank", "text": " "},
        {"id": "odd", "sound": "x"},
        "text",
        {"id": 5, "text": "red"},
        {"id": "nul", "text": "a\0b"},
    )
    body = (await compare(client, {"text": "red"}, *candidates)).json()
    assert [pair["id"] for pair in body["pairs"]] == ["good"]
    assert [(entry["index"], entry.get("id"), entry["status"]) for entry in body["failed"]] == [
        (1, "bad", 415),
        (2, "blank", 422),
        (3, "odd", 400),
        (4, None, 422),
        (5, None, 422),
        (6, "nul", 422),
    ]
    codes = [entry["problem"]["code"] for entry in body["failed"]]
    assert codes[:4] == ["unsupported_format", "nothing_given", "unknown_field", "invalid_parameter"]
    assert (
        body["failed"][3]["problem"]["detail"]
        == 'candidate: "text"; allowed: an object with image, text, audio or several'
    )


async def test_the_problem_of_the_query_is_that_of_the_request(client):
    answer = await compare(client, {"image": encoded(b"no picture")}, {"text": "red"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


async def test_the_problem_of_the_only_candidate_of_a_form_is_that_of_the_request(client):
    answer = await client.post("/v1/similarity", files={"image": solid("red")}, data={"text": " "})
    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_given")


QUERY = {"query": {"text": "red"}}
ONE = {**QUERY, "candidates": [{"text": "red"}]}


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        pytest.param(QUERY, 422, "invalid_parameter", "candidates: null; allowed: a list of at least one", id="none"),
        pytest.param(
            {**QUERY, "candidates": []},
            422,
            "invalid_parameter",
            "candidates: a list of 0; allowed: a list",
            id="empty",
        ),
        pytest.param(
            {"candidates": [{"text": "red"}]},
            422,
            "invalid_parameter",
            "query: null; allowed: an object with image, text, audio or several",
            id="no-query",
        ),
        pytest.param({**ONE, "query": "red"}, 422, "invalid_parameter", 'query: "red"; allowed: an object', id="text"),
        pytest.param({**ONE, "query": {}}, 422, "nothing_given", "at least one of image, text", id="empty-query"),
        pytest.param({**ONE, "query": {"id": "a"}}, 400, "unknown_field", 'field "id"; allowed: image, text', id="id"),
        pytest.param(
            {**QUERY, "candidates": [{"id": "a", "text": "x"}, {"text": "y"}, {"id": "a", "text": "z"}]},
            422,
            "invalid_parameter",
            'candidates: id "a" at positions 0 and 2; allowed: each id once',
            id="repeated-id",
        ),
        pytest.param(
            {**QUERY, "candidates": [{"text": "red"}] * 65},
            422,
            "too_many_items",
            "candidates: 65 items; allowed: up to 64 items",
            id="too-many",
        ),
        pytest.param(
            {**ONE, "top_k": 0}, 422, "invalid_parameter", "top_k: 0; allowed: an integer of at least 1", id="k"
        ),
        pytest.param(
            {**ONE, "prior": 0}, 422, "invalid_parameter", "prior: 0; allowed: a number between 0 and 1", id="0"
        ),
        pytest.param(
            {**ONE, "prior": 1}, 422, "invalid_parameter", "prior: 1; allowed: a number between 0 and 1", id="1"
        ),
        pytest.param({**ONE, "prior": "x"}, 422, "invalid_parameter", 'prior: "x"; allowed: a number', id="no-number"),
        pytest.param(
            {**ONE, "threshold": 1},
            400,
            "unknown_field",
            'field "threshold"; allowed: top_k, prior, model, query, candidates',
            id="another-option",
        ),
        pytest.param({**ONE, "model": "x"}, 404, "unknown_model", 'model: "x"; allowed: toy, plain', id="model"),
        pytest.param(
            {**ONE, "model": "plain"},
            404,
            "unknown_task",
            'model: "plain", which has no aligned vectors to compare; allowed: toy',
            id="not-aligned",
        ),
    ],
)
async def test_a_request_that_cannot_be_answered_is_rejected_with_what_is_allowed(client, body, status, code, detail):
    answer = await client.post("/v1/similarity", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert detail in answer.json()["detail"]


async def test_without_an_aligned_model_the_problem_states_that_none_is_served(serving):
    async with serving() as client:
        answer = await client.post("/v1/similarity", json=ONE)
    assert answer.json()["detail"].endswith("allowed: a model with aligned vectors, of which none is served")


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        pytest.param({"text": (None, "red")}, "form: the inputs text; allowed: two of image, text", id="one-input"),
        pytest.param({"model": (None, "toy")}, "form: no inputs; allowed: two of image, text", id="no-input"),
    ],
)
async def test_a_form_has_exactly_two_inputs(client, form, detail):
    answer = await client.post("/v1/similarity", files=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert detail in answer.json()["detail"]


async def test_query_and_candidates_count_towards_the_rate_limit(aligned):
    async with aligned(rate_limit_per_address=Rate(5, 3600)) as client:
        answers = [await compare(client, {"text": "red"}, {"text": "red"}, {"text": "blue"}) for _ in range(2)]
        many = await compare(client, {"text": "red"}, *[{"text": "red"}] * 5)
    assert [answer.status_code for answer in answers] == [200, 429]
    assert (many.status_code, many.json()["code"]) == (422, "too_many_items")


async def test_a_query_that_is_not_embedded_in_time_is_reported(serving, make, runtime):
    async with serving({"toy": make("toy", runtime=runtime, aligned=True)}) as client:
        runtime.may_go.clear()
        late = await client.post("/v1/similarity", json=ONE, headers={"X-Request-Timeout-Ms": "50"})
        runtime.may_go.set()
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")


async def test_a_failure_of_a_candidate_is_logged_and_its_message_is_secret(client, logs):
    body = (await compare(client, {"text": "blue"}, {"text": "red " * 5}, {"text": "blue"})).json()
    assert body["failed"][0]["problem"]["code"] == "internal_error"
    assert "secret" not in str(body)
    assert [entry["index"] for entry in logs if entry["event"] == "item_failed"] == [0]


# --- properties ---

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "other"]), min_size=1, max_size=4).map(" ".join)
SIDES = st.fixed_dictionaries({"text": WORDS}, optional={"image": st.sampled_from(["red", "teal", "lime", "navy"])}) | (
    st.fixed_dictionaries({"image": st.sampled_from(["red", "teal", "olive"])})
)
PROPERTY = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def in_json(side):
    return {name: encoded(solid(value)) if name == "image" else value for name, value in side.items()}


async def fused(client, side):
    return (await client.post("/v1/embed", json={**side, "fused": True, "space": "aligned"})).json()["fused"]


@given(query=SIDES, candidates=st.lists(SIDES, min_size=1, max_size=4), data=st.data())
@PROPERTY
async def test_similarity_is_the_product_of_embeddings_whatever_the_order_and_the_number_of_candidates(
    client, query, candidates, data
):
    query, candidates = in_json(query), [in_json(side) for side in candidates]
    together = (await compare(client, query, *candidates)).json()["pairs"]
    by_index = {pair.pop("index"): pair for pair in together}
    order = data.draw(st.permutations(range(len(candidates))))
    shuffled = (await compare(client, query, *(candidates[number] for number in order))).json()["pairs"]
    assert {order[pair.pop("index")]: pair for pair in shuffled} == by_index
    one = await fused(client, query)
    for index, candidate in enumerate(candidates):
        (alone,) = (await compare(client, query, candidate)).json()["pairs"]
        assert {name: value for name, value in alone.items() if name != "index"} == by_index[index]
        product = sum(a * b for a, b in zip(one, await fused(client, candidate), strict=True))
        assert alone["cosine"] == pytest.approx(product, abs=1e-6)


@given(one=SIDES, other=SIDES, prior=st.floats(0.01, 0.99))
@PROPERTY
async def test_query_and_candidate_may_change_places(client, one, other, prior):
    one, other = in_json(one), in_json(other)
    there = (await compare(client, one, other, prior=prior)).json()["pairs"][0]
    back = (await compare(client, other, one, prior=prior)).json()["pairs"][0]
    assert {**there, "modalities": None} == {**back, "modalities": None}


# --- labels that a client names ---


async def labels(client, **body) -> list[tuple[str, float, bool]]:
    answer = await client.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.json()
    return [(entry["label"], entry["score"], entry["selected"]) for entry in answer.json()["labels"]]


async def test_candidate_labels_are_scored_each_by_itself(client):
    expected = [("red", match("image~text", 1.0), True), ("blue", match("image~text", 0.0), False)]
    assert await labels(client, image=encoded(solid("red")), candidate_labels=["blue", "red"]) == expected
    assert await labels(client, image=encoded(solid("red")), candidate_labels=["red"]) == expected[:1]


@pytest.mark.parametrize("path", ["similarity", "classify", "classify/batch"])
async def test_vectors_are_compared_outside_the_event_loop(client, monkeypatch, path):
    bodies = {
        "similarity": {"query": {"text": "red"}, "candidates": [{"text": "red"}]},
        "classify": {"text": "red", "candidate_labels": ["red"]},
        "classify/batch": {"items": [{"text": "red"}, {"text": "blue"}], "candidate_labels": ["red"]},
    }
    threads, cosines = [], similarity.cosines
    monkeypatch.setattr(
        similarity, "cosines", lambda *vectors: threads.append(threading.current_thread()) or cosines(*vectors)
    )
    assert (await client.post(f"/v1/{path}", json=bodies[path])).status_code == 200
    assert threads
    assert threading.current_thread() not in threads


async def test_the_other_options_of_classify_hold_for_candidate_labels(client):
    body = {"text": "red", "candidate_labels": ["blue", "red", "red green"]}
    assert [name for name, *_ in await labels(client, **body)] == ["red", "red green", "blue"]
    assert [name for name, *_ in await labels(client, **body, top_k=1)] == ["red"]
    assert [name for name, *_ in await labels(client, **body, threshold=0.5)] == ["red", "red green"]
    assert await labels(client, **body, prior=0.1, top_k=1) == [("red", match("text~text", 1.0, prior=0.1), True)]


async def test_candidate_labels_need_no_target_of_the_model(serving, make):
    async with serving({"price": make("price", task="regression", aligned=True)}) as client:
        assert [name for name, *_ in await labels(client, text="red", candidate_labels=["blue", "red"])] == [
            "red",
            "blue",
        ]


async def test_a_form_has_candidate_labels_as_json(client):
    data = {"candidate_labels": '["blue", "red"]', "text": "red"}
    body = {"text": "red", "candidate_labels": ["blue", "red"]}
    form = await client.post("/v1/classify", files={"model": (None, "toy")}, data=data)
    assert form.json() == (await client.post("/v1/classify", json=body)).json()
    typed = {"candidate_labels": (None, '["blue", "red"]', "application/json"), "text": (None, "red")}
    assert (await client.post("/v1/classify", files=typed)).json() == form.json()


async def test_a_batch_is_scored_as_its_items_alone(client):
    items = [{"id": "a", "text": "red"}, {"id": "b", "image": encoded(b"no")}, {"image": encoded(solid("lime"))}]
    body = {"items": items, "candidate_labels": ["green", "red"]}
    answers = (await client.post("/v1/classify/batch", json=body)).json()["items"]
    assert [item["status"] for item in answers] == [200, 415, 200]
    for item, answer in zip(items, answers, strict=True):
        if answer["status"] == 200:
            alone = {**item, "candidate_labels": body["candidate_labels"]}
            alone.pop("id", None)
            assert (await client.post("/v1/classify", json=alone)).json() == answer["classification"]


@pytest.mark.parametrize(
    ("options", "status", "detail"),
    [
        pytest.param({"candidate_labels": []}, 422, "candidate_labels: a list of 0; allowed: a list of at", id="empty"),
        pytest.param(
            {"candidate_labels": "red"}, 422, 'candidate_labels: "red"; allowed: a list of at least', id="text"
        ),
        pytest.param(
            {"candidate_labels": ["red", 5]}, 422, "candidate_labels: 5; allowed: a list of at least", id="number"
        ),
        pytest.param(
            {"candidate_labels": ["red", ""]}, 422, 'candidate_labels: ""; allowed: a list of', id="empty-label"
        ),
        pytest.param(
            {"candidate_labels": ["red", " "]},
            422,
            "candidate_labels: a blank label at position 1; allowed:",
            id="blank",
        ),
        pytest.param(
            {"candidate_labels": ["\ud800"]}, 400, "candidate_labels: half of a surrogate pair", id="surrogate"
        ),
        pytest.param(
            {"candidate_labels": ["a\0"]},
            422,
            "candidate_labels: a NUL character at position 1 in the label at position 0",
            id="nul",
        ),
        pytest.param(
            {"candidate_labels": ["red", "red"]}, 422, 'candidate_labels: the label "red" twice; allowed:', id="twice"
        ),
        pytest.param(
            {"candidate_labels": [str(n) for n in range(65)]},
            422,
            "candidate_labels: 65 items; allowed: up to 64 items",
            id="too-many",
        ),
        pytest.param(
            {"candidate_labels": ["red"], "top_k": 2}, 422, "top_k: 2; allowed: an integer from 1 to 1", id="k"
        ),
        pytest.param({"prior": 0.5}, 422, "prior: 0.5; allowed: nothing without candidate_labels", id="prior-alone"),
        pytest.param(
            {"candidate_labels": ["red"], "model": "plain"}, 404, 'model: "plain", which has no aligned', id="plain"
        ),
        pytest.param(
            {"candidate_labels": ["red"], "image": encoded(solid("red"))},
            422,
            "candidate_labels: labels for image and text, whose similarity with texts was not calibrated; allowed: a pair of",
            id="not-calibrated",
        ),
    ],
)
async def test_candidate_labels_that_cannot_be_scored_are_rejected(client, options, status, detail):
    answer = await client.post(
        "/v1/classify",
        content=json.dumps({"text": "red", **options}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
