"""What happens around a call, without a connection: deadline, repeats, errors. A generator says what to do, and is told what came.

    yields                            is sent
    Send   one attempt, within a time   the Reply, or the Lost that came instead
    Pause  so many seconds              None

The two clients differ only in how they send and pause; what they have in common is here, and can be tested by itself.
"""

import json
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, TypeVar

from polymodal_client.answers import ItemAnswer
from polymodal_client.calls import Call, Options, Packed, classify_batch, real_number
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
_NO_TURN: Final = (TryLater, DeadlineExceeded)
"""Items that were told so were not computed: their neighbours took the time, and alone they may have enough."""
_DIVISIBLE: Final = frozenset({"too_many_bytes", "too_many_items", "malformed_body"})
"""Of a batch: half of it may be accepted. JSON that is too large for its parser is a malformed body."""


@dataclass(frozen=True, slots=True)
class Send:
    """One attempt."""

    call: Call[Any]
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    """What is left of the call's time."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came."""

    reason: str
    in_time: bool
    """Whether time is left: the connection failed, rather than that nothing came."""


Steps = Generator[Send | Pause, Reply | Lost | None, Answer]


@dataclass(frozen=True, slots=True)
class Exchange:
    """How calls are made: their time, their repeats, and the headers that all of them carry."""

    timeout_s: float
    retries: Retries = field(default_factory=Retries)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """A key may be among them."""
    clock: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeout_s", real_number("timeout", self.timeout_s, "seconds, more than 0"))
        if self.timeout_s <= 0:
            raise ValueError(f"timeout: {self.timeout_s}; allowed: seconds, more than 0")

    def ask(self, call: Call[Answer], request_id: str | None = None) -> Steps[Answer]:
        """One call to its end. Raises PolymodalError; ValueError for an id that the service would not keep."""
        if request_id is not None and not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
            raise ValueError(f"request_id: {request_id!r}; allowed: up to 128 letters, digits, '.', '_' and '-'")
        request_id = request_id or secrets.token_hex(16)
        until = self.clock() + self.timeout_s
        attempt = 0
        while True:
            attempt += 1
            left_s = until - self.clock()
            if left_s <= 0:
                raise _noted(TimedOut(f"{call.method} {call.path}: no answer within {self.timeout_s:g} s"), request_id)
            outcome = yield Send(call, {**self.headers, **_of_this_try(request_id, left_s)}, left_s)
            if isinstance(outcome, Reply):
                if outcome.status == 200:
                    return _read(call, outcome, request_id)
                error: PolymodalError = _refusal(outcome, request_id)
                asked_s = retry_after_s(outcome.headers.get("retry-after"))
                again = outcome.status in REPEATED
            elif isinstance(outcome, Lost):
                what = f"{call.method} {call.path}: {outcome.reason}"
                error = _noted(ConnectionFailed(what) if outcome.in_time else TimedOut(what), request_id)
                asked_s, again = None, outcome.in_time
            else:
                raise TypeError("a Send is answered with a Reply or a Lost")
            wait_s = self.retries.wait_s(attempt, asked_s) if again and call.repeatable else None
            if wait_s is None or self.clock() + wait_s >= until:
                raise error
            yield Pause(wait_s)

    def ask_batch(self, items: Sequence[Packed], options: Options) -> Steps[list[ItemAnswer]]:
        """Items in one request; in halves when it is too large, and once more those whose turn did not come.

        Raises PolymodalError when none of them got an answer.
        """
        try:
            answers = list((yield from self.ask(classify_batch(items, options))))
        except InvalidRequest as error:
            if error.code not in _DIVISIBLE or len(items) == 1:
                raise
            half = len(items) // 2
            return (yield from self._in_shares((items[:half], items[half:]), options))
        busy = [number for number, answer in enumerate(answers) if isinstance(answer.error, _NO_TURN)]
        if busy and (wait_s := self.retries.wait_s(1, None)) is not None:
            yield Pause(wait_s)
            again = yield from self._once_more([items[number] for number in busy], options)
            for number, answer in zip(busy, again, strict=False):
                answers[number] = answer
        return answers

    def _in_shares(self, shares: Iterable[Sequence[Packed]], options: Options) -> Steps[list[ItemAnswer]]:
        """Return the answers of several requests. The error of one is its own items', once there are others to keep."""
        answers: list[ItemAnswer] = []
        for items in shares:
            try:
                answers += yield from self.ask_batch(items, options)
            except PolymodalError as error:
                if not answers and not isinstance(error, InvalidRequest):
                    raise
                answers += [ItemAnswer(item.index, item.id, None, error) for item in items]
        return answers

    def _once_more(self, items: Sequence[Packed], options: Options) -> Steps[Sequence[ItemAnswer]]:
        """Answers, or none where the whole request failed: what the items were told first then stands."""
        try:
            return (yield from self.ask(classify_batch(items, options)))
        except PolymodalError:
            return ()


def _of_this_try(request_id: str, left_s: float) -> dict[str, str]:
    return {"X-Request-Id": request_id, "X-Request-Timeout-Ms": str(max(1, min(_MOST_MS, int(left_s * 1000))))}


def _noted(error: PolymodalError, request_id: str) -> PolymodalError:
    error.request_id = request_id
    return error


def _read(call: Call[Answer], reply: Reply, request_id: str) -> Answer:
    told = reply.headers.get("x-request-id", request_id)
    try:
        return call.read(json.loads(reply.body), told)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        reason = f"an answer that Polymodal does not give ({_media_type(reply)})"
        raise UnexpectedAnswer(reply.status, reason, reply.body, told, None) from problem


def _refusal(reply: Reply, request_id: str) -> ProblemError | UnexpectedAnswer:
    waits = retry_after_s(reply.headers.get("retry-after"))
    try:
        return error_of(json.loads(reply.body), waits)
    except (LookupError, TypeError, ValueError, RecursionError):
        told = reply.headers.get("x-request-id", request_id)
        where = reply.headers.get("location")
        reason = f"leads to {where}" if where else f"no problem of Polymodal ({_media_type(reply)})"
        return UnexpectedAnswer(reply.status, reason, reply.body, told, waits)


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "without a media type")
