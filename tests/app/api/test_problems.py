"""Every refusal is one class, which states its status, code and title. Its example looks like the errors that are raised."""

import asyncio
import dataclasses
import re
from contextlib import ExitStack

import pytest

from polymodal.app.access.keys import digest, make_record, write_keys
from polymodal.app.access.rates import Rate
from polymodal.app.api.examples import example_of, explained
from polymodal.app.problems import PROBLEMS, Problem, RequestError
from polymodal.model import InputError, UnknownModality
from tests.app.conftest import write_toy_index
from tests.hostile.images import png
from tests.refusals import REFUSALS

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def toy_problem():
    """A refusal that exists only in this test."""

    class Sleeping(RequestError):
        status, code, title = 418, "sleeping", "The teapot sleeps"
        retry_after_s = 7

        @classmethod
        def example(cls):
            return cls("teapot", "asleep", "a teapot that is awake")

    yield Sleeping
    del PROBLEMS["sleeping"]


async def answer_to(client, error: Exception, kind: type[Exception] = Problem):
    @client._transport.app.get("/toy", responses=explained(kind))
    async def toy() -> str:
        raise error

    return await client.get("/toy")


async def test_a_new_refusal_needs_one_class(client, toy_problem):
    answer = await answer_to(client, toy_problem("teapot", "asleep", "a teapot that is awake"), toy_problem)
    assert (answer.status_code, answer.headers["Retry-After"]) == (418, "7")
    problem = answer.json()
    assert problem.pop("instance") == answer.headers["X-Request-Id"]
    assert problem == {
        "type": "urn:polymodal:problem:sleeping",
        "title": "The teapot sleeps",
        "status": 418,
        "detail": "teapot: asleep; allowed: a teapot that is awake",
        "code": "sleeping",
        "input": "teapot",
        "found": "asleep",
        "allowed": "a teapot that is awake",
    }
    documented = explained(toy_problem)[418]
    assert documented["description"] == "The teapot sleeps"
    assert documented["headers"].keys() == {"Retry-After"}
    examples = documented["content"]["application/problem+json"]["examples"]
    assert examples["sleeping"]["value"]["detail"] == problem["detail"]


Imitation = type(
    "Imitation",
    (Exception,),
    {"status": 422, "code": "invalid_input", "title": "T", "input": "path", "found": "/etc/passwd", "allowed": "none"},
)
"""An exception with the attributes of a refusal."""


class Unstated(RequestError):
    """A refusal without status, code and title."""


@pytest.mark.parametrize(
    "error",
    [Imitation("/etc/passwd"), Unstated("path", "/etc/passwd", "none"), ValueError("/etc/passwd")],
    ids=lambda error: type(error).__name__,
)
async def test_the_message_of_any_other_exception_is_not_returned(client, logs, error):
    answer = await answer_to(client, error)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "passwd" not in answer.text
    assert [entry["log_level"] for entry in logs if entry["event"] == "request_failed"] == ["error"]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        pytest.param({"code": "half"}, "status, code and title together", id="only-a-code"),
        pytest.param(
            {"status": 400, "code": "malformed_body", "title": "T"}, "of MalformedBody", id="a-code-of-another-class"
        ),
    ],
)
def test_a_class_states_status_code_and_title_and_a_unique_code(stated, message):
    with pytest.raises(TypeError, match=message):
        type("Wrong", (Problem,), stated)


# --- examples look like the errors that are raised ---


def pattern_of(detail: str) -> str:
    """Return a message with placeholders for numbers and quoted values."""
    return re.sub(r'"[^"]*"', '"…"', re.sub(r"\d[\d,.]*", "N", detail))


def image(content: bytes) -> dict:
    return {"files": {"image": content}}


def text(**fields: object) -> dict:
    return {"json": {"text": "red", **fields}}


async def unfinished_body():
    yield b'{"text": '
    await asyncio.sleep(1)


REQUESTS = {
    "malformed_body": ({}, {"content": b'{"text": "a" "b"}', "headers": JSON}),
    "unknown_field": ({}, {"json": {"txt": "red"}}),
    "repeated_field": ({}, {"content": b'{"text": "a", "text": "b"}', "headers": JSON}),
    "too_many_bytes": ({"max_image_bytes": 100}, image(bytes(200))),
    "body_too_slow": ({"body_timeout_ms": 20}, {"content": unfinished_body(), "headers": JSON}),
    "unsupported_media_type": ({}, {"content": b"red", "headers": {"Content-Type": "text/plain"}}),
    "unknown_model": ({}, text(model="illustration")),
    "invalid_parameter": ({}, text(top_k=9)),
    "url_not_accepted": ({}, {"json": {"image": "https://site.example/boat.png"}}),
    "unsupported_format": ({}, image(b"not a picture")),
    "undecodable": ({}, {"json": {"image": ""}}),
    "too_large": ({}, image(png((8000, 8000), "1"))),
    "nothing_given": ({}, {"json": {}}),
}
"""By code: settings, and a request to /v1/classify that gets it."""


