"""POST /v1/audio/transcriptions and /v1/audio/translations with a scripted recogniser."""

import json

import pytest

from tests.app.conftest import make_predictor
from tests.speech_models import Script, pause, scripted, tone, wav, write_speech

SPOKEN = wav(pause(1), tone(2), pause(3), tone(1))
PATH = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "speech", golden=())


@pytest.fixture
def recogniser():
    return Script()


@pytest.fixture
async def client(serving, bundle, recogniser):
    english = Script()
    english.languages = ("en",)
    models = {
        "toy": make_predictor(),
        "speech": scripted(bundle, recogniser),
        "english": scripted(bundle, english, name="english"),
    }
    async with serving(models) as client:
        yield client


async def sent(client, path=PATH, content=SPOKEN, **fields):
    return await client.post(path, files={"file": ("a.wav", content)}, data={"model": "speech", **fields})


async def test_json_has_the_text_and_the_duration(client):
    answer = await sent(client)
    assert answer.json() == {"text": "one two", "usage": {"type": "duration", "seconds": 7.0}}
    assert answer.headers["content-type"] == "application/json"


async def test_text_is_plain(client):
    answer = await sent(client, response_format="text")
    assert (answer.text, answer.headers["content-type"]) == ("one two\n", "text/plain; charset=utf-8")


async def test_srt_and_vtt_are_subtitles(client, recogniser):
    srt = await sent(client, response_format="srt")
    assert srt.text == "1\n00:00:01,000 --> 00:00:03,000\none\n\n2\n00:00:06,000 --> 00:00:07,000\ntwo\n\n"
    vtt = await sent(client, response_format="vtt")
    assert vtt.text.startswith("WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n")
    silent = await sent(client, content=wav(pause(1)), response_format="vtt")
    assert silent.text == "WEBVTT\n\n"


async def test_verbose_json_has_everything_that_clients_read(client):
    answer = (await sent(client, response_format="verbose_json", language="en")).json()
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "english", 7.0)
    assert [segment["id"] for segment in answer["segments"]] == [0, 1]
    assert set(answer["segments"][0]) == {
        *("id", "seek", "start", "end", "text", "tokens"),
        *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
    }
    assert (answer["speech_seconds"], answer["silence_seconds"], answer["warnings"]) == (3.0, 4.0, [])
    assert "words" not in answer


@pytest.mark.parametrize("field", ["timestamp_granularities[]", "timestamp_granularities"])
async def test_words_have_times_with_and_without_brackets_and_with_several_values(client, field):
    fields = {field: ["word", "segment"], "response_format": "verbose_json"}
    answer = (await sent(client, **fields)).json()
    assert answer["words"][1] == {"word": "two", "start": 6.0, "end": 7.0}


async def test_keywords_prompt_and_temperature_guide_the_recogniser(client, recogniser):
    await sent(client, **{"keywords[]": ["Ada", "42"], "prompt": "[a meeting]", "temperature": "0"})
    _, guidance = recogniser.calls[0]
    assert guidance.prompt == "[a meeting]"
    assert guidance.temperature is None
    assert guidance.phrases == ("Ada", "42")


async def test_fields_without_effect_are_named(client):
    fields = {"languages[]": "en", "include[]": "logprobs", "chunking_strategy[type]": "server_vad"}
    answer = await sent(client, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ignored-fields"] == "languages, include, chunking_strategy"


async def test_a_stream_has_deltas_one_end_and_done(client):
    answer = await sent(client, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end, empty = answer.text.split("\n\n")
    assert (end, empty) == ("data: [DONE]", "")
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [event["type"].rpartition(".")[2] for event in parsed] == ["delta", "delta", "done"]
    assert "".join(event["delta"] for event in parsed[:-1]) == parsed[-1]["text"] == "one two"


async def test_translations_are_requested_from_the_recogniser(client, recogniser):
    answer = await sent(client, "/v1/audio/translations", response_format="verbose_json")
    assert answer.json()["task"] == "translate"
    assert recogniser.calls[0][1].translate


async def test_a_model_of_one_language_does_not_translate(client):
    answer = await sent(client, "/v1/audio/translations", model="english")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_task"
    assert (
        answer.json()["detail"] == 'model: "english", which recognises en alone; allowed: a model of several languages'
    )


@pytest.mark.parametrize(
    ("content", "fields", "status", "param", "message"),
    [
        pytest.param(b"text", {}, 400, "file", "file: a text; allowed: audio/wav, ", id="no-sound"),
        pytest.param(SPOKEN, {"model": "whisper-1"}, 404, "model", 'model: "whisper-1"', id="model"),
        pytest.param(SPOKEN, {"model": "toy"}, 404, "model", "which has no task transcribe", id="classifier"),
        pytest.param(
            SPOKEN,
            {"response_format": "diarized_json"},
            400,
            "response_format",
            "allowed: json, text, srt",
            id="format",
        ),
        pytest.param(SPOKEN, {"known_speaker_names[]": "Ada"}, 400, "body", "known_speaker_names", id="speakers"),
        pytest.param(SPOKEN, {"language": "xx"}, 400, "language", "allowed: de, en", id="language"),
        pytest.param(
            SPOKEN,
            {"timestamp_granularities[]": "page"},
            400,
            "timestamp_granularities",
            "allowed: word, segment",
            id="page",
        ),
        pytest.param(
            SPOKEN, {"include[]": ["logprobs"] * 129}, 400, "include", "more than 128 values", id="many-values"
        ),
    ],
)
async def test_problems_are_those_that_openai_clients_read(client, content, fields, status, param, message):
    answer = await sent(client, content=content, **fields)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param


async def test_a_form_without_a_file_is_explained(client):
    answer = await client.post(PATH, data={"model": "speech"}, files={"prompt": (None, "x")})
    assert (answer.status_code, answer.json()["detail"]) == (400, "file: no file; allowed: a recording")


async def test_a_json_body_is_explained(client):
    answer = await client.post(PATH, json={"file": "AAAA"})
    assert (answer.status_code, answer.json()["allowed"]) == (415, "multipart/form-data")
