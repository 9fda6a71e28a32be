"""Calls of LiteLLM, to the service as an address of OpenAI's API."""

import asyncio

import litellm
from report import IMAGE, KEY, SERVICE, SOUND, refused, report

address = {"model": "openai/toy", "api_base": f"{SERVICE}/v1", "api_key": KEY, "num_retries": 0, "max_retries": 0}

answer = litellm.embedding(**address, input=["red", "green blue"])
assert [entry["index"] for entry in answer.data] == [0, 1]
assert answer.data[0]["embedding"] == [1.0, 0.0, 0.0]
assert answer.usage.prompt_tokens == 3
report('`embedding(model="openai/…", api_base=…, input=[…])`', "all vectors, in order; `usage`")

base64 = litellm.embedding(**address, input=["red"], encoding_format="base64")
assert base64.data[0]["embedding"] in ("AACAPwAAAAAAAAAA", [1.0, 0.0, 0.0]), base64
report('`embedding(encoding_format="base64")`', "the vector")

image = litellm.embedding(**address, input=[{"image": IMAGE}])
assert image.data[0]["embedding"] == [1.0, 0.0, 0.0]
report('`embedding(input=[{"image": data URI}])`', "the vector of the image")


with open(SOUND, "rb") as file:
    transcript = litellm.transcription(**{**address, "model": "openai/speech"}, file=file)
assert len(transcript.text.split()) == 2, transcript
assert transcript.duration == 7.0, transcript
report('`transcription(model="openai/…", file=…)`', "`text`, `duration`")


async def concurrently() -> None:
    answers = await asyncio.gather(*(litellm.aembedding(**address, input=["blue"]) for _ in range(8)))
    assert {tuple(answer.data[0]["embedding"]) for answer in answers} == {(0.0, 0.0, 1.0)}


asyncio.run(concurrently())
report("`aembedding`, 8 requests at a time", "all vectors")

for kind, change, words in (
    (litellm.BadRequestError, {"input": ["red", ""]}, "input[1]: an empty string"),
    (litellm.BadRequestError, {"input": [[1, 2]]}, "check_embedding_ctx_length=False"),
    (litellm.NotFoundError, {"input": ["red"], "model": "openai/x"}, "allowed: toy, plain"),
    (litellm.AuthenticationError, {"input": ["red"], "api_key": "none"}, "unknown"),
    (litellm.InternalServerError, {"input": ["red red red red red"]}, "the log has it"),
):
    refused(kind, lambda change=change: litellm.embedding(**{**address, **change}), words)
    name, value = list(change.items())[-1]
    report(f"`embedding({name}={value!r})`", f"`{kind.__name__}`: {words}")
