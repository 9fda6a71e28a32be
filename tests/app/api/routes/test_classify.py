import asyncio
import base64
import math

import pytest


def text(words):
    return {"text": words}


async def wait_for_requests(client, number):
    """Wait until this number of requests is in the service."""
    service = client._transport.app.state.service
    for _ in range(1000):
        if service.inside >= number:
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"{service.inside} requests instead of {number}")


async def test_a_form_with_an_image_and_a_text_is_classified_by_both(client, solid):
    answer = await client.post("/v1/classify", files={"image": solid("red")}, data={"text": "a red thing"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["digest"], body["modalities"]) == ("toy", "ab" * 32, ["image", "text"])
    assert body["labels"][0]["label"] == "red"
    # The image and the text each add one red: logits (2, 0, 0).
    assert body["labels"][0]["score"] == pytest.approx(math.exp(2) / (math.exp(2) + 2), rel=1e-3)


@pytest.mark.parametrize(
    ("request_", "modalities", "best"),
    [
        pytest.param({"json": text("something blue")}, ["text"], "blue", id="json-text"),
        pytest.param({"files": {"text": (None, "green")}}, ["text"], "green", id="form-text"),
        pytest.param({"files": {"text": ("caption.txt", b"green")}}, ["text"], "green", id="text-as-a-file"),
    ],
)
async def test_either_modality_may_be_missing(client, request_, modalities, best):
    body = (await client.post("/v1/classify", **request_)).json()
    assert (body["modalities"], body["labels"][0]["label"]) == (modalities, best)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        pytest.param({}, 3, id="all"),
        pytest.param({"top_k": 1}, 1, id="top_k"),
        pytest.param({"threshold": 0.5}, 1, id="threshold"),
        pytest.param({"threshold": 1}, 0, id="above-all-scores"),
        pytest.param({"top_k": 2, "threshold": 0.0}, 2, id="both"),
        pytest.param({"top_k": None, "model": "toy"}, 3, id="null-counts-as-absent"),
    ],
)
async def test_top_k_and_threshold_select_the_returned_labels(client, options, labels):
    answer = await client.post("/v1/classify", json={"text": "red red", **options})
    shown = answer.json()["labels"]
    assert len(shown) == labels
    assert shown == sorted(shown, key=lambda entry: -entry["score"])


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        pytest.param(
            "single-label",
            '"labels":[{"label":"red","score":0.665241},{"label":"blue","score":0.244728},{"label":"green","score":0.090031}]',
            id="single-label",
        ),
        pytest.param(
            "multi-label",
            '"labels":[{"label":"red","score":0.880797,"selected":true},{"label":"blue","score":0.731059,"selected":true},'
            '{"label":"green","score":0.5,"selected":true}]',
            id="multi-label",
        ),
        pytest.param(
            "regression", '"labels":[],"value":14.0,"interval":{"low":11.0,"high":17.0,"coverage":0.9}', id="regression"
        ),
    ],
)
async def test_the_bytes_of_answers_are_stable(serving, make, target, rest):
    answer = f'{{"model":"toy","digest":"{"ab" * 32}","modalities":["text"],{rest}}}'
    async with serving({"toy": make(task=target)}) as client:
        alone = await client.post("/v1/classify", json=text("red red blue"))
        batch = await client.post(
            "/v1/classify/batch", json={"items": [{"id": "a", **text("red red blue")}, text("\0")]}
        )
    assert alone.text == answer
    good, _, bad = batch.text.partition(
        ',{"index":1,"status":422,"problem":{"type":"urn:polymodal:problem:undecodable",'
    )
    assert good == f'{{"items":[{{"index":0,"id":"a","status":200,"classification":{answer}}}'
    assert bad.endswith("}}]}")


async def test_multi_label_answers_mark_the_labels_that_reach_their_thresholds(serving, make):
    async with serving({"tags": make("tags", task="multi-label")}) as client:
        one = (await client.post("/v1/classify", json=text("red"))).json()
        more = (await client.post("/v1/classify", json={**text("red red blue"), "threshold": 0.6})).json()
    # Logits (1, 0, 0), then (2, 0, 1), each through the logistic function.
    assert one["labels"] == [
        {"label": "red", "score": pytest.approx(0.731, abs=1e-3), "selected": False},
        {"label": "green", "score": 0.5, "selected": True},
        {"label": "blue", "score": 0.5, "selected": False},
    ]
    assert [(entry["label"], entry["selected"]) for entry in more["labels"]] == [("red", True), ("blue", True)]


