"""POST /v1/embeddings, as clients of OpenAI's API use it; `make test-clients` runs the clients themselves."""

import asyncio
import base64
import math

import numpy as np
import pytest

from polymodal.app.access.keys import digest, make_record, write_keys
from polymodal.app.access.rates import Rate
from tests.hostile.images import png

HALF = round(math.sqrt(0.5), 7)
RED, GREEN, BLUE = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
TOKENS = "check_embedding_ctx_length=False"


def uri(content: bytes, kind="image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture
async def client(serving, make):
    async with serving({"toy": make("toy", aligned=True), "plain": make("plain")}) as client:
        yield client


async def create(client, **body):
    return await client.post("/v1/embeddings", json=body)


async def vectors(client, **body):
    answer = await create(client, **body)
    assert answer.status_code == 200, answer.json()
    return [entry["embedding"] for entry in answer.json()["data"]]


async def refusal(client, status=400, **body):
    answer = await create(client, **body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status, problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["error"]["message"] == problem["detail"]
    return problem


# --- answers ---


async def test_an_answer_has_the_members_that_openai_has_and_the_digest(client):
    answer = await create(client, input=["red", "green green blue blue"], model="toy")
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": RED, "modalities": ["text"]},
            {"object": "embedding", "index": 1, "embedding": [0.0, HALF, HALF], "modalities": ["text"]},
        ],
        "model": "toy",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "digest": "ab" * 32,
    }
    assert "X-Ignored-Fields" not in answer.headers


async def test_the_model_may_be_missing_and_null_counts_as_missing(client):
    fields = ("model", "encoding_format", "dimensions", "user", "modality", "messages")
    answer = await create(client, input="red", **dict.fromkeys(fields))
    assert (answer.json()["model"], answer.json()["data"][0]["embedding"]) == ("toy", RED)


async def test_base64_has_the_same_numbers_as_float32_in_little_endian_order(client):
    numbers = await vectors(client, input=["red green", "red green green blue"])
    packed = await vectors(client, input=["red green", "red green green blue"], encoding_format="base64")
    for plain, text in zip(numbers, packed, strict=True):
        assert base64.b64decode(text) == np.asarray(plain, dtype="<f4").tobytes()


@pytest.mark.parametrize("model", ["toy", "plain"])
async def test_vectors_have_the_length_1(client, model):
    for vector in await vectors(client, input=["red green", "red green green blue"], model=model):
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)


async def test_the_vectors_are_those_of_embed(client, solid):
    image = uri(solid("teal"))
    ours = (await client.post("/v1/embed", json={"image": image, "text": "red green", "fused": True})).json()
    both, alone = await vectors(client, input=[{"image": image, "text": "red green"}, {"image": image}])
    assert (both, alone) == (ours["fused"], ours["embeddings"]["image"])


async def test_the_same_input_has_the_same_bytes_in_every_list_and_at_every_position(client, solid):
    chance = np.random.default_rng(7)
    texts = [" ".join(chance.choice(("red", "green", "blue"), 3)) for _ in range(24)]
    items = [*texts, *({"image": uri(solid(colour))} for colour in ("teal", "olive", "navy"))]
    alone = {str(item): (await vectors(client, input=[item], encoding_format="base64"))[0] for item in items}
    for size in (2, 7, 27, 200):
        several = [items[number] for number in chance.integers(len(items), size=size)]
        together = await vectors(client, input=several, encoding_format="base64")
        assert together == [alone[str(item)] for item in several]


async def test_two_thousand_inputs_are_answered_in_their_order(client):
    colours = np.random.default_rng(7).choice(("red", "green", "blue"), 2048).tolist()
    answer = await create(client, input=colours)
    by_colour = {"red": RED, "green": GREEN, "blue": BLUE}
    assert [entry["index"] for entry in answer.json()["data"]] == list(range(2048))
    assert [entry["embedding"] for entry in answer.json()["data"]] == [by_colour[colour] for colour in colours]
    assert answer.json()["usage"]["prompt_tokens"] == 2048


async def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(client):
    ended = []

    async def timed(name, items):
        await vectors(client, input=items)
        ended.append(name)

    large = asyncio.create_task(timed("large", ["red"] * 2048))
    await asyncio.sleep(0.05)
    await timed("small", ["blue", "red"])
    await large
    assert ended == ["small", "large"]


