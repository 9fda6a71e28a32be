"""Deadline, retries and errors of a call: a generator without a connection of its own, which a client runs.

    yields                              receives
    Send   one attempt, with a timeout  a Reply, or Lost without one
    Pause  a number of seconds          None

The two clients differ only in how they send and pause.
"""

import json
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, TypeVar

from polymodal_client.answers import ItemAnswer
from polymodal_client.calls import Call, Packed, Task, real_number
from polymodal_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    PolymodalError,
    ProblemError,
    TimedOut,
    TryLater,
    UnexpectedAnswer,
    error_of,
)
from polymodal_client.retries import REPEATED, Retries, retry_after_s

Answer = TypeVar("Answer")

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")  # what the service keeps; it replaces anything else
_MOST_MS: Final = 999_999_999
_NOT_COMPUTED: Final = (TryLater, DeadlineExceeded)
"""Errors of items that were not computed, because the others took the time. Another request may have enough time."""
_DIVISIBLE: Final = frozenset({"too_many_bytes", "too_many_items", "malformed_body"})
"""Codes of a batch whose halves may be accepted. JSON that is too large for its parser is a malformed body."""


@dataclass(frozen=True, slots=True)
class Send:
    """One attempt."""

    call: Call[Any]
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    """The rest of the call's timeout."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; names of header fields are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """A request without a response."""

    reason: str
    in_time: bool
    """Whether time is left: true for a failed connection, false for a timeout."""


Steps = Generator[Send | Pause, Reply | Lost | None, Answer]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Timeout, retries and common header fields of calls."""

    timeout_s: float
    retries: Retries = field(default_factory=Retries)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """A key may be among them."""
    clock: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeout_s", real_number("timeout", self.timeout_s, "seconds, more than 0"))
        if self.timeout_s <= 0:
            raise ValueError(f"timeout: {self.timeout_s}; allowed: seconds, more than 0")

    def perform(self, call: Call[Answer], request_id: str | None = None) -> Steps[Answer]:
        """Make one call with its retries. Raises PolymodalError; ValueError for an id that the service would replace."""
        if request_id is not None and not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
            raise ValueError(f"request_id: {request_id!r}; allowed: up to 128 letters, digits, '.', '_' and '-'")
        request_id = request_id or secrets.token_hex(16)
        deadline = self.clock() + self.timeout_s
        attempt = 0
        while True:
            attempt += 1
            left_s = deadline - self.clock()
            if left_s <= 0:
                raise _with_id(
                    TimedOut(f"{call.method} {call.path}: no answer within {self.timeout_s:g} s"), request_id
                )
            result = yield Send(call, {**self.headers, **_attempt_headers(request_id, left_s)}, left_s)
            if isinstance(result, Reply):
                if result.status == 200:
                    return _read(call, result, request_id)
                error: PolymodalError = _refusal(result, request_id)
                after_s = retry_after_s(result.headers.get("retry-after"))
                retry = result.status in REPEATED
            elif isinstance(result, Lost):
                message = f"{call.method} {call.path}: {result.reason}"
                error = _with_id(ConnectionFailed(message) if result.in_time else TimedOut(message), request_id)
                after_s, retry = None, result.in_time
            else:
                raise TypeError("a Send is answered with a Reply or a Lost")
            wait_s = self.retries.wait_s(attempt, after_s) if retry and call.repeatable else None
            if wait_s is None or self.clock() + wait_s >= deadline:
                raise error
            yield Pause(wait_s)

    def perform_batch(self, task: Task[Answer], items: Sequence[Packed]) -> Steps[list[ItemAnswer[Answer]]]:
        """Send items in one request, or in halves if it is too large. Items that were not computed are retried once.

        Raises PolymodalError when none of them has an answer.
        """
        try:
            answers = list((yield from self.perform(task.batch_call(items))))
        except InvalidRequest as error:
            if error.code not in _DIVISIBLE or len(items) == 1:
                raise
            half = len(items) // 2
            return (yield from self._in_shares(task, (items[:half], items[half:])))
        not_computed = [number for number, answer in enumerate(answers) if isinstance(answer.error, _NOT_COMPUTED)]
        if not_computed and (wait_s := self.retries.wait_s(1, None)) is not None:
            yield Pause(wait_s)
            retried = yield from self._retry(task, [items[number] for number in not_computed])
            for number, answer in zip(not_computed, retried, strict=False):
                answers[number] = answer
        return answers

    def _in_shares(self, task: Task[Answer], shares: Iterable[Sequence[Packed]]) -> Steps[list[ItemAnswer[Answer]]]:
        """Return the answers of several requests. After the first answers, a failed request is the error of its items."""
        answers: list[ItemAnswer[Answer]] = []
        for items in shares:
            try:
                answers += yield from self.perform_batch(task, items)
            except PolymodalError as error:
                if not answers and not isinstance(error, InvalidRequest):
                    raise
                answers += [ItemAnswer(item.index, item.id, None, error) for item in items]
        return answers

    def _retry(self, task: Task[Answer], items: Sequence[Packed]) -> Steps[Sequence[ItemAnswer[Answer]]]:
        """Return new answers, or none if the whole request failed, so that the items keep their first errors."""
        try:
            return (yield from self.perform(task.batch_call(items)))
        except PolymodalError:
            return ()


def _attempt_headers(request_id: str, left_s: float) -> dict[str, str]:
    return {"X-Request-Id": request_id, "X-Request-Timeout-Ms": str(max(1, min(_MOST_MS, int(left_s * 1000))))}


def _with_id(error: PolymodalError, request_id: str) -> PolymodalError:
    error.request_id = request_id
    return error


def _read(call: Call[Answer], reply: Reply, request_id: str) -> Answer:
    request_id = reply.headers.get("x-request-id", request_id)
    try:
        return call.read(json.loads(reply.body), request_id)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        reason = f"an answer that Polymodal does not give ({_media_type(reply)})"
        raise UnexpectedAnswer(reply.status, reason, reply.body, request_id, None) from problem


def _refusal(reply: Reply, request_id: str) -> ProblemError | UnexpectedAnswer:
    after_s = retry_after_s(reply.headers.get("retry-after"))
    try:
        return error_of(json.loads(reply.body), after_s)
    except (LookupError, TypeError, ValueError, RecursionError):
        request_id = reply.headers.get("x-request-id", request_id)
        location = reply.headers.get("location")
        reason = f"leads to {location}" if location else f"no problem of Polymodal ({_media_type(reply)})"
        return UnexpectedAnswer(reply.status, reason, reply.body, request_id, after_s)


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "without a media type")
