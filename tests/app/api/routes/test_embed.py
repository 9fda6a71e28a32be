"""POST /v1/embed and /v1/embed/batch: a vector of unit length for each input."""

import base64
import math

import pytest

HALF = round(math.sqrt(0.5), 7)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def test_each_input_gets_its_own_vector(client, solid):
    answer = await client.post("/v1/embed", files={"image": solid("blue")}, data={"text": "red red green green"})
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "toy",
        "digest": "ab" * 32,
        "modalities": ["image", "text"],
        "space": "classifier",
        "aligned": False,
        "embeddings": {"image": [0.0, 0.0, 1.0], "text": [HALF, HALF, 0.0]},
    }


async def test_the_vector_of_an_input_does_not_depend_on_the_others(client, solid):
    both = (await client.post("/v1/embed", json={"image": encoded(solid("teal")), "text": "red red green"})).json()
    image = (await client.post("/v1/embed", json={"image": encoded(solid("teal")), "text": " "})).json()
    text = (await client.post("/v1/embed", json={"text": "red red green"})).json()
    assert both["embeddings"] == image["embeddings"] | text["embeddings"]
    assert (image["modalities"], text["modalities"]) == (["image"], ["text"])


async def test_an_input_without_a_direction_stays_zero(client):
    answer = await client.post("/v1/embed", json={"text": "nothing of these"})
    assert answer.json()["embeddings"] == {"text": [0.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        pytest.param({}, 422, "nothing_given", "at least one of image, text", id="nothing"),
        pytest.param(
            {"text": "red", "top_k": 1},
            400,
            "unknown_field",
            'body: field "top_k"; allowed: image, text, audio, space, fused, model',
            id="an-option-of-another-task",
        ),
        pytest.param({"text": "red", "model": "x"}, 404, "unknown_model", 'model: "x"; allowed: toy', id="model"),
    ],
)
async def test_a_bad_request_is_rejected_as_by_classify(client, body, status, code, detail):
    answer = await client.post("/v1/embed", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert detail in answer.json()["detail"]


async def test_the_model_is_chosen_by_name_whatever_its_target(serving, make):
    predictors = {"one": make("one"), "price": make("price", task="regression")}
    async with serving(predictors) as client:
        default = (await client.post("/v1/embed", json={"text": "red"})).json()
        chosen = (await client.post("/v1/embed", json={"text": "red", "model": "price"})).json()
    assert (default["model"], chosen["model"]) == ("one", "price")
    assert default["embeddings"] == chosen["embeddings"]


async def test_a_bad_item_of_a_batch_fails_alone(client, solid):
    items = [
        {"id": "a", "text": "red"},
        {"id": "b", "image": encoded(b"no picture")},
        {"image": encoded(solid("lime")), "text": "blue"},
        {"id": "d", "text": " "},
    ]
    answers = (await client.post("/v1/embed/batch", json={"items": items})).json()["items"]
    assert [item["status"] for item in answers] == [200, 415, 200, 422]
    assert [item.get("id") for item in answers] == ["a", "b", None, "d"]
    assert answers[0]["embedding"]["embeddings"] == {"text": [1.0, 0.0, 0.0]}
    assert answers[2]["embedding"]["embeddings"] == {"image": [0.0, 1.0, 0.0], "text": [0.0, 0.0, 1.0]}
    assert [item["problem"]["code"] for item in (answers[1], answers[3])] == ["unsupported_format", "nothing_given"]


@pytest.fixture
def aligned(serving, make):
    return serving({"toy": make("toy", aligned=True), "plain": make("plain")})


async def test_vectors_of_different_modalities_are_aligned_by_default_where_the_model_has_them(aligned, solid):
    async with aligned as client:
        body = {"image": encoded(solid("red")), "text": "red green"}
        default = (await client.post("/v1/embed", json=body)).json()
        own = (await client.post("/v1/embed", json=body | {"space": "classifier"})).json()
        plain = (await client.post("/v1/embed", json=body | {"model": "plain"})).json()
        model = (await client.get("/v1/models/toy")).json()
    assert (default["space"], default["aligned"]) == ("aligned", True)
    assert (own["space"], own["aligned"]) == (plain["space"], plain["aligned"]) == ("classifier", False)
    assert "fused" not in default
    assert model["embeddings"]["spaces"] == {"aligned": 3, "classifier": 3}
    assert model["embeddings"]["matches"] == ["image~image+text", "image~text", "text~text"]


async def test_the_fused_vector_is_the_mean_of_unit_vectors_at_length_1(aligned, solid):
    form = {"text": "green", "fused": "true"}
    async with aligned as client:
        both = (await client.post("/v1/embed", files={"image": solid("red")}, data=form)).json()
        text = (await client.post("/v1/embed", json={"text": "green green blue", "fused": True})).json()
    assert both["fused"] == [HALF, HALF, 0.0]
    assert text["fused"] == text["embeddings"]["text"]


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        pytest.param({"space": "else"}, "space: else; allowed: aligned or classifier", id="unknown"),
        pytest.param({"space": "aligned", "model": "plain"}, "space: aligned; allowed: classifier", id="not-there"),
        pytest.param({"fused": True, "model": "plain"}, "fused: true; allowed: false in a space", id="fused"),
        pytest.param({"fused": "yes"}, 'fused: "yes"; allowed: true or false', id="no-boolean"),
    ],
)
async def test_a_space_that_the_model_lacks_is_rejected(aligned, options, detail):
    async with aligned as client:
        answer = await client.post("/v1/embed", json={"text": "red", **options})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert detail in answer.json()["detail"]


async def test_the_stages_of_an_answer_do_not_include_fuse(client):
    timing = (await client.post("/v1/embed", json={"text": "red"})).headers["Server-Timing"]
    assert [stage.split(";dur=")[0] for stage in timing.split(", ")] == ["read", "queue", "decode", "encode_text"]
