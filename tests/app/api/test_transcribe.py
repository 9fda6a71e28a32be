"""POST /v1/transcribe with a scripted recogniser, next to a classifier."""

import base64
import json

import pytest

from tests.app.conftest import make_predictor
from tests.speech_models import Script, pause, scripted, tone, wav, write_speech

SPOKEN = wav(pause(1), tone(2), pause(1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "speech", golden=())


@pytest.fixture
def recogniser():
    return Script()


@pytest.fixture
async def client(serving, bundle, recogniser):
    async with serving({"toy": make_predictor(), "speech": scripted(bundle, recogniser)}) as client:
        yield client


def encoded(content):
    return base64.b64encode(content).decode()


async def test_a_form_json_and_a_batch_have_the_same_answer(client):
    form = (await client.post("/v1/transcribe", files={"audio": SPOKEN})).json()
    single = (await client.post("/v1/transcribe", json={"audio": encoded(SPOKEN)})).json()
    batch = (await client.post("/v1/transcribe/batch", json={"items": [{"audio": encoded(SPOKEN)}]})).json()
    texts = [answer["text"] for answer in (form, single, batch["items"][0]["transcription"])]
    assert texts == ["one", "two", "three"]  # the script goes on
    assert {**form, "text": "", "segments": []} == {**single, "text": "", "segments": []}
    assert form["segments"] == [{"text": "one", "start": 1.0, "end": 3.0, "confidence": 0.9048}]
    assert (form["seconds"], form["speech_seconds"], form["silence_seconds"]) == (4.0, 2.0, 2.0)
    assert (form["language"], form["language_probability"], form["warnings"]) == ("en", 0.75, [])
    assert form["model"] == "speech"


async def test_silence_is_answered_as_silence(client):
    answer = (await client.post("/v1/transcribe", files={"audio": wav(pause(2))})).json()
    assert (answer["text"], answer["segments"], answer["reason"]) == ("", [], "silence")
    assert answer["silence_seconds"] == 2.0
    assert "language" not in answer


async def test_options_reach_the_recogniser_from_forms_and_json(client, recogniser):
    options = {"language": "de", "prompt": "1984", "phrases": ["Ada Lovelace"], "words": True, "temperature": 0.5}
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    await client.post("/v1/transcribe", files={"audio": SPOKEN}, data=form)
    answer = (await client.post("/v1/transcribe", json={"audio": encoded(SPOKEN), **options})).json()
    (_, first), (_, second) = recogniser.calls
    assert first == second
    assert (first.language, first.prompt, first.phrases, first.temperature) == ("de", "1984", ("Ada Lovelace",), 0.5)
    assert answer["segments"][0]["words"] == [{"text": "two", "start": 1.0, "end": 3.0, "confidence": 0.9}]


async def test_candidates_are_ranked(client):
    body = {"audio": encoded(SPOKEN), "candidates": ["two", "one"]}
    answer = (await client.post("/v1/transcribe", json=body)).json()
    assert answer["text"] == "one"
    assert [candidate["text"] for candidate in answer["candidates"]] == ["one", "two"]
    assert answer["segments"][0]["confidence"] == pytest.approx(answer["candidates"][0]["probability"], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({"language": "fr"}, 'language: "fr"; allowed: de, en, the languages of this model', id="language"),
        pytest.param(
            {"candidates": ["a", "a"]}, 'candidates: "a" twice; allowed: each candidate once', id="candidate-twice"
        ),
        pytest.param(
            {"candidates": ["a"]}, "candidates: a list of 1; allowed: a list of 2 to 500 texts", id="one-candidate"
        ),
        pytest.param({"phrases": [""]}, 'phrases: ""; allowed: a list of 1 to 100 texts', id="empty-phrase"),
        pytest.param({"prompt": "x" * 1001}, "allowed: a text of up to 1,000 characters", id="long-prompt"),
        pytest.param({"temperature": 2}, "temperature: 2; allowed: a number from 0 to 1", id="temperature"),
        pytest.param({"words": "yes"}, 'words: "yes"; allowed: true or false', id="words"),
    ],
)
async def test_options_that_cannot_be_are_explained(client, options, problem):
    answer = await client.post("/v1/transcribe", json={"audio": encoded(SPOKEN), **options})
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        pytest.param("transcribe", {}, 422, "request: no audio; allowed: audio", id="nothing"),
        pytest.param("transcribe", {"image": "AAAA"}, 400, 'body: field "image"; allowed: audio, language', id="image"),
        pytest.param(
            "classify", {"audio": "AAAA"}, 422, "audio: not an input of this model; allowed: image, text", id="classify"
        ),
        pytest.param("transcribe", {"audio": "AAAA"}, 415, "audio: bytes of no known", id="no-sound"),
        pytest.param(
            "transcribe", {"audio": "https://x.example/a.wav"}, 422, "audio: a URL of the scheme https", id="url"
        ),
        pytest.param(
            "transcribe", {"audio": encoded(SPOKEN), "model": "toy"}, 404, "which has no task transcribe", id="toy"
        ),
        pytest.param("embed", {"text": "words", "model": "speech"}, 404, "which has no task embed", id="embed"),
    ],
)
async def test_requests_that_cannot_be_answered_are_explained(client, path, body, status, problem):
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code == status
    assert problem in answer.json()["detail"]


async def test_a_bad_item_of_a_batch_fails_alone(client):
    items = [{"audio": encoded(SPOKEN), "id": "good"}, {"audio": "AAAA"}, {}, 3]
    answers = (await client.post("/v1/transcribe/batch", json={"items": items})).json()["items"]
    assert [answer["status"] for answer in answers] == [200, 415, 422, 422]
    assert answers[3]["problem"]["detail"] == "item: 3; allowed: an object with audio"


async def test_a_task_without_a_model_uses_the_first_model_that_has_it(client):
    assert (await client.post("/v1/classify", json={"text": "words"})).json()["model"] == "toy"
    assert (await client.post("/v1/transcribe", json={"audio": encoded(SPOKEN)})).json()["model"] == "speech"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/similarity", {"query": {"text": "red"}, "candidates": [{"text": "blue"}]}),
        ("/v1/embeddings", {"input": ["red"]}),
        ("/v2/rerank", {"query": "red", "documents": ["blue"]}),
    ],
)
async def test_vectors_are_those_of_the_first_model_that_has_any(serving, bundle, path, body):
    async with serving({"speech": scripted(bundle), "toy": make_predictor(aligned=True)}) as client:
        answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json().get("model", "toy")) == (200, "toy")


async def test_the_model_is_described_with_languages_and_limits(client):
    models = (await client.get("/v1/models")).json()["models"]
    (model,) = [model for model in models if model["name"] == "speech"]
    assert (model["kind"], model["tasks"], model["languages"]) == ("speech", ["transcribe"], ["de", "en"])
    (audio,) = model["inputs"]
    assert audio["limits"] == {"max_seconds": 600, "max_channels": 8, "max_bytes": 20_000_000}


async def test_texts_have_no_control_characters(serving, bundle):
    async with serving({"speech": scripted(bundle, Script(words=("a\x00\x1b[31mb",)))}) as client:
        answer = (await client.post("/v1/transcribe", files={"audio": SPOKEN})).json()
    assert answer["text"] == answer["segments"][0]["text"] == "a[31mb"


async def test_metrics_have_the_stage_and_the_route(client):
    await client.post("/v1/transcribe", files={"audio": SPOKEN})
    metrics = (await client.get("/metrics")).text
    assert 'stage="transcribe"' in metrics
    assert 'http_route="/v1/transcribe"' in metrics
