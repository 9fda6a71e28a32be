"""The one table from exceptions to answers; problem bodies as in RFC 9457.

An exception that is not in the table is a 500 with a fixed sentence: what it says may name paths and secrets, so it goes
to the log and never to the client.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.access import Forbidden, Unauthorized
from app.batching import DeadlineExceeded, Overloaded, Stopped
from app.body import (
    BodyTooSlow,
    InvalidParameter,
    MalformedBody,
    RepeatedField,
    RequestError,
    TooManyBytes,
    TooManyItems,
    UnknownField,
    UnsupportedMediaType,
)
from app.connections import HeadTooLarge, HeadTooSlow, NotHttp, TooFarAhead, TooManyConnections
from app.examples import PROBLEMS, REQUEST_ID
from app.headers import protect
from app.rate_limits import RateLimited
from app.schemas import Problem
from app.service import NotReady, Stalled, UnknownModel
from model import InputError, NothingGiven, TooLarge, Undecodable, UnknownModality, UnsupportedFormat

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:polymodal:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one kind have in common; the code is stable, programs may rely on it."""

    status: int
    code: str
    title: str


class RouteNotFound(RequestError):
    """No such route."""


class MethodNotAllowed(RequestError):
    """The route exists, with other methods."""


KINDS: dict[type[Exception], Kind] = {
    NotHttp: Kind(400, "malformed_request", "This is no HTTP request"),
    TooFarAhead: Kind(400, "too_far_ahead", "Too many requests ahead of their answers"),
    MalformedBody: Kind(400, "malformed_body", "The body cannot be read"),
    UnknownField: Kind(400, "unknown_field", "A field that this route does not know"),
    RepeatedField: Kind(400, "repeated_field", "A field was given twice"),
    Unauthorized: Kind(401, "unauthorized", "A valid key is needed"),
    Forbidden: Kind(403, "forbidden", "The key does not open this route"),
    RouteNotFound: Kind(404, "not_found", "No such route"),
    UnknownModel: Kind(404, "unknown_model", "No model of that name"),
    MethodNotAllowed: Kind(405, "method_not_allowed", "The route does not take this method"),
    HeadTooSlow: Kind(408, "head_too_slow", "The request's head did not arrive in time"),
    BodyTooSlow: Kind(408, "body_too_slow", "The body did not arrive in time"),
    TooManyBytes: Kind(413, "too_many_bytes", "More bytes than are accepted"),
    UnsupportedMediaType: Kind(415, "unsupported_media_type", "A media type that this route does not read"),
    UnsupportedFormat: Kind(415, "unsupported_format", "A file format that the model does not read"),
    NothingGiven: Kind(422, "nothing_given", "Nothing to classify"),
    UnknownModality: Kind(422, "unknown_modality", "An input that the model does not take"),
    Undecodable: Kind(422, "undecodable", "The input is broken"),
    TooLarge: Kind(422, "too_large", "The input is larger than the model accepts"),
    TooManyItems: Kind(422, "too_many_items", "More items than a batch may have"),
    InvalidParameter: Kind(422, "invalid_parameter", "A field has an impossible value"),
    InputError: Kind(422, "invalid_input", "The input cannot be used"),
    Overloaded: Kind(429, "overloaded", "Too many requests are waiting"),
    HeadTooLarge: Kind(431, "head_too_large", "A request line and header fields with more bytes than are accepted"),
    TooManyConnections: Kind(503, "too_many_connections", "No connection is free"),
    RateLimited: Kind(429, "rate_limited", "More requests than this client's share"),
    NotReady: Kind(503, "not_ready", "The service is not accepting requests"),
    Stopped: Kind(503, "stopped", "The service stopped before the answer was there"),
    Stalled: Kind(503, "stalled", "The inference worker hangs"),
    DeadlineExceeded: Kind(504, "deadline_exceeded", "The answer would have come too late"),
}
_EXAMPLES: Mapping[type[Exception], Exception] = {
    **PROBLEMS,
    RouteNotFound: RouteNotFound("path", "/v1/clasify", "the routes in /openapi.json"),
    MethodNotAllowed: MethodNotAllowed("method", "GET", "POST"),
}
INTERNAL = Kind(500, "internal_error", "Something went wrong here")
_INTERNAL_DETAIL = "The request failed for a reason that is not yours; the log has it under this request's id."


