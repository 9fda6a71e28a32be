"""The task embed, other tasks, and the tasks of a model."""

import json
from dataclasses import FrozenInstanceError

import httpx
import pytest

from polymodal_client import Embedding, InvalidInput, NotFound, UnexpectedAnswer
from polymodal_client.calls import Task, pack
from tests.client.toy_service import problem

EMBEDDING = {
    "model": "toy",
    "digest": "ab",
    "modalities": ["image", "text"],
    "aligned": False,
    "embeddings": {"image": [0.6, 0.8], "text": [1, 0]},
}
ALONE = EMBEDDING | {"modalities": ["text"], "embeddings": {"text": [1, 0]}}


def embedding(request):
    """Return a response that embeds each item, and a problem for items without inputs."""
    items = [
        {"index": index, "status": 200, "embedding": ALONE}
        if item
        else {"index": index, "status": 422, "problem": {"status": 422, "code": "nothing_given", "detail": "nothing"}}
        for index, item in enumerate(json.loads(request.content)["items"])
    ]
    return httpx.Response(200, json={"items": items})


def test_an_embedding_is_read(both, scripted):
    service = scripted(httpx.Response(200, json=EMBEDDING, headers={"X-Request-Id": "mine"}))
    answer = both.call(service, "embed", b"image", "red", model="toy", request_id="mine")
    expected = {"image": (0.6, 0.8), "text": (1.0, 0.0)}
    assert answer == Embedding("toy", "ab", ("image", "text"), expected, aligned=False, request_id="mine")
    with pytest.raises(FrozenInstanceError):
        answer.aligned = True


def test_the_vector_is_that_of_the_only_input(both, scripted):
    assert both.call(scripted(httpx.Response(200, json=ALONE)), "embed", text="red").vector == (1.0, 0.0)
    both_inputs = both.call(scripted(httpx.Response(200, json=EMBEDDING)), "embed", b"image", "red")
    with pytest.raises(LookupError, match="vector: embeddings of image, text; allowed: of one input"):
        _ = both_inputs.vector


@pytest.mark.parametrize(
    "changed",
    [{"embeddings": None}, {"embeddings": {"text": 5}}, {"embeddings": {"text": ["x"]}}, {"modalities": None}],
    ids=str,
)
def test_another_answer_is_not_read_as_an_embedding(both, scripted, changed):
    with pytest.raises(UnexpectedAnswer):
        both.call(scripted(httpx.Response(200, json=EMBEDDING | changed)), "embed", text="red")


@pytest.mark.parametrize(("call", "items"), [("embed", b"image"), ("embed_batch", [{"text": "red"}] * 100)])
def test_a_service_without_the_task_is_reported_once(both, scripted, call, items):
    missing = scripted(problem(404, "not_found"))
    with pytest.raises(NotFound):
        both.call(missing, call, items, **({"concurrency": 1} if call == "embed_batch" else {}))
    assert len(missing.seen) == 1


def test_many_items_are_embedded_in_several_requests_in_their_order(both, scripted):
    service = scripted(embedding)
    done = []
    answers = both.call(
        service,
        "embed_batch",
        ({"text": "red", "id": str(number)} if number != 3 else {"id": "3"} for number in range(5)),
        model="toy",
        items_per_request=2,
        progress=lambda number, total: done.append((number, total)),
    )
    assert {request.url.path for request in service.seen} == {"/v1/embed/batch"}
    assert [len(json.loads(request.content)["items"]) for request in service.seen].count(2) == 2
    assert {json.loads(request.content)["model"] for request in service.seen} == {"toy"}
    assert [(answer.index, answer.id) for answer in answers] == [(number, str(number)) for number in range(5)]
    assert sorted(done)[-1] == (5, None)
    assert answers[0].result().vector == answers[0].answer.vector == (1.0, 0.0)
    assert answers[0].classification is None
    assert isinstance(answers[3].error, InvalidInput)
    with pytest.raises(InvalidInput):
        answers[3].result()


def test_a_task_is_defined_by_one_description():
    task = Task("count", "counted", lambda document, _: document["number"], {"unit": "words"})
    call = task.batch_call([pack(7, {"text": "a b", "id": "x"}), pack(8, {"text": "a"})])
    assert (call.path, call.json) == ("/v1/count/batch", {"unit": "words", "items": [{"text": "a b"}, {"text": "a"}]})
    bad = {"status": 422, "code": "too_large"}
    first, second = call.read({"items": [{"index": 0, "counted": {"number": 2}}, {"index": 1, "problem": bad}]}, "r")
    assert (first.index, first.id, first.answer, second.answer) == (7, "x", 2, None)
    assert isinstance(second.error, InvalidInput)


MODEL = {
    "name": "toy",
    "digest": "ab",
    "labels": [],
    "runtime": "onnx",
    "inputs": [
        {"name": "image", "media_types": ["image/png"], "limits": {"max_bytes": 9}},
        {"name": "text", "media_types": ["text/plain"], "limits": {}},
    ],
}
NEW = MODEL | {
    "task": "regression",
    "target": "regression",
    "kind": "network",
    "tasks": ["classify", "embed"],
    "inputs": [
        {"name": "audio", "media_types": ["audio/wav"], "limits": {}, "textual": False},
        {"name": "title", "media_types": ["text/plain"], "limits": {}, "textual": True},
    ],
}


@pytest.mark.parametrize(
    ("document", "tasks", "textual"),
    [
        pytest.param(NEW, ("classify", "embed"), {"audio": False, "title": True}, id="present"),
        pytest.param(MODEL | {"task": "regression"}, ("classify",), {"image": False, "text": True}, id="older"),
        pytest.param(
            MODEL | {"target": "regression"}, ("classify",), {"image": False, "text": True}, id="without-task"
        ),
    ],
)
def test_a_model_names_its_target_its_tasks_and_its_inputs(both, scripted, document, tasks, textual):
    (model,) = both.call(scripted(httpx.Response(200, json={"default": "toy", "models": [document]})), "models").models
    detail = both.call(scripted(httpx.Response(200, json=document | {"card": "# Toy", "report": {}})), "model", "toy")
    for described in (model, detail):
        assert (described.target, described.kind, described.tasks) == ("regression", "network", tasks)
        assert {spec.name: spec.textual for spec in described.inputs} == textual
        with pytest.warns(DeprecationWarning, match="use Model.target"):
            assert described.task == "regression"


def test_a_model_that_only_embeds_has_no_target(both, scripted):
    document = MODEL | {"kind": "encoders", "tasks": ["embed"]}
    (model,) = both.call(scripted(httpx.Response(200, json={"default": "toy", "models": [document]})), "models").models
    assert (model.target, model.kind, model.tasks, model.labels) == (None, "encoders", ("embed",), ())
