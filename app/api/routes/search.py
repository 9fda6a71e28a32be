"""POST /v1/search and GET /v1/indexes: the items of an index that are similar to a query, and what can be searched."""

from typing import Any, Final, cast

from fastapi import APIRouter, Request, Response

from polymodal.app.api.body import BODY_ERRORS, JSON, MULTIPART, read_search
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import IndexesDep, ServiceDep, indexes_of, service_of, settings_of, while_connected
from polymodal.app.api.examples import explained
from polymodal.app.api.routes.tasks import (
    INPUT_ERRORS,
    TIMEOUT_PARAMETER,
    file_encodings,
    reference,
    response_of,
    texts,
    timed,
    timeout_ms_of,
)
from polymodal.app.api.schemas import IndexList, IndexSummary, SearchAnswer, SearchBody, SearchForm
from polymodal.app.serving.batching import DeadlineExceeded, Overloaded
from polymodal.app.serving.search import SEARCH, IndexOfAnotherModel, SearchOptions, UnknownIndex
from polymodal.app.serving.service import NotReady

router = APIRouter(prefix=f"/v1/{SEARCH.name}", tags=["search"])
indexes_router = APIRouter(prefix="/v1/indexes", tags=["search"])

_FORM: Final[Any] = {
    "schema": reference(SearchForm),
    "encoding": {**file_encodings(), "filter": {"contentType": JSON}},
    "example": texts(),
}
_ERRORS: Final = (UnknownIndex, IndexOfAnotherModel, Overloaded, NotReady, DeadlineExceeded)


@router.post(
    "",
    operation_id="search",
    summary="Search an index by a picture, a text, or both",
    description=(
        "Exact: the query is compared with every item of the index. `match` is the probability that an item and the query belong "
        "together.\n\nIn a form, the inputs of the query are fields of their own."
    ),
    responses=explained(*BODY_ERRORS, *INPUT_ERRORS, *_ERRORS),
    response_model=SearchAnswer,
    openapi_extra={
        "parameters": [TIMEOUT_PARAMETER],
        "requestBody": {"required": True, "content": {MULTIPART: _FORM, JSON: {"schema": reference(SearchBody)}}},
    },
)
async def search(request: Request) -> Response:
    """Read the query, search, and return the hits."""
    service, indexes, context = service_of(request), indexes_of(request), context_of(request)
    with service.admit() as admitted:
        timeout_ms = timeout_ms_of(request)
        parsed = await timed(request, read_search(request, admitted, service, settings_of(request)))
        context.modalities = sorted(parsed.inputs)
        options = cast(SearchOptions, parsed.options)
        with indexes.use(options.index) as served:
            context.model = served.deployment.description
            deadline = service.deadline(timeout_ms)
            work = indexes.search(served, parsed.inputs, options, deadline=deadline, timeline=context.timeline)
            result = await while_connected(request, work)
    context.modalities = result.query.modalities
    return response_of(SearchAnswer.of(result))


@indexes_router.get(
    "", operation_id="listIndexes", summary="The indexes that can be searched", responses=explained(NotReady)
)
async def list_indexes(service: ServiceDep, indexes: IndexesDep) -> IndexList:
    """Names, numbers of items, keys of filters, and whether the version of the model that an index was built with is served."""
    service.check_started()
    summaries = []
    for name, index in indexes:
        deployment = indexes.deployment_of(index)
        summaries.append(IndexSummary.of(name, index, deployment.description.name if deployment else None))
    return IndexList(indexes=summaries)
