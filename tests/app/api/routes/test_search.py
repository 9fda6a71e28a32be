"""POST /v1/search and GET /v1/indexes."""

import base64
import dataclasses

import pytest

from polymodal.app.main import create_app
from polymodal.model import SearchIndexError
from tests.app.conftest import make_predictor, write_toy_index

HALF = pytest.approx(2**-0.5, abs=1e-6)


@pytest.fixture
def things(tmp_path):
    return write_toy_index(tmp_path / "things")


@pytest.fixture
def searching(serving, make, things):
    """`async with searching(…) as client`: a service with an aligned model and the index things."""
    return lambda **changed: serving({"toy": make(aligned=True)}, **{"indexes": (things,), **changed})


def ids(answer):
    return [hit["id"] for hit in answer.json()["hits"]]


async def test_a_text_finds_similar_items_best_first(searching):
    async with searching() as client:
        answer = await client.post("/v1/search", json={"index": "things", "query": {"text": "red"}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    hits = body.pop("hits")
    assert body == {"index": "things", "model": "toy", "digest": "ab" * 32, "modalities": ["text"], "prior": 0.5}
    assert [hit["id"] for hit in hits] == ["a", "b", "c"]
    assert [hit["cosine"] for hit in hits] == [1.0, HALF, 0.0]
    assert hits[0]["match"] == pytest.approx(0.999955, abs=1e-5)
    assert hits[1]["metadata"] == {"text": "red green", "shade": "red", "words": 2}
    assert hits[1]["modalities"] == ["text"]


async def test_an_image_finds_texts_in_json_and_in_a_form(searching, solid):
    image = solid("blue")
    async with searching() as client:
        body = {"query": {"image": base64.b64encode(image).decode()}, "top_k": 1}
        in_json = await client.post("/v1/search", json=body)
        form = {"top_k": "1", "filter": '{"shade": "blue"}', "prior": "0.5", "min_match": "0.5", "index": "things"}
        in_form = await client.post("/v1/search", files={"image": image}, data=form)
        both = await client.post("/v1/search", files={"image": image}, data={"text": "blue", "top_k": "1"})
    assert (ids(in_json), ids(in_form)) == (["c"], ["c"])
    assert in_json.json() == in_form.json()
    assert (both.json()["modalities"], ids(both)) == (["image", "text"], ["c"])
    assert "match" not in both.json()["hits"][0]  # image+text with text was not calibrated


async def test_filter_min_match_and_prior_limit_the_hits(searching):
    async with searching() as client:

        async def search(**options):
            return await client.post("/v1/search", json={"query": {"text": "red"}, **options})

        assert ids(await search(filter={"shade": "red"})) == ["a", "b"]
        assert ids(await search(filter={"shade": "red", "words": 2})) == ["b"]
        assert ids(await search(filter={"words": "2"})) == ["b"]
        assert ids(await search(filter={"shade": "green"})) == []
        assert ids(await search(min_match=0.9)) == ["a", "b"]
        assert ids(await search(min_match=0.9, prior=0.001)) == ["a"]
        assert (await search(prior=0.001)).json()["prior"] == 0.001
        assert ids(await search(top_k=1000)) == ["a", "b", "c"]
        assert ids(await search(top_k=2.0)) == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        pytest.param(
            {},
            422,
            "invalid_parameter",
            "query: null; allowed: an object with image, text, audio or several",
            id="none",
        ),
        pytest.param({"query": {}}, 422, "nothing_given", "at least one of image, text", id="nothing"),
        pytest.param({"query": {"text": " "}}, 422, "nothing_given", "at least one of image, text", id="blank"),
        pytest.param({"query": "red"}, 422, "invalid_parameter", 'query: "red"; allowed: an object', id="no-object"),
        pytest.param({"text": "red"}, 400, "unknown_field", "allowed: index, top_k, filter, min_match", id="flat"),
        pytest.param({"query": {"text": "red"}, "model": "toy"}, 400, "unknown_field", 'field "model"', id="model"),
        pytest.param({"index": "x", "query": {"text": "red"}}, 404, "unknown_index", "allowed: things", id="unknown"),
        pytest.param(
            {"index": 5, "query": {"text": "red"}}, 422, "invalid_parameter", "index: 5; allowed: the name", id="5"
        ),
        pytest.param({"query": {"text": "red"}, "top_k": 0}, 422, "invalid_parameter", "from 1 to 1000", id="top-k"),
        pytest.param({"query": {"text": "red"}, "top_k": 1001}, 422, "invalid_parameter", "top_k: 1001", id="too-many"),
        pytest.param({"query": {"text": "red"}, "prior": 1}, 422, "invalid_parameter", "between 0 and 1", id="prior"),
        pytest.param(
            {"query": {"text": "red"}, "min_match": 1.5}, 422, "invalid_parameter", "from 0 to 1", id="min-match"
        ),
        pytest.param(
            {"query": {"text": "red"}, "filter": {"colour": "red"}},
            422,
            "invalid_parameter",
            "filter: key 'colour'; allowed: text, shade, words, modalities",
            id="unknown-key",
        ),
        pytest.param(
            {"query": {"text": "red"}, "filter": {"shade": ["red"]}},
            422,
            "invalid_parameter",
            "filter: a list of 1; allowed: an object of up to 16 values",
            id="nested",
        ),
        pytest.param({"query": {"text": "red"}, "filter": "red"}, 422, "invalid_parameter", 'filter: "red"', id="text"),
        pytest.param(
            {"query": {"image": "bm90IGFuIGltYWdl"}}, 415, "unsupported_format", "image: bytes of no known", id="image"
        ),
        pytest.param({"query": {"image": "*"}}, 400, "malformed_body", "image:", id="base64"),
        pytest.param(
            {"query": {"text": "red", "image": None}, "min_match": 0.5, "filter": {"shade": "x"}},
            200,
            "",
            "",
            id="null",
        ),
    ],
)
async def test_a_bad_request_is_explained(searching, body, status, code, detail):
    async with searching() as client:
        answer = await client.post("/v1/search", json=body)
    assert (answer.status_code, answer.json().get("code", "")) == (status, code), answer.text
    assert detail in answer.json().get("detail", "")


