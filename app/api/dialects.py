"""Dialects: routes that are answered as the clients of another API expect.

A problem keeps its body as in RFC 9457, with one more member that these clients read, and has the status that they expect.
"""

from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from starlette.types import Scope

from polymodal.app.api.schemas import Problem
from polymodal.model import InputError, Schema

IGNORED: Final = "X-Ignored-Fields"
"""Header field of an answer: the fields of the request that are accepted without effect."""


def ignored_headers(ignored: Collection[str]) -> dict[str, str]:
    """Return the header field that names the fields of a request without effect; nothing without any."""
    return {IGNORED: ", ".join(ignored)} if ignored else {}


OPENAI: Final = "openai"
_OPENAI_CODES: Final = {
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
}
"""Codes of OpenAI for problems that both have, by our code."""


class OpenAIError(Schema):
    """A problem as the clients of OpenAI's API read it."""

    message: str
    """The detail of the problem."""
    type: str
    """invalid_request_error, rate_limit_error or server_error."""
    param: str | None = None
    """The field with the problem, if it is about one."""
    code: str
    """The code of the problem, or that of OpenAI's API: model_not_found, invalid_api_key, rate_limit_exceeded."""


class OpenAIProblem(Problem):
    """A problem, as in RFC 9457, that the clients of OpenAI's API read as well."""

    error: OpenAIError

    def document(self) -> dict[str, Any]:
        """Return the members in JSON; OpenAI's API writes `param` also without one."""
        return {**super().document(), "error": self.error.model_dump()}


COHERE, TEI = "cohere", "tei"


class CohereProblem(OpenAIProblem):
    """A problem, as in RFC 9457, that the clients of Cohere's API and of Jina's read as well."""

    message: str
    """The detail."""


class TEIProblem(Problem):
    """A problem, as in RFC 9457, that the clients of Text Embeddings Inference read as well."""

    error: str
    """The detail."""
    error_type: str
    """The code."""
    message: str
    """The detail."""


def _of_cohere(problem: Problem, kind: type[BaseException]) -> Problem:
    return CohereProblem(**dict(_of_openai(problem, kind)), message=problem.detail)


def _of_tei(problem: Problem, kind: type[BaseException]) -> Problem:
    return TEIProblem(**dict(problem), error=problem.detail, error_type=problem.code, message=problem.detail)


def _of_openai(problem: Problem, kind: type[BaseException]) -> Problem:
    """Return the problem with `error`. What is wrong with an input is a 400, which callers of these clients expect."""
    status = problem.status
    if status == HTTPStatus.UNPROCESSABLE_ENTITY or issubclass(kind, InputError):
        status = int(HTTPStatus.BAD_REQUEST)
    error = OpenAIError(
        message=problem.detail,
        type=_openai_type(status),
        param=problem.input,
        code=_OPENAI_CODES.get(problem.code, problem.code),
    )
    return OpenAIProblem(**{**dict(problem), "status": status}, error=error)


def _openai_type(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else "invalid_request_error"


Adapt: TypeAlias = Callable[[Problem, type[BaseException]], Problem]
_ADAPT: Final[Mapping[str, Adapt]] = {OPENAI: _of_openai, COHERE: _of_cohere, TEI: _of_tei}
SCHEMAS: Final[Mapping[str, type[Problem]]] = {
    OPENAI: OpenAIProblem,
    COHERE: CohereProblem,
    TEI: TEIProblem,
}
"""Schema of the problems of a dialect."""


def adapted(problem: Problem, kind: type[BaseException], dialect: str | None) -> Problem:
    """Return the problem of an exception of this class as a dialect has it; the problem itself without a dialect."""
    return _ADAPT[dialect](problem, kind) if dialect else problem


def dialect_of(scope: Scope) -> str | None:
    """Return the dialect of the route that a request was matched with; None for our own routes, and without a route."""
    dialect: str | None = getattr(scope.get("route"), "dialect", None)
    return dialect
