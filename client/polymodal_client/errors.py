"""Errors of the client. All are PolymodalErrors; a problem that the service returned is a ProblemError.

PolymodalError
├── ConnectionFailed     no answer: no process listens there, or the connection broke
├── TimedOut             no answer within the client's own timeout
├── UnexpectedAnswer     an answer of something else than Polymodal: a proxy's HTML, a redirection
└── ProblemError         a problem body, RFC 9457, with its code
    ├── InvalidRequest   the request is wrong: its form, its size, a parameter
    ├── InvalidInput     an input can't be used; the reason is in `input`, `found` and `allowed`
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404; UnknownModel, UnknownIndex for a model or an index that is not served
    ├── IndexOfAnotherModel   409
    ├── TryLater         `retry_after`: in how many seconds
    │   ├── Overloaded, RateLimited   429
    │   └── Unavailable               503
    ├── DeadlineExceeded 504
    └── InternalError    500 and any other status
"""

from collections.abc import Mapping
from typing import Any, Final

SHOWN: Final = 200
"""Characters of an unexpected answer in its error."""


class PolymodalError(Exception):
    """Base class: the call has no answer."""

    request_id: str = ""
    """As in the service's log, if it received the request."""


class ConnectionFailed(PolymodalError):
    """No answer: no process listens there, or the connection broke."""


class TimedOut(PolymodalError):
    """No answer within the client's timeout, retries included."""


class UnexpectedAnswer(PolymodalError):
    """An answer of something else than a Polymodal service, or of an incompatible version."""

    def __init__(self, status: int, reason: str, body: bytes, request_id: str, retry_after: float | None) -> None:
        start = " ".join(body[: 4 * SHOWN].decode(errors="replace").split())[:SHOWN]
        super().__init__(f"status {status}, {reason}" + (f": {start}" if start else ""))
        self.status, self.request_id, self.retry_after = status, request_id, retry_after


class ProblemError(PolymodalError):
    """A problem that the service returned."""

    def __init__(self, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = int(problem["status"])
        self.code = str(problem["code"])
        """Stable name of the kind of problem."""
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        """For people: the input, what was found and what is allowed."""
        self.request_id = str(problem.get("instance", ""))
        self.input, self.found, self.allowed = (_text(problem, name) for name in ("input", "found", "allowed"))
        self.retry_after = retry_after
        """Seconds of the service's Retry-After; None without it."""
        super().__init__(f"{self.status} {self.code}: {self.detail or self.title}")


def _text(problem: Mapping[str, Any], name: str) -> str | None:
    return None if problem.get(name) is None else str(problem[name])


class InvalidRequest(ProblemError):
    """The request is wrong: its form, its size, a parameter."""


class InvalidInput(ProblemError):
    """An input can't be used."""


class Unauthorized(ProblemError):
    """A key is needed, or this one is not valid."""


class Forbidden(ProblemError):
    """The key lacks the scope of this call."""


class NotFound(ProblemError):
    """The route does not exist: most likely the address of another service."""


class UnknownModel(NotFound):
    """No model of that name is served."""


class UnknownIndex(NotFound):
    """No index of that name is served."""


class IndexOfAnotherModel(ProblemError):
    """The index was built with a version of the model that is not served; its operator has to build it again."""


class TryLater(ProblemError):
    """A valid request that the service rejected on every attempt."""


class Overloaded(TryLater):
    """The service's queue is full."""


class RateLimited(TryLater):
    """This client has exceeded its rate limit."""


class Unavailable(TryLater):
    """The service is starting or draining, or no worker answers."""


class DeadlineExceeded(ProblemError):
    """The service stopped at the deadline: the answer would have come too late."""


class InternalError(ProblemError):
    """A failure of the service. Its log has the reason under the request's id."""


BY_CODE: Final[Mapping[str, type[ProblemError]]] = {
    "unsupported_format": InvalidInput,
    "nothing_given": InvalidInput,
    "unknown_modality": InvalidInput,
    "undecodable": InvalidInput,
    "too_large": InvalidInput,
    "invalid_input": InvalidInput,
    "unknown_model": UnknownModel,
    "unknown_index": UnknownIndex,
    "index_of_another_model": IndexOfAnotherModel,
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
}
"""Codes whose class does not follow from the status."""
BY_STATUS: Final[Mapping[int, type[ProblemError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(problem: Mapping[str, Any], retry_after: float | None = None) -> ProblemError:
    """Return the exception for a problem body. Raises LookupError, TypeError or ValueError for any other body."""
    status, code = int(problem["status"]), str(problem["code"])
    otherwise = InvalidRequest if 400 <= status < 500 else InternalError
    return BY_CODE.get(code, BY_STATUS.get(status, otherwise))(problem, retry_after)