async def test_faults_of_json_name_their_field(searching):
    async with searching() as client:
        headers = {"Content-Type": "application/json"}
        for body, detail in (
            ('{"query": {"text": "red"}, "filter": {"shade": NaN}}', "filter: NaN; allowed: JSON"),
            ('{"query": {"text": "red", "text": "b"}}', 'query: field "text" twice'),
            ('{"query": {"text": "red"}, "filter": {"a": 1, "a": 2}}', 'filter: field "a" twice'),
            (r'{"query": {"text": "red"}, "filter": {"shade": "\ud83d"}}', "filter: half of a surrogate pair"),
            (r'{"query": {"text": "red"}, "filter": {"\ud83d": "red"}}', "filter: half of a surrogate pair"),
            (r'{"query": {"text": "red"}, "index": "\ud83d"}', "index: half of a surrogate pair"),
            ('{"query": NaN}', "query: NaN; allowed: JSON"),
        ):
            answer = await client.post("/v1/search", content=body, headers=headers)
            assert answer.status_code == 400
            assert detail in answer.json()["detail"]


async def test_min_match_without_any_calibration_is_rejected(searching, solid):
    async with searching() as client:
        form = {"text": "red", "min_match": "0.5"}
        answer = await client.post("/v1/search", files={"image": solid("red")}, data=form)
    assert answer.status_code == 422
    assert "min_match: 0.5 for image and text, whose match with the items" in answer.json()["detail"]


async def test_without_an_index_the_first_one_is_searched(searching, things, tmp_path):
    second = write_toy_index(tmp_path / "second", colours={"x": "green"})
    async with searching(indexes=(second, things)) as client:
        assert (await client.post("/v1/search", json={"query": {"text": "red"}})).json()["index"] == "second"
        listed = (await client.get("/v1/indexes")).json()["indexes"]
    assert [index["name"] for index in listed] == ["second", "things"]


async def test_a_service_without_indexes_has_none(searching):
    async with searching(indexes=()) as client:
        answer = await client.post("/v1/search", json={"query": {"text": "red"}})
        assert (await client.get("/v1/indexes")).json() == {"indexes": []}
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_index")
    assert answer.json()["detail"] == "index: none; allowed: nothing, because POLYMODAL_INDEXES names no index"


async def test_an_empty_index_has_no_hits(searching, tmp_path):
    empty = write_toy_index(tmp_path / "empty", colours={})
    async with searching(indexes=(empty,)) as client:
        answer = await client.post("/v1/search", json={"query": {"text": "red"}, "min_match": 0.5})
    assert (answer.status_code, ids(answer)) == (200, [])


