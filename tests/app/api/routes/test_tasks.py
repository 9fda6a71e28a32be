"""Properties of all tasks: an item gets the same answer in a form, in JSON and in a batch."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polymodal.model import TASKS
from tests.app.conftest import make_predictor
from tests.media import solid

IMAGES = (solid("red"), solid("teal"), b"no picture", b"")
TEXTS = st.sampled_from(["red", "green blue red", " ", "a\0b", "red " * 5]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
).filter(lambda text: not text.startswith("\ufeff"))  # in a form, a byte order mark does not belong to the text
ITEMS = st.fixed_dictionaries({}, optional={"image": st.sampled_from(IMAGES), "text": TEXTS})
SAME_ID = {"X-Request-Id": "same"}


def in_json(item):
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in item.items()
    }


def in_form(item):
    """Return the fields of a form. It always has a model, so that a form without inputs is a form, too."""
    fields = {"model": (None, "toy")}
    if "image" in item:
        fields["image"] = ("a.png", item["image"])
    if "text" in item:
        fields["text"] = (None, item["text"].encode())
    return fields


@pytest.mark.parametrize("task", [TASKS["classify"], TASKS["embed"]], ids=["classify", "embed"])
@given(items=st.lists(ITEMS, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_an_item_gets_the_same_answer_in_a_form_in_json_and_in_a_batch(client, task, items):
    path = f"/v1/{task.name}"
    batch = {"items": [in_json(item) for item in items]}
    together = (await client.post(f"{path}/batch", json=batch, headers=SAME_ID)).json()["items"]
    for item, answer in zip(items, together, strict=True):
        by_json = await client.post(path, json=in_json(item), headers=SAME_ID)
        by_form = await client.post(path, files=in_form(item), headers=SAME_ID)
        assert (by_form.status_code, by_form.json()) == (by_json.status_code, by_json.json())
        assert answer["status"] == by_json.status_code
        assert answer[task.result if by_json.status_code == 200 else "problem"] == by_json.json()


@pytest.mark.parametrize("batch", ["", "/batch"])
async def test_a_task_that_the_model_lacks_is_answered_with_the_tasks_that_it_has(serving, batch):
    model = make_predictor()
    model.description = replace(model.description, capabilities=frozenset({TASKS["embed"].needs}))
    body = {"items": [{"text": "red"}]} if batch else {"text": "red"}
    async with serving({"toy": model}) as client:
        refused = await client.post(f"/v1/classify{batch}", json=body)
        answered = await client.post(f"/v1/embed{batch}", json=body)
        listed = (await client.get("/v1/models")).json()["models"]
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_task")
    assert refused.json()["detail"] == 'model: "toy", which has no task classify; allowed: embed'
    assert answered.status_code == 200
    assert [model["tasks"] for model in listed] == [["embed"]]


def test_the_json_of_an_answer_has_no_null():
    """For clients `interval` is missing rather than null."""
    for task in TASKS.values():
        for example in task.Answer.model_config["json_schema_extra"]["examples"]:
            assert "null" not in json.dumps(task.Answer.model_validate(example).model_dump(exclude_none=True))
