"""POST /v1/embeddings: the task embed as clients of OpenAI's API use it."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Final, Literal, cast

import numpy as np
from fastapi import APIRouter, Request, Response

from polymodal.app.api.body import (
    BODY_ERRORS,
    JSON,
    EmbeddingItem,
    EmbeddingsBody,
    ParsedEmbeddings,
    TooManyItems,
    UrlNotAccepted,
    read_embeddings,
)
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import service_of, settings_of, while_connected
from polymodal.app.api.dialects import OPENAI, ignored_headers
from polymodal.app.api.examples import explained
from polymodal.app.api.routes.tasks import (
    INPUT_ERRORS,
    SERVICE_ERRORS,
    TIMEOUT_PARAMETER,
    Limits,
    count_items,
    limits_of,
    note_model,
    reference,
    timed,
    timeout_ms_of,
)
from polymodal.app.serving.batching import DeadlineExceeded, Overloaded
from polymodal.app.serving.registry import Deployment
from polymodal.app.serving.service import Service
from polymodal.app.serving.similarity import EMBED
from polymodal.model import (
    CountedEmbedOptions,
    Description,
    Embedding,
    InputError,
    InvalidParameter,
    NothingGiven,
    Schema,
    Space,
    TaskOptions,
)

_DETAILS: Final = (
    "For OpenAI's clients, with their address of the API set to that of the service and /v1. Each item of `input` gets a vector "
    "whose Euclidean length is 1; an object with several inputs, and a conversation in `messages`, get one vector of all of them "
    "together. The vectors are of the space `aligned` where the model has it; otherwise all items must be of one modality.\n\n"
    "An unusable item refuses the whole request, and the problem names its index. Problems are as everywhere, and have OpenAI's "
    "`error` in addition."
)


class EmbeddingData(Schema):
    """The vector of one item."""

    object: Literal["embedding"] = "embedding"
    index: int
    """Position in the request, from 0."""
    embedding: list[float] | str
    """Numbers, or base64 of their bytes as float32 in little-endian order."""
    modalities: list[str]
    """The inputs that were used."""


class EmbeddingUsage(Schema):
    """The tokens that were read."""

    prompt_tokens: int
    """Tokens that the model read of all texts, without those beyond its limit. Files have none, and a text whose embedding was in
    the cache needed none."""
    total_tokens: int
    """The same number, because nothing is generated."""


class EmbeddingList(Schema):
    """The vectors of all items, in their order."""

    object: Literal["list"] = "list"
    data: list[EmbeddingData]
    model: str
    """Name of the model."""
    usage: EmbeddingUsage
    digest: str
    """The model's version: the SHA-256 of its files. Only vectors of one version may be compared."""


class TooManyForDeadline(DeadlineExceeded):
    """The items take longer than a request may; clients of OpenAI's API would otherwise send them again."""

    headers: ClassVar[Mapping[str, str]] = MappingProxyType({"X-Should-Retry": "false"})

    def __init__(self, done: int, items: int) -> None:
        super().__init__(
            f"input: {done:,} of {items:,} vectors until the request's deadline; allowed: fewer inputs in one request"
        )


def router() -> APIRouter:
    """Return the route for OpenAPI; requests are served by a plain route with the same endpoint."""
    routes = APIRouter(tags=[OPENAI])
    routes.add_api_route(
        "/v1/embeddings",
        create_embeddings,
        methods=["POST"],
        operation_id="createEmbedding",
        summary="Embed texts and files, as clients of OpenAI's API request it",
        description=_DETAILS,
        responses=explained(*BODY_ERRORS, UrlNotAccepted, TooManyItems, *INPUT_ERRORS, *SERVICE_ERRORS, dialect=OPENAI),
        response_model=EmbeddingList,
        openapi_extra={
            "parameters": [TIMEOUT_PARAMETER],
            "requestBody": {"required": True, "content": {JSON: {"schema": reference(EmbeddingsBody)}}},
        },
    )
    return routes


