"""POST /rerank, /v1/rerank and /v2/rerank: documents sorted by their similarity with a query, for clients of other APIs."""

from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, TypeAdapter

from polymodal.app.api.body import (
    BODY_ERRORS,
    JSON,
    ParsedRerank,
    RerankBody,
    TooManyItems,
    UrlNotAccepted,
    read_rerank,
)
from polymodal.app.api.body.rerank import located
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import service_of, settings_of, while_connected
from polymodal.app.api.dialects import TEI, ignored_headers
from polymodal.app.api.examples import explained
from polymodal.app.api.routes.tasks import (
    INPUT_ERRORS,
    SERVICE_ERRORS,
    TIMEOUT_PARAMETER,
    count_items,
    limits_of,
    note_model,
    reference,
    timed,
    timeout_ms_of,
)
from polymodal.app.serving.service import Unpack
from polymodal.app.serving.similarity import EMBED, Pair, Ranking, rank
from polymodal.model import Description, InputError, InvalidParameter, Schema

_DETAILS: Final = (
    "With `texts` the answer is a list, as TEI's; with `documents` an object, as Cohere's and Jina's. Scores are the `match` of "
    "/v1/similarity; with `raw_scores` cosines.\n\nAn unusable document refuses the whole request, and the problem names its index."
)


class RankedText(Schema):
    """A text with its score."""

    index: int
    """Position in `texts`, from 0."""
    score: float
    text: str | None = None
    """Only with return_text."""


class RankedDocument(Schema):
    """A document with its score."""

    index: int
    """Position in `documents`, from 0."""
    relevance_score: float
    document: dict[str, str | None] | None = None
    """As it was sent, a text as {"text": …}; only with return_documents."""


class RerankUsage(Schema):
    """The tokens that were read."""

    prompt_tokens: int
    """Tokens that the model read of the query and all documents, without those beyond its limit."""
    total_tokens: int
    """The same number, because nothing is generated."""


class Reranked(Schema):
    """The documents, best first."""

    id: str
    """The request's id, as in X-Request-Id."""
    model: str
    digest: str
    """The model's version."""
    results: list[RankedDocument]
    usage: RerankUsage
    meta: dict[str, Any]
    """Constants that Cohere's clients read."""


_TEXTS: Final = TypeAdapter(list[RankedText])


def router(dialect: str) -> APIRouter:
    """Return the routes of a dialect for OpenAPI; requests are served by plain routes with the same endpoint."""
    routes = APIRouter(tags=[dialect])
    paths = {"/rerank": "rerank"} if dialect == TEI else {"/v1/rerank": "rerankV1", "/v2/rerank": "rerankV2"}
    for path, operation in paths.items():
        routes.add_api_route(
            path,
            rerank,
            methods=["POST"],
            operation_id=operation,
            summary="Sort documents by their similarity with a query",
            description=_DETAILS,
            responses=explained(
                *BODY_ERRORS, UrlNotAccepted, TooManyItems, *INPUT_ERRORS, *SERVICE_ERRORS, dialect=dialect
            ),
            response_model=list[RankedText] | Reranked,
            openapi_extra={
                "parameters": [TIMEOUT_PARAMETER],
                "requestBody": {"required": True, "content": {JSON: {"schema": reference(RerankBody)}}},
            },
        )
    return routes


async def rerank(request: Request) -> Response:
    """Return the documents' scores, best first."""
    service, context = service_of(request), context_of(request)
    with service.admit() as admitted:
        timeout_ms = timeout_ms_of(request)
        parsed = await timed(request, read_rerank(request, admitted, service, settings_of(request)))
        context.items = 1 + len(parsed.documents)
        with service.registry.use(parsed.choice.model, EMBED.name) as deployment:
            note_model(request, deployment, EMBED)
            await count_items(request, context.items, parsed.field)
            unpack: list[Unpack] = [partial(dict, document) for document in parsed.documents]
            limits = limits_of(request, deployment, timeout_ms)
            counted = parsed.field == "documents"
            query: Unpack = partial(dict, parsed.query)
            try:
                ranking = await while_connected(
                    request, rank(service, deployment, query, unpack, None, counted=counted, **limits)
                )
            except InputError as error:
                raise located("query", error) from None
            pairs = _sorted(ranking, parsed, deployment.description)
        context.modalities = sorted({*ranking.query.modalities, *(name for pair in pairs for name in pair.modalities)})
        content = await service.offload(partial(_content, ranking, pairs, parsed, context.request_id))
    return Response(content, media_type=JSON, headers=ignored_headers(parsed.ignored))


def _sorted(ranking: Ranking, parsed: ParsedRerank, description: Description) -> list[Pair]:
    """Return the best pairs. Raises the error of the first bad document, and InvalidParameter without calibrated scores."""
    for index, error in ranking.failed:
        place = f"{parsed.field}[{index}]"
        raise located(place, error) if isinstance(error, InputError) else error
    pairs = list(ranking.pairs)
    if parsed.choice.raw_scores:
        pairs.sort(key=lambda pair: (-pair.cosine, pair.index))
    for pair in pairs if not parsed.choice.raw_scores else ():
        if pair.match is None:
            sides = "~".join("+".join(side) for side in (ranking.query.modalities, pair.modalities))
            known = ", ".join(sorted(description.matches)) or "none"
            problem = f"the pair {sides}, for which this model has no calibrated scores"
            raise InvalidParameter(
                f"{parsed.field}[{pair.index}]", problem, f"{known}; or raw_scores true, for cosines"
            )
    return pairs[: parsed.choice.top_n]


def _content(ranking: Ranking, pairs: list[Pair], parsed: ParsedRerank, request_id: str) -> bytes:
    """Return the JSON of the answer."""

    def score(pair: Pair) -> float:
        return pair.cosine if parsed.choice.raw_scores or pair.match is None else pair.match

    if parsed.field == "texts":
        texts = parsed.sent if parsed.choice.return_text else [None] * len(parsed.sent)
        ranked = [RankedText(index=pair.index, score=score(pair), text=texts[pair.index]) for pair in pairs]
        return _TEXTS.dump_json(ranked, exclude_none=True)
    sent = [document if isinstance(document, dict) else {"text": document} for document in parsed.sent]
    documents = sent if parsed.choice.return_documents else [None] * len(sent)
    answer: BaseModel = Reranked(
        id=request_id,
        model=ranking.query.model,
        digest=ranking.query.digest,
        results=[
            RankedDocument(index=pair.index, relevance_score=score(pair), document=documents[pair.index])
            for pair in pairs
        ],
        usage=RerankUsage(prompt_tokens=ranking.tokens, total_tokens=ranking.tokens),
        meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    )
    return answer.model_dump_json(exclude_none=True).encode()
