"""POST /v1/TASK and /v1/TASK/batch for every entry of TASKS: read the request, run the task, return the answer."""

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias, TypedDict, TypeVar

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from polymodal.app.api.body import (
    BODY_ERRORS,
    JSON,
    LIST_OPTIONS,
    MULTIPART,
    TooManyItems,
    check_number,
    read_batch,
    read_request,
)
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import metrics_of, service_of, settings_of, while_connected
from polymodal.app.api.errors import problem_of, refusal_of
from polymodal.app.api.examples import explained
from polymodal.app.api.schemas import Problem, TaskSchemas, schemas_of
from polymodal.app.observe.timeline import READ, Timeline
from polymodal.app.problems import InternalError
from polymodal.app.serving import similarity
from polymodal.app.serving.batching import DeadlineExceeded, Overloaded
from polymodal.app.serving.registry import Deployment, UnknownModel, UnknownTask
from polymodal.app.serving.service import NotReady
from polymodal.app.settings import Settings
from polymodal.model import (
    MODALITIES,
    TASKS,
    InvalidParameter,
    Modality,
    NothingGiven,
    Task,
    TaskAnswer,
    TaskOptions,
    TooLarge,
    Undecodable,
    UnknownModality,
    UnsupportedFormat,
)

Value = TypeVar("Value")
Endpoint: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


class Limits(TypedDict):
    """Arguments of all work of a request."""

    deadline: float
    timeline: Timeline


def limits_of(request: Request, deployment: Deployment, timeout_ms: int | None) -> Limits:
    """Return the limits of work with a deployment, for a request that was just read."""
    deadline = service_of(request).deadline(timeout_ms, slow=deployment.slow)
    return {"deadline": deadline, "timeline": context_of(request).timeline}


log = structlog.get_logger(__name__)

INPUT_ERRORS = (UnsupportedFormat, NothingGiven, UnknownModality, Undecodable, TooLarge, InvalidParameter)
SERVICE_ERRORS = (UnknownModel, UnknownTask, Overloaded, NotReady, DeadlineExceeded)

TIMEOUT: Final = "X-Request-Timeout-Ms"
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,8}")
TIMEOUT_PARAMETER: Final = {
    "name": TIMEOUT,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "description": "Milliseconds after the request is read, after which the client no longer needs the answer.",
}


def router_of(task: Task) -> APIRouter:
    """Return the two routes of a task for OpenAPI. Requests are served by plain routes with the same endpoints."""
    router = APIRouter(prefix=f"/v1/{task.name}", tags=[task.name])
    schemas = schemas_of(task)
    lists = {name: {"contentType": JSON} for name in LIST_OPTIONS if name in task.Options.model_fields}
    form = {
        "schema": reference(schemas.form),
        "encoding": {**file_encodings(task.inputs), **lists},
        "example": {**texts(task.inputs), **task.example},
    }
    router.add_api_route(
        "",
        _single(task),
        methods=["POST"],
        operation_id=task.name,
        summary=task.summary,
        description=task.details,
        responses=explained(*BODY_ERRORS, *INPUT_ERRORS, *SERVICE_ERRORS),
        response_model=task.Answer,
        openapi_extra={
            "parameters": [TIMEOUT_PARAMETER],
            "requestBody": {"required": True, "content": {MULTIPART: form, JSON: {"schema": reference(schemas.body)}}},
        },
    )
    router.add_api_route(
        "/batch",
        _batch(task, schemas),
        methods=["POST"],
        operation_id=f"{task.name}Batch",
        summary=task.batch_summary,
        description=f"Returns the {task.result} or the problem of each item, in the items' order. They have one deadline.",
        responses=explained(*BODY_ERRORS, InvalidParameter, TooManyItems, *SERVICE_ERRORS),
        response_model=schemas.batch_answers,
        openapi_extra={
            "parameters": [TIMEOUT_PARAMETER],
            "requestBody": {"required": True, "content": {JSON: {"schema": reference(schemas.batch_body)}}},
        },
    )
    return router


def file_encodings(inputs: Mapping[str, Modality] = MODALITIES) -> dict[str, Any]:
    """Return the media types of a form's files for OpenAPI."""
    return {name: {"contentType": entry.media_range} for name, entry in inputs.items() if not entry.textual}


def texts(inputs: Mapping[str, Modality] = MODALITIES) -> dict[str, str]:
    """Return the textual inputs of an example for OpenAPI."""
    return {name: entry.example for name, entry in inputs.items() if entry.textual}


