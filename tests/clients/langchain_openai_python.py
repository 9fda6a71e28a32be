"""Calls of LangChain's OpenAIEmbeddings.

By default it cuts texts into the token ids of OpenAI's models. Their vocabulary is downloaded, so a vocabulary of bytes takes its
place here.
"""

import asyncio

import openai
import tiktoken
from langchain_openai import OpenAIEmbeddings
from report import KEY, SERVICE, refused, report

address = {"model": "toy", "base_url": f"{SERVICE}/v1", "api_key": KEY, "max_retries": 0}
embeddings = OpenAIEmbeddings(**address, check_embedding_ctx_length=False)
texts = ["red", "green", "blue"]

vectors = embeddings.embed_documents(texts)
assert [vector.index(1.0) for vector in vectors] == [0, 1, 2]
report("`OpenAIEmbeddings(check_embedding_ctx_length=False).embed_documents`", "all vectors, in order")
assert len(embeddings.embed_documents(["red"] * 1500)) == 1500
report("the same, 1,500 texts in requests of 1,000", "all vectors")
assert embeddings.embed_query("red") == vectors[0]
report("`embed_query`", "the same vector")
assert asyncio.run(embeddings.aembed_documents(texts)) == vectors
report("`aembed_documents`", "the same vectors")

ranks = {bytes([number]): number for number in range(256)}
bytewise = tiktoken.Encoding("bytes", pat_str=r".", mergeable_ranks=ranks, special_tokens={})
tiktoken.get_encoding = tiktoken.encoding_for_model = lambda name: bytewise
for several in (texts, ["red " * 500] * 900):
    default = OpenAIEmbeddings(**address)
    call = lambda: default.embed_documents(several)  # noqa: B023, E731
    refused(openai.BadRequestError, call, "token ids", "check_embedding_ctx_length=False")
report("`OpenAIEmbeddings()`, which sends token ids", "`BadRequestError`: check_embedding_ctx_length=False")
refused(
    openai.NotFoundError,
    lambda: OpenAIEmbeddings(**{**address, "model": "x"}, check_embedding_ctx_length=False).embed_query("red"),
    "allowed: toy, plain",
)
report('`OpenAIEmbeddings(model="x")`', "`NotFoundError`: allowed: toy, plain")
