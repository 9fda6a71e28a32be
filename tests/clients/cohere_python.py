"""Calls of Cohere's client, of both versions of its API, to the service's rerankers."""

import asyncio

import cohere
from cohere.core.request_options import RequestOptions
from report import KEY, NARROW_KEY, SERVICE, refused, report

ONCE = RequestOptions(max_retries=0)
DOCUMENTS = ["blue", "red", "red green"]
client = cohere.ClientV2(api_key=KEY, base_url=SERVICE)

answer = client.rerank(model="toy", query="red", documents=DOCUMENTS, top_n=2)
assert [entry.index for entry in answer.results] == [1, 2]
assert answer.results[0].relevance_score > 0.99
assert answer.meta.billed_units.search_units == 1
report("`ClientV2(api_key, base_url).rerank(documents=[…], top_n=2)`", "the best two, with scores from 0 to 1")

first = cohere.Client(api_key=KEY, base_url=SERVICE)
answer = first.rerank(model="toy", query="red", documents=["blue", {"text": "red"}], return_documents=True)
assert [entry.document.text for entry in answer.results] == ["red", "blue"]
report("`Client(…).rerank(documents=[text, {…}], return_documents=True)`", "all documents, best first")


async def concurrently() -> None:
    async with cohere.AsyncClientV2(api_key=KEY, base_url=SERVICE) as several:
        answers = await asyncio.gather(
            *(several.rerank(model="toy", query="red", documents=DOCUMENTS) for _ in range(8))
        )
    assert {tuple(entry.index for entry in answer.results) for answer in answers} == {(1, 2, 0)}


asyncio.run(concurrently())
report("`AsyncClientV2`, 8 requests at a time", "all documents, best first")

for kind, change, words in (
    (cohere.BadRequestError, {"documents": []}, "documents: a list of 0"),
    (cohere.BadRequestError, {"documents": ["red", " "]}, "documents[1]: nothing"),
    (cohere.NotFoundError, {"model": "x"}, "allowed: toy, plain"),
    (cohere.NotFoundError, {"model": "plain"}, "no aligned vectors"),
    (cohere.InternalServerError, {"documents": ["red red red red red"]}, "the log has it"),
):
    arguments = {"model": "toy", "query": "red", "documents": DOCUMENTS, "request_options": ONCE, **change}
    refused(kind, lambda arguments=arguments: client.rerank(**arguments), words)
    ((name, value),) = change.items()
    report(f"`rerank({name}={value!r})`", f"`{kind.__name__}`: {words}")

narrow = cohere.ClientV2(api_key=NARROW_KEY, base_url=SERVICE)
refused(
    cohere.ForbiddenError,
    lambda: narrow.rerank(model="toy", query="red", documents=DOCUMENTS, request_options=ONCE),
    "a key with the scope embed",
)
report("an `api_key` without the scope `embed`", "`ForbiddenError`: a key with the scope embed")