async def test_usage_counts_the_tokens_that_the_model_reads(client, solid):
    answer = await create(
        client, input=["green " * 20, {"image": uri(solid())}, {"image": uri(solid()), "text": "blue"}]
    )
    assert answer.json()["usage"] == {"prompt_tokens": 8 + 0 + 1, "total_tokens": 9}  # the toy model reads 8 tokens


# --- shapes of requests ---


async def test_an_object_with_several_inputs_has_one_vector(client, solid):
    image = uri(solid("red"))
    answer = await create(client, input=[{"image": image, "text": "green"}, {"text": "green", "image": None}, "blue"])
    assert [entry["embedding"] for entry in answer.json()["data"]] == [[HALF, HALF, 0.0], GREEN, BLUE]
    assert [entry["modalities"] for entry in answer.json()["data"]] == [["image", "text"], ["text"], ["text"]]


async def test_strings_are_files_of_the_modality_that_is_set(client, solid):
    files = [uri(solid("red")), uri(solid("blue"), "image/any"), base64.b64encode(solid("lime")).decode()]
    assert await vectors(client, input=files, modality="image") == [RED, BLUE, GREEN]
    assert await vectors(client, input=files[0], modality="image") == [RED]
    assert await vectors(client, input="red", modality="text") == [RED]


async def test_a_conversation_has_one_vector(client, solid):
    linked = {"type": "image_url", "image_url": {"url": uri(solid("red")), "detail": "low"}}
    content = [linked, {"type": "text", "text": "green"}]
    answer = await create(client, messages=[{"role": "user", "content": content}], model="toy")
    assert answer.json()["data"] == [
        {"object": "embedding", "index": 0, "embedding": [HALF, HALF, 0.0], "modalities": ["image", "text"]}
    ]
    assert answer.headers["X-Ignored-Fields"] == "detail"
    several = [{"role": "user", "content": "red"}, {"role": "user", "content": [{"type": "text", "text": "green"}]}]
    assert await vectors(client, messages=several) == [[HALF, HALF, 0.0]]


async def test_fields_without_effect_are_listed_in_a_header(client):
    answer = await create(client, input="red", user="somebody")
    assert (answer.status_code, answer.headers["X-Ignored-Fields"]) == (200, "user")


async def test_only_the_models_own_dimensions_are_accepted(client):
    assert await vectors(client, input="red", dimensions=3) == [RED]
    assert await vectors(client, input="red", dimensions=3.0) == [RED]
    for number in (2, 4, 0, -1, 2.5, "3", True):
        problem = await refusal(client, input="red", dimensions=number)
        assert problem["error"]["param"] == "dimensions"
    assert (await refusal(client, input="red", dimensions=256))["found"] == "256"


async def test_models_without_aligned_vectors_embed_one_modality_in_a_request(client, solid):
    image = {"image": uri(solid("red"))}
    assert await vectors(client, input=[image, image], model="plain") == [RED, RED]
    assert await vectors(client, input=["red", {"text": "blue"}], model="plain") == [RED, BLUE]
    mixed = await refusal(client, input=["red", image], model="plain")
    assert mixed["detail"].startswith(
        "input[1]: modality image, and input[0] is of modality text; allowed: one modality"
    )
    both = await refusal(client, input=["red", {"text": "red", **image}], model="plain")
    assert both["detail"].startswith(
        "input[1]: text and image; allowed: one of them, because this model does not align"
    )


# --- what is refused ---

USER = {"role": "user"}


