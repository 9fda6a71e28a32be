"""POST /v1/similarity: a query against candidates, each with any of the inputs; or one pair in a form."""

from typing import Any, cast

from fastapi import APIRouter, Request, Response

from polymodal.app.api.body import BODY_ERRORS, JSON, MULTIPART, TooManyItems, read_comparison
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import service_of, settings_of, while_connected
from polymodal.app.api.examples import explained
from polymodal.app.api.routes.tasks import (
    INPUT_ERRORS,
    SERVICE_ERRORS,
    TIMEOUT_PARAMETER,
    count_items,
    file_encodings,
    note_model,
    problem_of_item,
    reference,
    response_of,
    texts,
    timed,
    timeout_ms_of,
)
from polymodal.app.api.schemas import FailedCandidate, Similarity, SimilarityBody, SimilarityForm
from polymodal.app.serving.similarity import EMBED, SimilarityOptions, rank

router = APIRouter(prefix="/v1/similarity", tags=["similarity"])

_FORM: Any = {"schema": reference(SimilarityForm), "encoding": file_encodings(), "example": {"prior": 0.5, **texts()}}


@router.post(
    "",
    operation_id="similarity",
    summary="Compare a query with candidates, best first",
    description=(
        "Pictures, texts or both on either side: the cosine similarity of their aligned vectors, and `match`, the probability that "
        "they belong together.\n\nA bad candidate fails alone. A form has exactly two inputs, which are one pair."
    ),
    responses=explained(*BODY_ERRORS, TooManyItems, *INPUT_ERRORS, *SERVICE_ERRORS),
    response_model=Similarity,
    openapi_extra={
        "parameters": [TIMEOUT_PARAMETER],
        "requestBody": {"required": True, "content": {MULTIPART: _FORM, JSON: {"schema": reference(SimilarityBody)}}},
    },
)
async def similarity(request: Request) -> Response:
    """Read the query and the candidates, rank the candidates, and return the pairs."""
    service, context = service_of(request), context_of(request)
    with service.admit() as admitted:
        timeout_ms = timeout_ms_of(request)
        parsed = await timed(request, read_comparison(request, admitted, service, settings_of(request)))
        context.items = 1 + len(parsed.ids)
        options = cast(SimilarityOptions, parsed.options)
        with service.registry.use(parsed.model, EMBED.name) as deployment:
            note_model(request, deployment, EMBED)
            await count_items(request, context.items, "candidates")
            work = rank(
                service,
                deployment,
                parsed.query,
                parsed.unpack,
                options.prior,
                deadline=service.deadline(timeout_ms),
                timeline=context.timeline,
            )
            ranking = await while_connected(request, work)
    if parsed.one_pair and ranking.failed:
        raise ranking.failed[0][1]
    context.modalities = sorted(
        {*ranking.query.modalities, *(name for pair in ranking.pairs for name in pair.modalities)}
    )
    failed = []
    for index, error in ranking.failed:
        problem = problem_of_item(request, index, error)
        failed.append(FailedCandidate(index=index, id=parsed.ids[index], status=problem.status, problem=problem))
    return response_of(Similarity.of(ranking, options, parsed.ids, failed))
