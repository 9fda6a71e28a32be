"""POST /v1/classify and /v1/classify/batch: from the bytes of a request to an answer about its examples."""

import re
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.batching import DeadlineExceeded, Overloaded
from app.body import (
    JSON,
    MULTIPART,
    BodyTooSlow,
    InvalidParameter,
    MalformedBody,
    RepeatedField,
    TooManyBytes,
    TooManyItems,
    UnknownField,
    UnsupportedMediaType,
    read_batch,
    read_request,
)
from app.dependencies import DirectRoute, metrics_of, service_of, settings_of, while_connected
from app.errors import INTERNAL, explained, kind_of, problem_of
from app.rate_limits import Allowance
from app.schemas import BatchAnswer, BatchAnswers, Classification, Options
from app.service import NotReady, Outcome, Service, UnknownModel
from app.timeline import READ, Timeline
from model import Description, NothingGiven, TooLarge, Undecodable, UnknownModality, UnsupportedFormat

Value = TypeVar("Value")

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/classify", tags=["classify"], route_class=DirectRoute)

_BODY_ERRORS = (MalformedBody, UnknownField, RepeatedField, BodyTooSlow, TooManyBytes, UnsupportedMediaType)
_INPUT_ERRORS = (UnsupportedFormat, NothingGiven, UnknownModality, Undecodable, TooLarge, InvalidParameter)
_SERVICE_ERRORS = (UnknownModel, Overloaded, NotReady, DeadlineExceeded)


TIMEOUT = "X-Request-Timeout-Ms"
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,8}")
_TIMEOUT_PARAMETER = {
    "name": TIMEOUT,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "description": "Milliseconds, counted from the whole request being read, after which the answer is of no use any more.",
}

_FORM = {
    "schema": {"$ref": "#/components/schemas/ClassifyForm"},
    "encoding": {"image": {"contentType": "image/*"}},
    "example": {"text": "a small boat on a lake", "top_k": 3},
}


def _json_body(schema: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}}


@router.post(
    "",
    operation_id="classify",
    summary="Classify a picture with its text; either may be missing",
    responses=explained(*_BODY_ERRORS, *_INPUT_ERRORS, *_SERVICE_ERRORS),
    response_model=Classification,
    openapi_extra={
        "parameters": [_TIMEOUT_PARAMETER],
        "requestBody": {"required": True, "content": {MULTIPART: _FORM, JSON: _json_body("ClassifyBody")}},
    },
)
async def classify(request: Request) -> Response:
    """Scores per label, best first; of a regression a number with its interval.

    The answer says which inputs were used, and which version of which model.
    """
    service, settings = service_of(request), settings_of(request)
    with service.admit():
        timeout_ms = _timeout_ms(request)
        parsed = await _timed(request, read_request(request, service, settings))
        request.state.modalities = sorted(parsed.parts)
        request.state.model = _checked(parsed.options, service)
        work = service.classify(
            parsed.parts,
            model=parsed.options.model,
            deadline=service.deadline(timeout_ms),
            timeline=request.state.timeline,
        )
        outcome = await while_connected(request, work)
        request.state.modalities = sorted(outcome.prediction.used)
        return _answered(Classification.of(outcome, parsed.options))


@router.post(
    "/batch",
    operation_id="classifyBatch",
    summary="Classify many examples; a bad one fails alone",
    responses=explained(*_BODY_ERRORS, InvalidParameter, TooManyItems, *_SERVICE_ERRORS),
    response_model=BatchAnswers,
    openapi_extra={
        "parameters": [_TIMEOUT_PARAMETER],
        "requestBody": {"required": True, "content": {JSON: _json_body("BatchBody")}},
    },
)
async def classify_batch(request: Request) -> Response:
    """For each item a classification or a problem, in the order of the items. The deadline is the whole request's."""
    service, settings, metrics = service_of(request), settings_of(request), metrics_of(request)
    with service.admit():
        timeout_ms = _timeout_ms(request)
        parsed = await _timed(request, read_batch(request, service, settings))
        request.state.items = len(parsed.ids)
        request.state.model = _checked(parsed.options, service)
        await _count(request, len(parsed.ids))
        work = service.classify_all(
            parsed.unpack,
            model=parsed.options.model,
            deadline=service.deadline(timeout_ms),
            timeline=request.state.timeline,
        )
        outcomes = await while_connected(request, work)
        answers = [
            _batch_answer(index, id_, outcome, parsed.options, request)
            for index, (id_, outcome) in enumerate(zip(parsed.ids, outcomes, strict=True))
        ]
    used = [outcome.prediction.used for outcome in outcomes if isinstance(outcome, Outcome)]
    request.state.modalities = sorted(frozenset().union(*used))
    for answer in answers:
        if answer.problem:
            metrics.refusal(answer.problem.code)
    return _answered(BatchAnswers(items=answers))


async def _count(request: Request, items: int) -> None:
    """Take the items from the client's limits, as if each had come alone; the first was counted with the request."""
    allowance: Allowance | None = getattr(request.state, "allowance", None)
    if allowance is None:
        return
    if allowance.most is not None and items > allowance.most:
        raise TooManyItems("items", f"{items:,} items", f"at most {allowance.most:,}, this client's rate limit")
    await allowance.take(items - 1)


def _answered(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)


def _timeout_ms(request: Request) -> int | None:
    """What the client allows for its answer, if it says so. Raises InvalidParameter."""
    given = request.headers.get(TIMEOUT)
    if given is None:
        return None
    if not _MILLISECONDS.fullmatch(given):
        raise InvalidParameter(TIMEOUT, repr(given[:32]), "whole milliseconds, from 1 to 999999999")
    return int(given)


async def _timed(request: Request, reading: Awaitable[Value]) -> Value:
    began = time.perf_counter()
    try:
        return await reading
    finally:  # also when the client was too slow
        timeline: Timeline = request.state.timeline
        timeline.note(READ, began, time.perf_counter() - began)


def _batch_answer(
    index: int, id_: str | None, outcome: Outcome | BaseException, options: Options, request: Request
) -> BatchAnswer:
    if isinstance(outcome, Outcome):
        return BatchAnswer(index=index, id=id_, status=200, classification=Classification.of(outcome, options))
    if kind_of(outcome) is INTERNAL:
        log.error("item_failed", index=index, exc_info=outcome)
    problem = problem_of(outcome, request.state.request_id)
    return BatchAnswer(index=index, id=id_, status=problem.status, problem=problem)


def _checked(options: Options, service: Service) -> Description:
    """The chosen model; what only it can tell is refused before any work is done."""
    description = service.describe(options.model)
    labels = len(description.labels)
    for name, value in (("top_k", options.top_k), ("threshold", options.threshold)):
        if value is not None and not labels:
            raise InvalidParameter(name, str(value), "nothing, as this model answers with a number and not with labels")
    if options.top_k is not None and options.top_k > labels:
        raise InvalidParameter("top_k", str(options.top_k)[:64], f"an integer from 1 to {labels}")
    return description