BAD_REQUESTS = {
    "nothing": ({}, "input: null; allowed: a text, or a list of 1 to 2,048 texts"),
    "null": ({"input": None}, "input: null; allowed"),
    "empty": ({"input": ""}, "input: an empty string; allowed: a text with at least one character"),
    "blank": ({"input": " \u200b"}, "input: only blank texts; allowed: a text"),
    "no-inputs": ({"input": []}, "input: an empty list; allowed: a text, or a list of 1 to 2,048"),
    "object": ({"input": {}}, "input: an object; allowed: a text, or a list"),
    "number": ({"input": 7}, "input: 7; allowed: a text, or a list"),
    "an-empty-text": ({"input": ["red", ""]}, "input[1]: an empty string; allowed"),
    "a-blank-text": ({"input": ["red", "\t"]}, "input[1]: only blank texts; allowed"),
    "a-null": ({"input": ["red", None]}, "input[1]: null; allowed: a text, or an object"),
    "no-fields": ({"input": ["red", {}]}, "input[1]: an object without inputs; allowed: at least"),
    "only-null": ({"input": ["red", {"image": None}]}, "input[1]: an object without inputs"),
    "a-field": ({"input": ["red", {"txt": "x"}]}, 'input[1]: field "txt"; allowed: image, text'),
    "no-text": ({"input": ["red", {"text": 7}]}, "input[1].text: 7; allowed: a text"),
    "no-file": ({"input": ["red", {"image": {"url": "x"}}]}, "input[1].image: an object; allowed"),
    "nested": ({"input": ["red", ["red"]]}, "input[1]: a list of 1; allowed: a text"),
    "nested-first": ({"input": [["red"]]}, "input[0]: a list of 1; allowed: a text"),
    "nested-empty": ({"input": [[]]}, "input[0]: a list of 0; allowed: a text"),
    "too-many": ({"input": ["red"] * 2049}, "input: 2,049 inputs; allowed: up to 2,048 inputs"),
    "nul": ({"input": "x\x00"}, "input: a NUL character at position 1"),
    "long": ({"input": ["red", "x" * 20_001]}, "input[1]: 20,001 characters; allowed: at most 20,000"),
    "tokens": ({"input": [7, 8]}, f"input: token ids; allowed: texts, because .* {TOKENS}"),
    "tokens-each": ({"input": [[7, 8], [9]]}, f"input: token ids; allowed: texts, because .* {TOKENS}"),
    "very-many-tokens": ({"input": [[7] * 300] * 900}, f"input: token ids; allowed: .* {TOKENS}"),
    "url": ({"input": [{"image": "https://x.example/a.png"}]}, "input[0].image: a URL of the scheme https"),
    "path": ({"input": ["file:///etc/passwd"], "modality": "image"}, "input[0]: a URL of the scheme file"),
    "uri": ({"input": [{"image": "data:image/png,abc"}]}, "input[0].image: a data: URI without ;base64"),
    "no-base64": ({"input": [{"image": "a b"}]}, "input[0].image: invalid base64"),
    "no-image": ({"input": ["red", {"image": "bm8="}]}, "input[1].image: bytes of no known picture format"),
    "no-bytes": ({"input": [{"image": uri(b"")}]}, "input[0].image: 0 bytes; allowed: a whole picture"),
    "pixels": ({"input": [{"image": uri(png((8000, 8000), "1"))}]}, "input[0].image: 8,000 × 8,000 px"),
    "format": ({"input": "red", "encoding_format": "int8"}, "encoding_format: .* float or base64"),
    "modality": ({"input": "red", "modality": "smell"}, "modality: .* image or text"),
    "user": ({"input": "red", "user": 7}, "user: 7; allowed: a string"),
    "field": ({"input": "red", "task": "x"}, 'body: field "task"; allowed: model, encoding_format'),
    "both": ({"input": "red", "messages": []}, "messages: next to input; allowed: either"),
    "and-modality": ({"messages": [], "modality": "text"}, "messages: next to modality; allowed: either"),
    "no-messages": ({"messages": []}, "messages: a list of 0; allowed"),
    "no-list": ({"messages": "red"}, 'messages: "red"; allowed: a list'),
    "no-message": ({"messages": ["red"]}, 'messages[0]: "red"; allowed: an object'),
    "no-content": ({"messages": [{**USER, "content": []}]}, "messages[0].content: a list of 0; allowed"),
    "empty-content": ({"messages": [{**USER, "content": ""}]}, "messages[0].content: an empty string"),
    "blank-content": ({"messages": [{**USER, "content": " "}]}, "messages: only blank texts"),
    "role": (
        {"messages": [{"role": "system", "content": "red"}]},
        'messages[0].role: "system"; allowed: "user"',
    ),
    "type": (
        {"messages": [{**USER, "content": [{"type": "input_audio", "input_audio": {}}]}]},
        'messages[0].content[0].type: "input_audio"; allowed: text or image_url',
    ),
    "linked-url": (
        {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
        "messages[0].content[0].image_url.url: a URL of the scheme http",
    ),
    "two-images": (
        {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {"url": "bm8="}}] * 2}]},
        "messages[0].content[1].image_url.url: a second image; allowed: one image in all messages",
    ),
    "no-image-in-a-message": (
        {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {"url": "bm8="}}]}]},
        "messages[0].content[0].image_url.url: bytes of no known picture format",
    ),
}
"""By name: a body, and the beginning of the detail, or its beginning and what else is in it."""


