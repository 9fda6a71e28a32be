"""What can go wrong. Everything is a PolymodalError; what the service itself said is a ProblemError.

PolymodalError
├── ConnectionFailed     no answer: nobody listens there, or the connection broke
├── TimedOut             no answer within the client's own time
├── UnexpectedAnswer     an answer of something else than Polymodal: a proxy's HTML, a redirection
└── ProblemError         a problem body, RFC 9457, with its code
    ├── InvalidRequest   the request is wrong: its form, its size, a parameter
    ├── InvalidInput     the picture or the text can't be used; `input`, `found` and `allowed` say why
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404; UnknownModel when it is the model that is not there
    ├── TryLater         `retry_after` says when
    │   ├── Overloaded, RateLimited   429
    │   └── Unavailable               503
    ├── DeadlineExceeded 504
    └── InternalError    500 and whatever else may come
"""

from collections.abc import Mapping
from typing import Any, Final

SHOWN: Final = 200
"""Characters of an unexpected answer that its error tells."""


class PolymodalError(Exception):
    """Anything that keeps an answer from coming."""

    request_id: str = ""
    """As in the service's log, when the request got there."""


class ConnectionFailed(PolymodalError):
    """No answer: nobody listens there, or the connection broke."""


class TimedOut(PolymodalError):
    """No answer within the time that the client was given, repeats included."""


class UnexpectedAnswer(PolymodalError):
    """What answered is no Polymodal service, or one of another kind."""

    def __init__(self, status: int, reason: str, body: bytes, request_id: str, retry_after: float | None) -> None:
        start = " ".join(body[: 4 * SHOWN].decode(errors="replace").split())[:SHOWN]
        super().__init__(f"status {status}, {reason}" + (f": {start}" if start else ""))
        self.status, self.request_id, self.retry_after = status, request_id, retry_after


class ProblemError(PolymodalError):
    """What the service said was wrong."""

    def __init__(self, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = int(problem["status"])
        self.code = str(problem["code"])
        """Stable name of the kind of problem."""
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        """For people: the input, what was found and what is allowed."""
        self.request_id = str(problem.get("instance", ""))
        self.input, self.found, self.allowed = (_word(problem, name) for name in ("input", "found", "allowed"))
        self.retry_after = retry_after
        """Seconds after which the service would have been asked again; None where it named none."""
        super().__init__(f"{self.status} {self.code}: {self.detail or self.title}")


def _word(problem: Mapping[str, Any], name: str) -> str | None:
    return None if problem.get(name) is None else str(problem[name])


class InvalidRequest(ProblemError):
    """The request is wrong: its form, its size, a parameter."""


class InvalidInput(ProblemError):
    """The picture or the text can't be used."""


class Unauthorized(ProblemError):
    """A key is needed, or this one is not valid."""


class Forbidden(ProblemError):
    """The key does not open this."""


class NotFound(ProblemError):
    """No such route: most likely another service's address."""


class UnknownModel(NotFound):
    """No model of that name is served."""


class TryLater(ProblemError):
    """Nothing is wrong with the request; it was repeated as often as allowed, and refused each time."""


class Overloaded(TryLater):
    """Too much is waiting."""


class RateLimited(TryLater):
    """More than this client's share."""


class Unavailable(TryLater):
    """Starting, draining, or no worker answers."""


class DeadlineExceeded(ProblemError):
    """The service gave up: the answer would have come too late."""


class InternalError(ProblemError):
    """Not the client's fault; the service's log has the reason under the request's id."""


BY_CODE: Final[Mapping[str, type[ProblemError]]] = {
    "unsupported_format": InvalidInput,
    "nothing_given": InvalidInput,
    "unknown_modality": InvalidInput,
    "undecodable": InvalidInput,
    "too_large": InvalidInput,
    "invalid_input": InvalidInput,
    "unknown_model": UnknownModel,
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
}
"""Where the status does not say it."""
BY_STATUS: Final[Mapping[int, type[ProblemError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(problem: Mapping[str, Any], retry_after: float | None = None) -> ProblemError:
    """The exception for a problem body. Raises LookupError, TypeError or ValueError when it is none."""
    status, code = int(problem["status"]), str(problem["code"])
    otherwise = InvalidRequest if 400 <= status < 500 else InternalError
    return BY_CODE.get(code, BY_STATUS.get(status, otherwise))(problem, retry_after)
