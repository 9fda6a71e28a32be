"""Read the bytes of a request into its inputs and options; limits are enforced while reading.

At most `max_body_bytes` of one request and `max_inflight_bytes` of all requests are in memory; nothing is written to disk. An input
of a form is in memory once until it is written to a worker, which has another copy. While base64 in JSON is parsed and decoded, it
takes at most 2.7 times the input's size, 3.7 times for a data: URI, which is cut out of its text first
(tests/app/api/body/test_copies.py measures both), and more for base64 in lines.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from fastapi import Request

from polymodal.app.api.body.audio import FILE, TRANSCRIPTIONS, TRANSLATIONS, AudioForm, AudioOptions
from polymodal.app.api.body.audio import IGNORED as IGNORED_OF_AUDIO
from polymodal.app.api.body.form import LIST_OPTIONS, Form
from polymodal.app.api.body.json import batch_of, check_number, comparison_of, parse, request_of, search_of
from polymodal.app.api.body.limits import JSON, MULTIPART, content_type, read, read_whole
from polymodal.app.api.body.openai import EmbeddingItem, EmbeddingsBody, ParsedEmbeddings, embeddings_of
from polymodal.app.api.body.problems import BODY_ERRORS, TooManyItems, UrlNotAccepted
from polymodal.app.api.body.request import ParsedBatch, ParsedComparison, ParsedRequest
from polymodal.app.api.body.rerank import ParsedRerank, RerankBody, rerank_of
from polymodal.app.api.schemas import Operation
from polymodal.app.problems import RequestError
from polymodal.app.serving.admission import Admitted
from polymodal.app.serving.search import SEARCH
from polymodal.app.serving.service import Service
from polymodal.app.serving.similarity import SIMILARITY
from polymodal.app.settings import Settings
from polymodal.model import Task

Parsed = TypeVar("Parsed")

__all__ = [
    "BODY_ERRORS",
    "FILE",
    "IGNORED_OF_AUDIO",
    "JSON",
    "LIST_OPTIONS",
    "MULTIPART",
    "TRANSCRIPTIONS",
    "TRANSLATIONS",
    "AudioForm",
    "AudioOptions",
    "EmbeddingItem",
    "EmbeddingsBody",
    "ParsedBatch",
    "ParsedComparison",
    "ParsedEmbeddings",
    "ParsedRequest",
    "ParsedRerank",
    "RequestError",
    "RerankBody",
    "TooManyItems",
    "UrlNotAccepted",
    "check_number",
    "read_audio",
    "read_batch",
    "read_comparison",
    "read_embeddings",
    "read_request",
    "read_rerank",
    "read_search",
]


async def read_request(
    request: Request, task: Task, admitted: Admitted, service: Service, settings: Settings
) -> ParsedRequest:
    """Read the body of POST /v1/TASK, which is a form or JSON."""
    return await _read_either(
        request, task, admitted, service, settings, lambda body: request_of(task, parse(body), settings)
    )


async def read_search(request: Request, admitted: Admitted, service: Service, settings: Settings) -> ParsedRequest:
    """Read the body of POST /v1/search, which is JSON, or a form with the inputs of the query."""
    return await _read_either(
        request, SEARCH, admitted, service, settings, lambda body: search_of(parse(body), settings)
    )


async def read_comparison(
    request: Request, admitted: Admitted, service: Service, settings: Settings
) -> ParsedComparison:
    """Read the body of POST /v1/similarity, which is JSON, or a form with two inputs: the query and one candidate."""
    parsed = await _read_either(
        request, SIMILARITY, admitted, service, settings, lambda body: comparison_of(parse(body), settings)
    )
    return ParsedComparison.of_pair(parsed) if isinstance(parsed, ParsedRequest) else parsed


async def read_batch(
    request: Request, task: Task, admitted: Admitted, service: Service, settings: Settings
) -> ParsedBatch:
    """Read the body of POST /v1/TASK/batch, which is JSON."""
    content_type(request, JSON)
    return await _read_json(request, admitted, service, settings, lambda body: batch_of(task, parse(body), settings))


async def read_embeddings(
    request: Request, admitted: Admitted, service: Service, settings: Settings
) -> ParsedEmbeddings:
    """Read the body of POST /v1/embeddings, which is JSON."""
    content_type(request, JSON)
    return await _read_json(request, admitted, service, settings, lambda body: embeddings_of(body, settings))


async def read_audio(
    request: Request, form: AudioForm, admitted: Admitted, service: Service, settings: Settings
) -> ParsedRequest:
    """Read a form of OpenAI's API with a recording."""
    _, parameters = content_type(request, MULTIPART)
    return await _read_form(request, form, parameters, admitted, service, settings)


async def read_rerank(request: Request, admitted: Admitted, service: Service, settings: Settings) -> ParsedRerank:
    """Read the body of POST /rerank, which is JSON."""
    content_type(request, JSON)
    return await _read_json(request, admitted, service, settings, lambda body: rerank_of(parse(body), settings))


async def _read_json(
    request: Request,
    admitted: Admitted,
    service: Service,
    settings: Settings,
    parsed: Callable[[bytearray], Parsed],
) -> Parsed:
    """Read a whole body, and parse it on a thread."""
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: parsed(body))


async def _read_either(
    request: Request,
    operation: Operation,
    admitted: Admitted,
    service: Service,
    settings: Settings,
    parsed: Callable[[bytearray], Parsed],
) -> ParsedRequest | Parsed:
    """Read a form of an operation, or JSON as `_read_json` does."""
    media_type, parameters = content_type(request, MULTIPART, JSON)
    if media_type == JSON:
        return await _read_json(request, admitted, service, settings, parsed)
    return await _read_form(request, operation, parameters, admitted, service, settings)


async def _read_form(
    request: Request,
    operation: Operation,
    parameters: Mapping[bytes, bytes],
    admitted: Admitted,
    service: Service,
    settings: Settings,
) -> ParsedRequest:
    form = Form(operation, parameters.get(b"boundary", b""), settings, parameters.get(b"charset", b""))
    await read(request, settings, admitted, form.write)
    return await service.offload(form.close) if form.encoded else form.close()