async def test_a_bad_request_names_the_input_and_the_remedy(client):
    for name, (body, detail) in BAD_REQUESTS.items():
        problem = await refusal(client, **body)
        head, _, tail = detail.partition(" .* ")
        assert problem["detail"].startswith(head), (name, problem["detail"])
        assert tail in problem["detail"], (name, problem["detail"])
        assert problem["error"]["type"] == "invalid_request_error"
        assert problem["error"]["param"] == problem["input"]


BROKEN_JSON = {
    "nan": ('{"input": [NaN]}', "input[0]: NaN"),
    "twice": ('{"input": ["red", {"text": "a", "text": "b"}]}', 'input[1]: field "text" twice'),
    "surrogate": ('{"input": ["red", "\\ud800"]}', "input[1]: half of a surrogate pair"),
    "in-a-message": ('{"messages": [{"role": NaN, "content": "x"}]}', "messages[0].role: NaN"),
    "content": ('{"messages": [{"role": "user", "content": [NaN]}]}', "messages[0].content[0]: NaN"),
    "dimensions": ('{"input": "red", "dimensions": NaN}', "dimensions: NaN"),
    "syntax": ('{"input": "red"', "body: invalid JSON at line 1"),
    "list": ('["red"]', "body: a list of 1; allowed: a JSON object"),
    "depth": ('{"input": ' + "[" * 99 + "]" * 99 + "}", "body: JSON nested too deeply"),
    "empty": ("", "body: no bytes"),
}
"""By name: a body, and the beginning of the detail."""


async def test_broken_json_is_refused_where_it_is(client):
    for name, (body, detail) in BROKEN_JSON.items():
        answer = await client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), name
        assert answer.json()["detail"].startswith(detail), name


async def test_the_first_bad_input_of_a_list_is_named_before_any_is_computed(client, logs):
    problem = await refusal(client, input=["red"] * 40 + [""] + [{"image": "?"}])
    assert problem["error"]["param"] == "input[40]"
    assert "queue" not in [entry for entry in logs if entry["event"] == "request"][-1]["stages_ms"]


async def test_after_a_bad_input_the_rest_is_not_computed(client, runtime):
    items = [{"image": uri(b"no picture")}, *["red"] * 2000]
    answer = await create(client, input=items)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0].image")
    metrics = client._transport.app.state.metrics
    samples = metrics.registry.get_sample_value("polymodal_batch_items_sum", {"model": "toy"})
    assert samples < 200