@pytest.fixture
def illustrations(serving, make, runtime):
    """A service whose model has the same name as in the examples."""
    return lambda **changed: serving({"illustrations": make("illustrations", runtime)}, **changed)


def example(code: str) -> str:
    return str(example_of(next(kind for kind in REFUSALS if kind.code == code)))


@pytest.mark.parametrize("code", REQUESTS)
async def test_an_example_looks_like_the_error_for_a_request(illustrations, code):
    settings, request = REQUESTS[code]
    async with illustrations(**settings) as client:
        problem = (await client.post("/v1/classify", **request)).json()
    assert (problem["code"], pattern_of(problem["detail"])) == (code, pattern_of(example(code)))


async def test_the_example_of_too_many_items_looks_like_the_error(illustrations):
    async with illustrations(max_batch_request_items=1) as client:
        problem = (await client.post("/v1/classify/batch", json={"items": [{"text": "red"}] * 2})).json()
    assert (problem["code"], pattern_of(problem["detail"])) == ("too_many_items", pattern_of(example("too_many_items")))


async def test_the_examples_about_indexes_look_like_the_errors(illustrations, make, tmp_path):
    older = make("illustrations", aligned=True)
    older.description = dataclasses.replace(older.description, digest="cd" * 32)
    async with illustrations(indexes=(write_toy_index(tmp_path / "things", older),)) as client:
        for name, code in (("thing", "unknown_index"), ("things", "index_of_another_model")):
            problem = (await client.post("/v1/search", json={"index": name, "query": {"text": "red"}})).json()
            details = [re.sub(r"\w+…", "V…", pattern_of(detail)) for detail in (problem["detail"], example(code))]
            assert (problem["code"], details[0]) == (code, details[1])


async def test_the_examples_about_routes_look_like_the_errors(client):
    for method, path, code in (("GET", "/v1/clasify", "not_found"), ("GET", "/v1/classify", "method_not_allowed")):
        problem = (await client.request(method, path)).json()
        assert (problem["code"], problem["detail"]) == (code, example(code))


async def test_the_examples_about_keys_look_like_the_errors(serving, tmp_path):
    write_keys(tmp_path / "keys.json", [make_record("shop", digest("k"), ["models"], None)])
    async with serving(api_keys_file=tmp_path / "keys.json", rate_limit_per_key=Rate(1, 60)) as client:
        answers = [
            await client.post("/v1/classify", **text()),
            await client.post("/v1/classify", **text(), headers={"X-API-Key": "k"}),
            *[await client.get("/v1/models", headers={"X-API-Key": "k"}) for _ in range(2)],
        ]
    problems = [answer.json() for answer in answers if answer.status_code != 200]
    assert [problem["code"] for problem in problems] == ["unauthorized", "forbidden", "rate_limited"]
    for problem in problems:
        assert pattern_of(problem["detail"]) == pattern_of(example(problem["code"]))


async def test_the_examples_about_the_state_of_the_service_look_like_the_errors(client, runtime, monkeypatch):
    service = client._transport.app.state.service
    with ExitStack() as admitted:
        while (overloaded := await client.post("/v1/classify", **text())).status_code == 200:
            admitted.enter_context(service.admit())
    with monkeypatch.context() as patched:
        patched.setattr(type(service._supervisor.pool), "stalled", True)
        stalled = await client.get("/livez")
    await service.drain(0)
    not_ready = await client.get("/readyz")
    for answer, code in ((overloaded, "overloaded"), (stalled, "stalled"), (not_ready, "not_ready")):
        assert (answer.json()["code"], pattern_of(answer.json()["detail"])) == (code, pattern_of(example(code)))


async def test_the_example_of_a_missed_deadline_looks_like_the_error(serving, runtime):
    async with serving(request_timeout_ms=50) as client:
        runtime.may_go.clear()
        problem = (await client.post("/v1/classify", **text())).json()
        runtime.may_go.set()
    assert (problem["code"], pattern_of(problem["detail"])) == (
        "deadline_exceeded",
        pattern_of(example("deadline_exceeded")),
    )


def test_the_example_of_an_unknown_modality_looks_like_the_error(predictor):
    with pytest.raises(UnknownModality) as refusal:
        predictor.prepare({"sound": b""})
    assert (refusal.value.found, example_of(UnknownModality).found) == ("not an input of this model",) * 2


WITHOUT_VALUES = {
    "head_too_large",
    "head_too_slow",
    "malformed_request",
    "too_far_ahead",
    "too_many_connections",
    "stopped",
    "unknown_task",
    "unsupported_task",
}


def test_every_example_is_compared():
    compared = {
        *REQUESTS,
        *WITHOUT_VALUES,
        "too_many_items",
        "unknown_index",
        "index_of_another_model",
        "not_found",
        "method_not_allowed",
        "unauthorized",
        "forbidden",
    }
    compared |= {"rate_limited", "overloaded", "stalled", "not_ready", "deadline_exceeded", "unknown_modality"}
    assert {kind.code for kind in REFUSALS} - {"internal_error", InputError.code} == compared
