"""Calls of OpenAI's client for Python, sync and asyncio."""

import asyncio
import struct
import time
from pathlib import Path

import openai
from openai import AsyncOpenAI, OpenAI
from report import IMAGE, KEY, LIMITED, NARROW_KEY, SERVICE, SOUND, refused, report

client = OpenAI(base_url=f"{SERVICE}/v1", api_key=KEY, max_retries=0)
create = client.embeddings.create
SPOKEN = Path(SOUND).read_bytes()


def vectors() -> None:
    default = create(model="toy", input="red green")
    plain = create(model="toy", input="red green", encoding_format="float")
    assert default.data[0].embedding == [single(number) for number in plain.data[0].embedding], default
    assert (default.model, default.object, default.usage.prompt_tokens) == ("toy", "list", 2)
    report("`embeddings.create(input=text)`, by default base64", "the same float32 numbers as with `float`")
    several = create(model="toy", input=["red", "green", "blue"])
    assert [entry.index for entry in several.data] == [0, 1, 2]
    assert [entry.embedding.index(1.0) for entry in several.data] == [0, 1, 2]
    assert len(create(model="toy", input=["red"] * 2048).data) == 2048
    report("`embeddings.create(input=[…])`, 3 and 2,048 texts", "all vectors, in order")
    images = create(model="toy", input=[{"image": IMAGE}, {"text": "green", "image": IMAGE}, "red"])
    assert images.data[0].embedding == images.data[2].embedding == [1.0, 0.0, 0.0]
    assert images.data[1].model_extra == {"modalities": ["image", "text"]}
    report('`input=[{"image": data URI}, {"image": …, "text": …}, text]`', "vectors of one space")
    uri = create(model="toy", input=[IMAGE], extra_body={"modality": "image"})
    assert uri.data[0].embedding == [1.0, 0.0, 0.0]
    report('`extra_body={"modality": "image"}`', "a vector of the image")
    content = [{"type": "image_url", "image_url": {"url": IMAGE}}, {"type": "text", "text": "red"}]
    body = {"messages": [{"role": "user", "content": content}]}
    chat = client.post("/embeddings", cast_to=openai.types.CreateEmbeddingResponse, body=body)
    assert chat.data[0].embedding == [1.0, 0.0, 0.0]
    report('`post("/embeddings", body={"messages": …})`', "one vector of the conversation")
    raw = client.embeddings.with_raw_response.create(model="toy", input="red", user="u", dimensions=3)
    assert raw.headers["x-ignored-fields"] == "user"
    assert raw.headers["x-request-id"]
    report("`with_raw_response.create(user=…, dimensions=3)`", "`X-Ignored-Fields: user`, `X-Request-Id`")


