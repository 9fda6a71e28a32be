"""Responses to exceptions, with problem bodies as in RFC 9457.

A client sees only refusals, which are `app.problems.Problem` and `model.InputError`. Any other exception becomes a 500 with a
fixed message and is logged, because its own message may name paths and secrets.
"""

import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from polymodal.app.api import schemas
from polymodal.app.api.context import context_of
from polymodal.app.api.dialects import adapted, dialect_of
from polymodal.app.api.headers import protect
from polymodal.app.problems import InternalError, Problem, RequestError
from polymodal.model import InputError, InvalidParameter

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:polymodal:problem:"

Refusal: TypeAlias = Problem | InputError
Headers: TypeAlias = Mapping[str, str]

log = structlog.get_logger(__name__)


class ClientGone(Exception):
    """The client closed the connection before the answer."""


class RouteNotFound(RequestError):
    """No such route."""

    status = 404
    code = "not_found"
    title = "No such route"

    def __init__(self, path: str) -> None:
        super().__init__("path", path[:128], "the routes in /openapi.json")

    @classmethod
    def example(cls) -> "RouteNotFound":
        """Return the error for a misspelt path."""
        return cls("/v1/clasify")


class MethodNotAllowed(RequestError):
    """The route exists, but not with this method."""

    status = 405
    code = "method_not_allowed"
    title = "The route does not take this method"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__("method", method, allowed)

    @classmethod
    def example(cls) -> "MethodNotAllowed":
        """Return the error for GET where only POST is allowed."""
        return cls("GET", "POST")


def refusal_of(error: BaseException) -> Refusal:
    """Return the exception itself if clients may see it, otherwise an internal error."""
    if isinstance(error, Problem | InputError) and error.code != InternalError.code:
        return error
    return InternalError()


def problem_of(error: BaseException, request_id: str, dialect: str | None = None) -> schemas.Problem:
    """Return the body of the response to an exception, on a route of a dialect as its clients expect it."""
    refusal = refusal_of(error)
    problem = schemas.Problem(
        type=TYPE_PREFIX + refusal.code,
        title=refusal.title,
        status=refusal.status,
        detail=str(refusal),
        instance=request_id,
        code=refusal.code,
        input=refusal.input,
        found=refusal.found,
        allowed=refusal.allowed,
    )
    return adapted(problem, type(refusal), dialect)


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the header fields that an exception adds to its response."""
    if not isinstance(error, Problem):
        return {}
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return {**error.headers, **retry}


def response_to(error: BaseException, scope: Scope, headers: Headers | None = None) -> JSONResponse:
    """Return the response to an exception, and record its code in the request's context."""
    context = context_of(scope)
    problem = problem_of(error, context.request_id, dialect_of(scope))
    context.code = problem.code
    return JSONResponse(
        problem.document(),
        status_code=problem.status,
        headers={**headers_of(error), **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def raw_response_to(error: Problem) -> tuple[str, bytes]:
    """Return the code of an error for which there is no request, and the bytes of its response, which end the connection."""
    problem = problem_of(error, os.urandom(16).hex())
    body = problem.model_dump_json(exclude_none=True).encode()
    values = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-Id": problem.instance,
        **headers_of(error),
    }
    fields = [(name.encode(), value.encode()) for name, value in values.items()]
    protect(fields, path="")
    head = b"".join(b"%s: %s\r\n" % field for field in fields)
    line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return problem.code, line + head + b"\r\n" + body


class ErrorResponses:
    """Middleware that responds to exceptions, and logs those that are not refusals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            await self._app(scope, receive, send)
        except (ClientGone, ClientDisconnect):
            pass
        except Exception as raised:
            error, headers = _converted(raised, scope)
            started = context_of(scope).status != 0
            if started or isinstance(refusal_of(error), InternalError):
                log.exception("request_failed")
            if not started:
                await response_to(error, scope, headers)(scope, receive, send)


def _converted(error: Exception, scope: Scope) -> tuple[Exception, Headers]:
    """Convert an exception of FastAPI or Starlette to a refusal and its header fields; return any other unchanged."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return InvalidParameter(str(first["loc"][-1]), "an impossible value", first["msg"]), {}
    if not isinstance(error, HTTPException):
        return error, {}
    headers = dict(error.headers or {})
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return RouteNotFound(scope["path"]), headers
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = headers.get("Allow", "GET")  # Starlette's static files set no Allow
            headers["Allow"] = allowed.replace("GET", "GET, HEAD") if "HEAD" not in allowed else allowed
            return MethodNotAllowed(scope["method"], headers["Allow"]), headers
    return error, {}


def install(app: FastAPI) -> None:
    """Make FastAPI raise every exception of its routes to ErrorResponses; it answers some of them in plain text itself."""

    async def reraise(request: Request, error: Exception) -> JSONResponse:
        raise error

    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, reraise)