def reference(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the reference to a schema of the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{schema.__name__}"}


def _single(task: Task) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        service, settings, context = service_of(request), settings_of(request), context_of(request)
        with service.admit() as admitted:
            timeout_ms = timeout_ms_of(request)
            parsed = await timed(request, read_request(request, task, admitted, service, settings))
            context.modalities = sorted(parsed.inputs)
            computed = TASKS[task.computed_by(parsed.options)]
            with service.registry.use(parsed.model, computed.name) as deployment:
                note_model(request, deployment, computed)
                task.check(parsed.options, deployment.description)
                limits = limits_of(request, deployment, timeout_ms)
                if labels := labels_of(parsed.options, settings):
                    context.items = 1 + labels
                    await count_items(request, context.items)
                    every = similarity.classify(service, deployment, [lambda: parsed.inputs], parsed.options, **limits)
                    (answered,) = await while_connected(request, every)
                else:
                    work = service.run(deployment, task, parsed.inputs, parsed.options, **limits)
                    answered = await while_connected(request, work)
            if isinstance(answered, BaseException):
                raise answered
            context.modalities = answered.modalities
            return response_of(answered)

    return endpoint


def _batch(task: Task, schemas: TaskSchemas) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        service, settings, context = service_of(request), settings_of(request), context_of(request)
        with service.admit() as admitted:
            timeout_ms = timeout_ms_of(request)
            parsed = await timed(request, read_batch(request, task, admitted, service, settings))
            context.items = len(parsed.ids)
            computed = TASKS[task.computed_by(parsed.options)]
            with service.registry.use(parsed.model, computed.name) as deployment:
                note_model(request, deployment, computed)
                task.check(parsed.options, deployment.description)
                limits = limits_of(request, deployment, timeout_ms)
                labels = labels_of(parsed.options, settings)
                context.items += labels
                await count_items(request, context.items)
                if labels:
                    work = similarity.classify(service, deployment, parsed.unpack, parsed.options, **limits)
                else:
                    work = service.run_all(deployment, task, parsed.unpack, parsed.options, **limits)
                results = await while_connected(request, work)
        used = [result.modalities for result in results if isinstance(result, TaskAnswer)]
        context.modalities = sorted(frozenset().union(*used))
        items = []
        for index, (id_, result) in enumerate(zip(parsed.ids, results, strict=True)):
            status = 200
            fields: dict[str, Any] = {task.result: result}
            if isinstance(result, BaseException):
                problem = problem_of_item(request, index, result)
                status, fields = problem.status, {"problem": problem}
            items.append(schemas.batch_answer.model_construct(index=index, id=id_, status=status, **fields))
        return response_of(schemas.batch_answers.model_construct(items=items))

    return endpoint


def problem_of_item(request: Request, index: int, error: BaseException) -> Problem:
    """Return the problem of one item among several; it is counted, and logged if it is no refusal."""
    if isinstance(refusal_of(error), InternalError):
        log.error("item_failed", index=index, exc_info=error)
    problem = problem_of(error, context_of(request).request_id)
    metrics_of(request).refusal(problem.code)
    return problem


def note_model(request: Request, deployment: Deployment, task: Task) -> None:
    """Record the model in the request's context. Raises UnknownTask when the model does not have the task."""
    context_of(request).model = deployment.description
    deployment.check(task.name)


def labels_of(options: TaskOptions, settings: Settings) -> int:
    """Return the number of candidate labels of a request; 0 without any. Raises TooManyItems."""
    labels = len(getattr(options, "candidate_labels", None) or ())
    check_number("candidate_labels", labels, settings)
    return labels


async def count_items(request: Request, items: int, where: str = "items") -> None:
    """Count the items under the client's rate limits, except the first, which was counted as the request.

    Raises TooManyItems about the field `where` if the limits can never admit as many; RateLimited.
    """
    allowance = context_of(request).allowance
    if allowance is None:
        return
    if allowance.most is not None and items > allowance.most:
        raise TooManyItems(where, f"{items:,} items", f"at most {allowance.most:,}, this client's rate limit")
    await allowance.take(items - 1)


def response_of(answer: BaseModel) -> Response:
    """Return the response with an answer, without the fields that are None."""
    return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)


def timeout_ms_of(request: Request) -> int | None:
    """Return the timeout that the client sent; None without one. Raises InvalidParameter."""
    value = request.headers.get(TIMEOUT)
    if value is None:
        return None
    if not _MILLISECONDS.fullmatch(value):
        raise InvalidParameter(TIMEOUT, repr(value[:32]), "whole milliseconds, from 1 to 999999999")
    return int(value)


async def timed(request: Request, reading: Awaitable[Value]) -> Value:
    """Await the reading of a body, and record its duration."""
    began = time.perf_counter()
    try:
        return await reading
    finally:  # also when the client was too slow
        context_of(request).timeline.note(READ, began, time.perf_counter() - began)