def single(number: float) -> float:
    """Return the number as float32 has it."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


async def concurrently() -> None:
    async with AsyncOpenAI(base_url=f"{SERVICE}/v1", api_key=KEY) as asynchronous:
        answers = await asyncio.gather(
            *(asynchronous.embeddings.create(model="toy", input=["red", "blue"]) for _ in range(16))
        )
    assert {tuple(answer.data[1].embedding) for answer in answers} == {(0.0, 0.0, 1.0)}
    report("`AsyncOpenAI`, 16 requests at a time", "all vectors")


def models() -> None:
    listed = client.models.list()
    assert [model.id for model in listed] == ["toy", "plain", "speech"]
    assert client.models.retrieve("toy").created == listed.data[0].created > 1_700_000_000
    report("`models.list()`, `models.retrieve(name)`", "ids, `created`, `owned_by`")


def words_of(text: str) -> int:
    """Return how many words a scripted transcript has; the script goes on from request to request."""
    assert set(text.split()) <= {"one", "two", "three", "four"}, text
    return len(text.split())


def recordings() -> None:
    def transcribe(**fields):
        with open(SOUND, "rb") as file:
            return client.audio.transcriptions.create(model="speech", file=file, **fields)

    plain = transcribe()
    assert (words_of(plain.text), plain.usage.type, plain.usage.seconds) == (2, "duration", 7.0)
    report("`audio.transcriptions.create(file=…)`", "`text`, `usage.seconds`")
    assert words_of(transcribe(response_format="text")) == 2
    assert transcribe(response_format="srt").startswith("1\n00:00:01,000 --> 00:00:03,000\n")
    assert transcribe(response_format="vtt").startswith("WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n")
    report('`response_format="text"`, `"srt"`, `"vtt"`', "the text; subtitles")
    verbose = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"], language="en")
    assert (verbose.language, verbose.duration, len(verbose.segments)) == ("english", 7.0, 2)
    assert [(word.start, word.end) for word in verbose.words] == [(1.0, 3.0), (6.0, 7.0)]
    assert verbose.model_extra["speech_seconds"] == 3.0
    report(
        '`response_format="verbose_json", timestamp_granularities=["word", "segment"]`', "segments, words, `duration`"
    )
    events = list(transcribe(stream=True))
    assert [event.type for event in events][-2:] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == "".join(event.delta for event in events[:-1])
    report("`stream=True`", "deltas, then the whole text")
    guided = transcribe(
        prompt="a meeting", temperature=0, chunking_strategy={"type": "server_vad"}, include=["logprobs"]
    )
    assert words_of(guided.text) == 2
    report("`prompt=…, temperature=0, chunking_strategy={…}, include=[…]`", "`text`; the last two without effect")
    with open(SOUND, "rb") as file:
        assert words_of(client.audio.translations.create(model="speech", file=file).text) == 2
    report("`audio.translations.create(file=…)`", "`text`")
    for fields, words in (
        ({"file": ("a.mp3", b"no sound")}, "file: no WAV"),
        ({"response_format": "diarized_json"}, "allowed: json, text, srt, verbose_json, vtt"),
        ({"language": "xx"}, "allowed: de, en"),
    ):
        call = lambda fields=fields: (  # noqa: E731
            client.audio.transcriptions.create(**{"model": "speech", "file": ("a.wav", SPOKEN), **fields})
        )
        error = refused(openai.BadRequestError, call, words)
        assert error.param in fields
        report(f"`transcriptions.create({shown(fields)})`", f"`BadRequestError`: {words}")
    kind = openai.NotFoundError
    with open(SOUND, "rb") as file:
        refused(kind, lambda: client.audio.transcriptions.create(model="toy", file=file), "no task transcribe")
    report('`transcriptions.create(model="toy")`, a classifier', "`NotFoundError`: no task transcribe")


async def recordings_concurrently() -> None:
    async with AsyncOpenAI(base_url=f"{SERVICE}/v1", api_key=KEY) as asynchronous:
        content = ("a.wav", SPOKEN)
        create_one = asynchronous.audio.transcriptions.create
        answers = await asyncio.gather(*(create_one(model="speech", file=content) for _ in range(8)))
    assert {words_of(answer.text) for answer in answers} == {2}
    report("`AsyncOpenAI`, 8 recordings at a time", "all texts")


def errors() -> None:
    refusals = [
        (openai.BadRequestError, {"input": ["red", ""]}, ("input[1]: an empty string",)),
        (openai.BadRequestError, {"input": []}, ("input: an empty list",)),
        (openai.BadRequestError, {"input": ["red"] * 2049}, ("2,049 inputs; allowed: up to 2,048",)),
        (openai.BadRequestError, {"input": [[1, 2, 3]]}, ("check_embedding_ctx_length=False",)),
        (openai.BadRequestError, {"input": [{"image": "https://x.example/a.png"}]}, ("fetches nothing",)),
        (openai.BadRequestError, {"input": [{"image": "bm8="}]}, ("input[0].image: bytes of no known",)),
        (openai.BadRequestError, {"input": "red", "extra_body": {"task": "x"}}, ('field "task"',)),
        (openai.NotFoundError, {"input": "red", "model": "text-embedding-3-small"}, ("allowed: toy, plain, speech",)),
        (openai.APIStatusError, {"input": "x" * 300_000}, ("300000 bytes; allowed: up to 262144",)),
        (openai.InternalServerError, {"input": "red red red red red"}, ("the log has it",)),
    ]
    for kind, fields, words in refusals:
        refused(kind, lambda fields=fields: create(**{"model": "toy", **fields}), *words)
        report(f"`create({shown(fields)})`", f"`{kind.__name__}`: {words[0]}")
    error = refused(openai.BadRequestError, lambda: create(model="toy", input="red", dimensions=512), "allowed: 3")
    assert (error.param, error.code, error.type) == ("dimensions", "invalid_parameter", "invalid_request_error")
    report("`create(dimensions=512)`", "`BadRequestError`, `param` is `dimensions`")
    error = refused(openai.NotFoundError, lambda: create(model="x", input="red"))
    assert error.code == "model_not_found"
    report('`create(model="x")`', "`NotFoundError`, `code` is `model_not_found`")
    stranger = OpenAI(base_url=f"{SERVICE}/v1", api_key="none", max_retries=0)
    error = refused(openai.AuthenticationError, lambda: stranger.embeddings.create(model="toy", input="red"), "key")
    assert error.code == "invalid_api_key"
    report("a wrong `api_key`", "`AuthenticationError`, `code` is `invalid_api_key`")
    narrow = OpenAI(base_url=f"{SERVICE}/v1", api_key=NARROW_KEY, max_retries=0)
    kind = openai.PermissionDeniedError
    refused(kind, lambda: narrow.embeddings.create(model="toy", input="red"), "a key with the scope embed")
    report("an `api_key` without the scope `embed`", "`PermissionDeniedError`: a key with the scope embed")


def shown(fields: dict) -> str:
    """Return the last field, which is at fault."""
    name, value = list(fields.items())[-1]
    text = f"{name}={value!r}"
    return text if len(text) < 60 else f"{name}=" + ("[…]" if isinstance(value, list) else "'xxx…'")


def too_long() -> None:
    retrying = OpenAI(base_url=f"{SERVICE}/v1", api_key=KEY, max_retries=3)
    header = {"X-Request-Timeout-Ms": "20"}
    began = time.monotonic()
    call = lambda: retrying.embeddings.create(model="toy", input=["red"] * 2048, extra_headers=header)  # noqa: E731
    refused(openai.InternalServerError, call, "fewer inputs in one request")
    assert time.monotonic() - began < 3, "it was sent again"
    report("2,048 texts that take longer than the request may", "`InternalServerError`: fewer inputs; not sent again")


def retries() -> None:
    limited = OpenAI(base_url=f"{LIMITED}/v1", api_key=KEY, max_retries=0)
    for _ in range(3):
        limited.embeddings.create(model="toy", input="red")
    error = refused(openai.RateLimitError, lambda: limited.embeddings.create(model="toy", input="red"), "again in")
    assert int(error.response.headers["retry-after"]) >= 1
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    report("more requests than the rate limit, `max_retries=0`", "`RateLimitError` with `Retry-After`")
    patient = limited.with_options(max_retries=5)
    raw = patient.embeddings.with_raw_response.create(model="toy", input="red")
    assert raw.retries_taken >= 1
    report("the same with retries", "waits as long as `Retry-After` says, then has the vector")


vectors()
asyncio.run(concurrently())
models()
recordings()
asyncio.run(recordings_concurrently())
errors()
too_long()
retries()