async def test_a_regression_returns_a_number_and_its_interval(serving, make, solid):
    async with serving({"price": make("price", task="regression")}) as client:
        from_text = (await client.post("/v1/classify", json=text("red red"))).json()
        from_both = (await client.post("/v1/classify", files={"image": solid("red")}, data=text("red"))).json()
        from_image = (await client.post("/v1/classify", files={"image": solid("red")})).json()
        batch = (await client.post("/v1/classify/batch", json={"items": [text("red red")]})).json()
    assert (from_text["labels"], from_text["value"]) == ([], 14.0)
    assert from_text["interval"] == {"low": 11.0, "high": 17.0, "coverage": 0.9}
    assert from_both["interval"] == {"low": 12.5, "high": 15.5, "coverage": 0.9}
    assert from_image["value"] == 12.0
    assert "interval" not in from_image
    assert batch["items"][0]["classification"] == from_text


@pytest.mark.parametrize("option", ["top_k", "threshold"])
@pytest.mark.parametrize("route", ["/v1/classify", "/v1/classify/batch"])
async def test_a_regression_rejects_the_options_for_labels(serving, make, option, route):
    body = {"items": [text("red")]} if route.endswith("batch") else text("red")
    async with serving({"price": make("price", task="regression")}) as client:
        answer = await client.post(route, json={**body, option: 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["input"] == option
    assert "answers with a number and not with labels" in answer.json()["detail"]


async def test_a_request_selects_the_model_by_name_and_the_first_is_the_default(serving, make):
    async with serving({"one": make("one"), "two": make("two")}) as client:
        default = await client.post("/v1/classify", json=text("red"))
        chosen = await client.post("/v1/classify", json=text("red") | {"model": "two"})
    assert (default.json()["model"], chosen.json()["model"]) == ("one", "two")


async def test_server_timing_has_the_duration_of_each_stage(client):
    timing = (await client.post("/v1/classify", json=text("red"))).headers["Server-Timing"]
    assert [step.split(";dur=")[0] for step in timing.split(", ")] == ["read", "queue", "decode", "encode_text", "fuse"]
    assert all(float(step.split("=")[1]) >= 0 for step in timing.split(", "))


async def test_concurrent_requests_get_their_own_answers(client):
    colours = ["red", "green", "blue"] * 7
    answers = await asyncio.gather(*(client.post("/v1/classify", json=text(colour)) for colour in colours))
    assert [answer.json()["labels"][0]["label"] for answer in answers] == colours


async def test_requests_above_the_queue_limit_are_rejected_at_once(serving, runtime):
    async with serving(queue_limit=2, max_batch_items=1) as client:
        runtime.may_go.clear()
        queued = [asyncio.create_task(client.post("/v1/classify", json=text("red"))) for _ in range(3)]
        await wait_for_requests(client, 3)
        refused = await client.post("/v1/classify", json=text("red"))
        runtime.may_go.set()
        assert [answer.status_code for answer in await asyncio.gather(*queued)] == [200] * 3
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("headers", [{}, {"X-Request-Timeout-Ms": "60000"}], ids=["no-timeout", "longer-timeout"])
async def test_a_missed_deadline_is_a_504(serving, runtime, headers):
    async with serving(request_timeout_ms=50) as client:
        runtime.may_go.clear()
        answer = await client.post("/v1/classify", json=text("red"), headers=headers)
        runtime.may_go.set()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


async def test_a_client_may_set_a_shorter_timeout_than_the_service(serving, runtime):
    async with serving() as client:
        runtime.may_go.clear()
        for path in ("/v1/classify", "/v1/embed", "/v1/classify/batch"):
            body = {"items": [text("red")]} if path.endswith("batch") else text("red")
            answer = await client.post(path, json=body, headers={"X-Request-Timeout-Ms": "50"})
            problem = answer.json().get("items", [{"problem": answer.json()}])[0]["problem"]
            assert problem["code"] in {
                "deadline_exceeded",
                "overloaded",
            }  # later requests may be predicted to be too late
        runtime.may_go.set()


@pytest.mark.parametrize("milliseconds", ["0", "-5", "1.5", "soon", "", "1234567890", "٣٠"])
async def test_a_timeout_that_is_no_number_of_milliseconds_is_rejected(client, milliseconds):
    answer = await client.post(
        "/v1/classify", json=text("red"), headers={"X-Request-Timeout-Ms": milliseconds.encode()}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["input"] == "X-Request-Timeout-Ms"


async def test_a_failing_model_is_a_500_without_details_and_a_log_line_with_all(client, logs):
    answer = await client.post("/v1/classify", json=text("red red red red red"))
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    (failure,) = [entry for entry in logs if entry["event"] == "request_failed"]
    assert failure["request_id"] == answer.headers["X-Request-Id"]
    assert failure["exc_info"]


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/embed"])
async def test_a_poisonous_request_fails_alone(client, path):
    poison, harmless = text("red red red red red"), text("blue")
    answers = await asyncio.gather(*(client.post(path, json=body) for body in (harmless, poison, harmless)))
    assert [answer.status_code for answer in answers] == [200, 500, 200]


# --- /v1/classify/batch ---


async def test_the_items_of_a_batch_are_answered_independently_and_in_order(client, solid):
    items = [
        {"id": "a", "text": "blue"},
        {"image": base64.b64encode(solid("red")).decode()},
        {"id": "c", "image": "no base64!"},
        {"id": "d", "image": base64.b64encode(b"no image").decode()},
        {"id": "e", "colour": "red"},
        {"id": "f"},
        "red",
        {"id": "h", "text": "red red red red red"},
        {"id": 9, "text": "red"},
    ]
    answer = await client.post("/v1/classify/batch", json={"items": items, "top_k": 1})
    assert answer.status_code == 200
    answers = answer.json()["items"]
    assert [item["index"] for item in answers] == list(range(9))
    assert [item.get("id") for item in answers] == ["a", None, "c", "d", "e", "f", None, "h", None]
    assert [item["status"] for item in answers] == [200, 200, 400, 415, 400, 422, 422, 500, 422]
    assert [item["classification"]["labels"][0]["label"] for item in answers[:2]] == ["blue", "red"]
    codes = [item["problem"]["code"] for item in answers[2:]]
    assert codes == [
        "malformed_body",
        "unsupported_format",
        "unknown_field",
        "nothing_given",
        "invalid_parameter",
        "internal_error",
        "invalid_parameter",
    ]


async def test_a_batch_larger_than_the_queue_is_served(serving):
    async with serving(queue_limit=3, max_batch_items=2) as client:
        answer = await client.post("/v1/classify/batch", json={"items": [text("red")] * 64})
    assert [item["status"] for item in answer.json()["items"]] == [200] * 64


async def test_a_batch_does_not_block_single_requests(serving, runtime):
    async with serving(queue_limit=4, max_batch_items=1) as client:
        runtime.may_go.clear()
        batch = asyncio.create_task(client.post("/v1/classify/batch", json={"items": [text("red")] * 20}))
        await wait_for_requests(client, 1)
        single = asyncio.create_task(client.post("/v1/classify", json=text("blue")))
        await wait_for_requests(client, 2)
        runtime.may_go.set()
        assert (await single).status_code == 200
        assert {item["status"] for item in (await batch).json()["items"]} == {200}


async def test_items_that_miss_the_deadline_of_the_request_fail(serving, runtime):
    async with serving(request_timeout_ms=50) as client:
        runtime.may_go.clear()
        answer = await client.post("/v1/classify/batch", json={"items": [text("red")] * 40})
        runtime.may_go.set()
    assert {item["problem"]["code"] for item in answer.json()["items"]} == {"deadline_exceeded"}


async def test_a_batch_in_a_form_is_rejected(client, solid):
    answer = await client.post("/v1/classify/batch", files={"image": solid("red")})
    assert answer.status_code == 415
    assert answer.json()["detail"].endswith("allowed: application/json")