async def create_embeddings(request: Request) -> Response:
    """Return a vector for each item of the request."""
    service, settings, context = service_of(request), settings_of(request), context_of(request)
    with service.admit() as admitted:
        timeout_ms = timeout_ms_of(request)
        parsed = await timed(request, read_embeddings(request, admitted, service, settings))
        items = parsed.items
        context.items = len(items) if len(items) > 1 else None
        context.modalities = sorted({modality for item in items for modality in item.inputs})
        with service.registry.use(parsed.model, EMBED.name) as deployment:
            note_model(request, deployment, EMBED)
            options = _options(parsed, deployment.description)
            await count_items(request, len(items), "input")
            limits = limits_of(request, deployment, timeout_ms)
            work = _embed(service, deployment, items, options, limits)
            answers = await while_connected(request, work)
        context.modalities = sorted({modality for answer in answers for modality in answer.modalities})
        content = await service.offload(partial(_content, answers, packed=parsed.packed))
    return Response(content, media_type=JSON, headers=ignored_headers(parsed.ignored))


def _options(parsed: ParsedEmbeddings, description: Description) -> TaskOptions:
    """Return the options of the task. Raises InvalidParameter for items whose vectors could not be compared."""
    aligned = Space.ALIGNED in description.spaces
    space = Space.ALIGNED.value if aligned else next(iter(description.spaces))
    width = description.spaces[space]
    if parsed.dimensions not in (None, width):
        raise InvalidParameter("dimensions", str(parsed.dimensions), f"{width}, the dimensions of this model, or none")
    if not aligned:
        _check_modalities(parsed.items)
    return CountedEmbedOptions(space=space, fused=aligned or None)


def _check_modalities(items: Sequence[EmbeddingItem]) -> None:
    """Raise InvalidParameter unless all items are of one modality, and have no other."""
    because = "because this model does not align modalities"
    for item in items:
        if len(item.inputs) > 1:
            raise InvalidParameter(item.place, " and ".join(item.inputs), f"one of them, {because}")
    first, *_ = items[0].inputs
    for item in items:
        if first not in item.inputs:
            other, *_ = item.inputs
            problem = f"modality {other}, and {items[0].place} is of modality {first}"
            raise InvalidParameter(item.place, problem, f"one modality in a request, {because}")


async def _embed(
    service: Service,
    deployment: Deployment,
    items: Sequence[EmbeddingItem],
    options: TaskOptions,
    limits: Limits,
) -> list[Embedding]:
    """Return the answers for all items. Raises the first item's error."""
    loop = asyncio.get_running_loop()
    # Refused earlier, a request met a busy service, and another try may succeed; later, it has too many items of its own.
    half_time = (loop.time() + limits["deadline"]) / 2
    if len(items) == 1:  # in the places of the queue that batches leave to single requests
        work = service.run(deployment, EMBED, items[0].inputs, options, **limits)
        results = list(await asyncio.gather(work, return_exceptions=True))
    else:
        unpack = [item.unpack for item in items]
        results = await service.run_all(deployment, EMBED, unpack, options, together=True, **limits)
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, BaseException):
            continue
        if len(items) > 1 and isinstance(result, DeadlineExceeded | Overloaded) and loop.time() > half_time:
            done = sum(not isinstance(other, BaseException) for other in results)
            raise TooManyForDeadline(done, len(items)) from result
        raise _located(item, result)
    return cast(list[Embedding], results)


def _located(item: EmbeddingItem, error: BaseException) -> BaseException:
    """Return the error with the place of the input in the request."""
    if isinstance(error, NothingGiven):
        return NothingGiven(item.place, "only blank texts", "a text with at least one character that shows something")
    if isinstance(error, InputError):
        return type(error)(item.places.get(error.input, item.place), error.found, error.allowed)
    return error


def _content(answers: Sequence[Embedding], *, packed: bool) -> str:
    """Return the JSON of the answer; `packed` for vectors in base64."""
    tokens = sum(answer.tokens for answer in answers)
    return EmbeddingList.model_construct(
        data=[
            EmbeddingData.model_construct(
                index=index,
                embedding=_packed(vector) if packed else vector,
                modalities=answer.modalities,
            )
            for index, (answer, vector) in enumerate(zip(answers, map(_vector, answers), strict=True))
        ],
        model=answers[0].model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        digest=answers[0].digest,
    ).model_dump_json()


def _vector(answer: Embedding) -> list[float]:
    """Return the vector of all inputs together, or of the only one."""
    return answer.fused or next(iter(answer.embeddings.values()))


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