async def test_indexes_are_listed_with_what_filters_and_matches_need(searching):
    async with searching() as client:
        (listed,) = (await client.get("/v1/indexes")).json()["indexes"]
    assert listed == {
        "name": "things",
        "items": 3,
        "dimensions": 3,
        "modalities": {"text": 3},
        "filters": ["text", "shade", "words", "modalities"],
        "digest": "ab" * 32,
        "model": "toy",
        "usable": True,
    }


@pytest.fixture
def stale(tmp_path):
    """An index of an older version of the model."""
    model = make_predictor("old", aligned=True)
    model.description = dataclasses.replace(model.description, digest="cd" * 32)
    return write_toy_index(tmp_path / "stale", model)


async def test_an_index_of_another_version_leaves_the_rest_working(searching, stale, things, logs):
    async with searching(indexes=(stale, things)) as client:
        answer = await client.post("/v1/search", json={"index": "stale", "query": {"text": "red"}})
        good = await client.post("/v1/search", json={"index": "things", "query": {"text": "red"}})
        classified = await client.post("/v1/classify", json={"text": "red"})
        listed = (await client.get("/v1/indexes")).json()["indexes"]
        metrics = (await client.get("/metrics")).text
    assert (answer.status_code, answer.json()["code"]) == (409, "index_of_another_model")
    assert answer.json()["found"] == '"stale", built with version cdcdcdcdcdcd… of old'
    assert "abababababab… of toy" in answer.json()["allowed"]
    assert "polymodal index build MANIFEST --out FOLDER --bundle BUNDLE --restart" in answer.json()["allowed"]
    assert str(stale.path.parent) not in answer.text
    assert (good.status_code, classified.status_code) == (200, 200)
    assert [(index["model"], index["usable"]) for index in listed] == [("old", False), ("toy", True)]
    (warning,) = [line for line in logs if line["event"] == "index_of_another_model"]
    assert (warning["log_level"], warning["index"], warning["folder"]) == ("warning", "stale", str(stale.path))
    assert warning["next"] == f"polymodal index build MANIFEST --out {stale.path} --bundle BUNDLE --restart"
    assert 'polymodal_index_usable{index="stale"} 0.0' in metrics
    assert 'polymodal_index_usable{index="things"} 1.0' in metrics
    assert 'polymodal_index_items{index="things"} 3.0' in metrics


async def test_a_broken_index_stops_the_start(searching, things):
    (things.path / "items.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(SearchIndexError, match=r"items.jsonl was altered"):
        async with searching():
            pass


async def test_an_index_that_is_replaced_while_it_is_served_stays_in_memory(searching, things):
    async with searching() as client:
        write_toy_index(things.path, colours={"z": "red"})
        assert ids(await client.post("/v1/search", json={"query": {"text": "red"}})) == ["a", "b", "c"]
    async with searching() as client:
        assert ids(await client.post("/v1/search", json={"query": {"text": "red"}})) == ["z"]


async def test_stages_and_log_lines_have_the_search(searching, logs):
    async with searching() as client:
        answer = await client.post("/v1/search", json={"query": {"text": "red"}})
        metrics = (await client.get("/metrics")).text
    stages = [stage.split(";dur=")[0] for stage in answer.headers["Server-Timing"].split(", ")]
    assert stages == ["read", "queue", "decode", "encode_text", "search"]
    assert 'polymodal_stage_duration_seconds_count{model="toy",stage="search"} 1.0' in metrics
    (line,) = [line for line in logs if line.get("route") == "/v1/search"]
    assert (line["model"], line["modalities"]) == ("toy", ["text"])


async def test_a_deadline_holds_for_a_search(serving, make, runtime, things):
    async with serving({"toy": make(runtime=runtime, aligned=True)}, indexes=(things,)) as client:
        runtime.may_go.clear()
        late = {"X-Request-Timeout-Ms": "30"}
        answer = await client.post("/v1/search", json={"query": {"text": "red"}}, headers=late)
        runtime.may_go.set()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_the_document_describes_both_kinds_of_body(settings):
    operation = create_app(settings, {}).openapi()["paths"]["/v1/search"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    statuses = {"200", "400", "404", "408", "409", "413", "415", "422", "429", "503", "504", "default"}
    assert set(operation["responses"]) == statuses