def kind_of(error: BaseException) -> Kind:
    """The nearest entry of the table, by the exception's ancestry."""
    return next((KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS), INTERNAL)


def problem_of(error: BaseException, request_id: str) -> Problem:
    """What a client is told about an exception."""
    kind = kind_of(error)
    return Problem(
        type=TYPE_PREFIX + kind.code,
        title=kind.title,
        status=kind.status,
        detail=_INTERNAL_DETAIL if kind is INTERNAL else str(error),
        instance=request_id,
        code=kind.code,
        **({} if kind is INTERNAL else _particulars(error)),
    )


def _particulars(error: BaseException) -> dict[str, str]:
    match error:
        case InputError():
            return {"input": error.modality, "found": error.problem, "allowed": error.allowed}
        case RequestError() | UnknownModel() | Unauthorized() | Forbidden():
            return {"input": error.input, "found": error.found, "allowed": error.allowed}
    return {}


def answer(error: BaseException, request: Request, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The whole response to an exception."""
    problem = problem_of(error, request.state.request_id)
    request.state.code = problem.code
    waits = _retry_after(error, problem.status)
    if isinstance(error, Unauthorized):
        waits = {"WWW-Authenticate": "Bearer"}
    if isinstance(error, BodyTooSlow):  # the rest of the body may never come
        waits = {"Connection": "close"}
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers={**waits, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def _retry_after(error: BaseException, status: int) -> dict[str, str]:
    """The field with the seconds that an exception names; one second where a 503 names none."""
    if isinstance(error, Overloaded | NotReady | RateLimited):
        return {"Retry-After": str(error.retry_after_s)}
    return {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def bare_answer(error: Exception) -> tuple[str, bytes]:
    """The code of an exception, and the response to it as bytes, for what never became a request; the connection ends with it."""
    problem = problem_of(error, os.urandom(16).hex())
    body = problem.model_dump_json(exclude_none=True).encode()
    named = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-Id": problem.instance,
        **_retry_after(error, problem.status),
    }
    fields = [(name.encode(), value.encode()) for name, value in named.items()]
    protect(fields, path="")
    head = b"".join(b"%s: %s\r\n" % field for field in fields)
    line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return problem.code, line + head + b"\r\n" + body


def install(app: FastAPI) -> None:
    """Answer every exception of the table, and what FastAPI itself refuses, with a problem body."""

    async def explain(request: Request, error: Exception) -> JSONResponse:
        return answer(error, request)

    async def explain_refusal(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        path, headers = request.url.path[:128], dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = headers.get("Allow", "GET")  # the files of the page don't say so themselves
            headers["Allow"] = allowed.replace("GET", "GET, HEAD") if "HEAD" not in allowed else allowed
            return answer(MethodNotAllowed("method", request.method, headers["Allow"]), request, headers)
        if error.status_code == HTTPStatus.NOT_FOUND:
            return answer(RouteNotFound("path", path, "the routes in /openapi.json"), request, headers)
        raise error

    async def explain_validation(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        return answer(InvalidParameter(str(first["loc"][-1]), "an impossible value", first["msg"]), request)

    for kind in KINDS:
        app.add_exception_handler(kind, explain)
    app.add_exception_handler(HTTPException, explain_refusal)
    app.add_exception_handler(RequestValidationError, explain_validation)


def explained(*errors: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The problems of a route for OpenAPI: its own, by status, and whatever else may happen."""
    by_status: dict[int | str, list[BaseException]] = {}
    for error in errors:
        by_status.setdefault(KINDS[error].status, []).append(_EXAMPLES[error])
    by_status["default"] = [RuntimeError()]
    return {status: _documented(examples) for status, examples in by_status.items()}


def _documented(errors: list[BaseException]) -> dict[str, Any]:
    examples = {}
    for error in errors:
        problem = problem_of(error, REQUEST_ID)
        examples[problem.code] = {"summary": problem.title, "value": problem.model_dump(exclude_none=True)}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    documented = {
        "description": "; ".join(kind_of(error).title for error in errors),
        "content": {MEDIA_TYPE: content},
    }
    if any(_retry_after(error, kind_of(error).status) for error in errors):
        documented["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return documented
