"""Read the bytes of a request into its inputs and options; limits are enforced while reading.

At most `max_body_bytes` of one request and `max_inflight_bytes` of all requests are in memory; nothing is written to disk. An input
of a form is in memory once until it is written to a worker, which has another copy. While base64 in JSON is parsed and decoded, it
takes at most 2.7 times the input's size, 3.7 times for a data: URI, which is cut out of its text first
(tests/app/api/body/test_copies.py measures both), and more for base64 in lines.
"""

from collections.abc import Mapping

from fastapi import Request

from polymodal.app.api.body.form import LONG_OPTION_BYTES, Form
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

__all__ = [
    "BODY_ERRORS",
    "JSON",
    "LONG_OPTION_BYTES",
    "MULTIPART",
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
    media_type, parameters = content_type(request, MULTIPART, JSON)
    if media_type == MULTIPART:
        return await _read_form(request, task, parameters, admitted, service, settings)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: request_of(task, parse(body), settings))


async def read_search(request: Request, admitted: Admitted, service: Service, settings: Settings) -> ParsedRequest:
    """Read the body of POST /v1/search, which is JSON, or a form with the inputs of the query."""
    media_type, parameters = content_type(request, MULTIPART, JSON)
    if media_type == MULTIPART:
        return await _read_form(request, SEARCH, parameters, admitted, service, settings)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: search_of(parse(body), settings))


async def _read_form(
    request: Request,
    operation: Operation,
    parameters: Mapping[bytes, bytes],
    admitted: Admitted,
    service: Service,
    settings: Settings,
) -> ParsedRequest:
    """Read a form; `parameters`: of its media type."""
    form = Form(operation, parameters.get(b"boundary", b""), settings, parameters.get(b"charset", b""))
    await read(request, settings, admitted, form.write)
    return await service.offload(form.close) if form.encoded else form.close()


async def read_batch(
    request: Request, task: Task, admitted: Admitted, service: Service, settings: Settings
) -> ParsedBatch:
    """Read the body of POST /v1/TASK/batch, which is JSON."""
    content_type(request, JSON)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: batch_of(task, parse(body), settings))


async def read_comparison(
    request: Request, admitted: Admitted, service: Service, settings: Settings
) -> ParsedComparison:
    """Read the body of POST /v1/similarity, which is JSON, or a form with two inputs: the query and one candidate."""
    media_type, parameters = content_type(request, MULTIPART, JSON)
    if media_type == MULTIPART:
        form = await _read_form(request, SIMILARITY, parameters, admitted, service, settings)
        return ParsedComparison.of_pair(form)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: comparison_of(parse(body), settings))


async def read_embeddings(
    request: Request, admitted: Admitted, service: Service, settings: Settings
) -> ParsedEmbeddings:
    """Read the body of POST /v1/embeddings, which is JSON."""
    content_type(request, JSON)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: embeddings_of(body, settings))


async def read_rerank(request: Request, admitted: Admitted, service: Service, settings: Settings) -> ParsedRerank:
    """Read the body of POST /rerank, which is JSON."""
    content_type(request, JSON)
    body = await read_whole(request, settings, admitted)
    return await service.offload(lambda: rerank_of(parse(body), settings))