async def test_an_unknown_model_has_the_code_that_clients_look_for(client):
    problem = await refusal(client, 404, input="red", model="text-embedding-3-small")
    assert problem["error"] == {
        "message": 'model: "text-embedding-3-small"; allowed: toy, plain',
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


OTHER_PROBLEMS = {
    "method": ("GET", {}, 405, "invalid_request_error"),
    "type": ("POST", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "invalid_request_error"),
    "bytes": ("POST", {"json": {"input": "x" * 300_000}}, 413, "invalid_request_error"),
    "bug": ("POST", {"json": {"input": "red red red red red"}}, 500, "server_error"),
    "query": ("POST", {"json": {"input": "red"}, "params": {"api-version": "1"}}, 400, "invalid_request_error"),
}
"""By name: method, request, status and type of the error."""


async def test_every_problem_of_the_route_has_the_member_error(client):
    for method, options, status, kind in OTHER_PROBLEMS.values():
        answer = await client.request(method, "/v1/embeddings", **options)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
        assert answer.json()["error"]["message"] == answer.json()["detail"]
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_problems_of_our_own_routes_have_no_member_error(client):
    for path in ("/v1/embed", "/v1/classify", "/v1/embeddings/x"):
        assert "error" not in (await client.post(path, json={"text": ""})).json()
    assert (await client.post("/v1/embed", json={})).status_code == 422


# --- load and access ---


@pytest.fixture
def guarded(serving, make, tmp_path):
    write_keys(
        tmp_path / "keys.json",
        [make_record("all", digest("k"), ["embed"], None), make_record("narrow", digest("n"), ["classify"], None)],
    )
    models = {"toy": make("toy", aligned=True)}
    return lambda **changed: serving(models, api_keys_file=tmp_path / "keys.json", **changed)


async def test_keys_and_their_scope_are_checked_with_openais_codes(guarded):
    async with guarded() as client:
        answers = [
            await client.post("/v1/embeddings", json={"input": "red"}, headers={"Authorization": f"Bearer {key}"})
            for key in ("k", "n", "x")
        ]
        without = await client.post("/v1/embeddings", json={"input": "red"})
    assert [answer.status_code for answer in (*answers, without)] == [200, 403, 401, 401]
    codes = [answer.json()["error"]["code"] for answer in (*answers[1:], without)]
    assert codes == ["forbidden", "invalid_api_key", "invalid_api_key"]


async def test_every_input_counts_under_the_rate_limit(guarded):
    async with guarded(rate_limit_per_key=Rate(10, 60)) as client:
        client.headers["Authorization"] = "Bearer k"
        assert (await create(client, input=["red"] * 8)).status_code == 200
        limited = await create(client, input=["red"] * 3)
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert limited.json()["error"]["type"] == "rate_limit_error"
    assert int(limited.headers["Retry-After"]) >= 1


async def test_a_list_that_no_window_admits_is_refused_without_retry(guarded):
    async with guarded(rate_limit_per_key=Rate(10, 60)) as client:
        client.headers["Authorization"] = "Bearer k"
        problem = await refusal(client, input=["red"] * 11)
    assert problem["detail"] == "input: 11 items; allowed: at most 10, this client's rate limit"


async def test_a_draining_service_has_a_503_with_retry_after(client):
    await client._transport.app.state.service.drain(0)
    answer = await create(client, input="red")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_list_that_takes_too_long_is_not_to_be_sent_again(client):
    answer = await client.post("/v1/embeddings", json={"input": ["red"] * 2048}, headers={"X-Request-Timeout-Ms": "30"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert answer.json()["detail"].endswith(
        "of 2,048 vectors until the request's deadline; allowed: fewer inputs in one request"
    )
    assert answer.headers["X-Should-Retry"] == "false"


async def test_one_input_that_is_late_may_be_sent_again(serving, make, runtime):
    async with serving({"toy": make(runtime=runtime)}, request_timeout_ms=50) as client:
        runtime.may_go.clear()
        answer = await create(client, input="red")
        runtime.may_go.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "X-Should-Retry" not in answer.headers


async def test_requests_are_counted_under_the_route(client):
    await create(client, input="red")
    route = 'http_route="/v1/embeddings"'
    assert route in (await client.get("/metrics")).text


async def test_the_cache_answers_with_the_same_bytes_and_counts_no_tokens(serving, make):
    async with serving({"toy": make(aligned=True)}, embedding_cache_bytes=100_000) as client:
        first, second = [(await create(client, input="red green", encoding_format="base64")).json() for _ in range(2)]
    assert first["data"] == second["data"]
    assert (first["usage"]["prompt_tokens"], second["usage"]["prompt_tokens"]) == (2, 0)


async def test_the_dialect_can_be_switched_off(serving):
    async with serving(dialects=()) as client:
        answer = await create(client, input="red")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "error" not in answer.json()


# --- GET /v1/models ---


async def test_models_have_what_openais_clients_read(client):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == ["toy", "plain"]
    for entry in listed["data"]:
        assert (entry["object"], entry["owned_by"]) == ("model", "polymodal")
        assert entry["created"] > 1_700_000_000
        detail = (await client.get(f"/v1/models/{entry['id']}")).json()
        assert {name: detail[name] for name in entry} == entry
        assert detail["name"] == entry["id"]
