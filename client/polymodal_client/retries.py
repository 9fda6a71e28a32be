"""When a call is repeated, and after how long. A classification changes nothing, so it is safe to ask for it again."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

REPEATED: Final = frozenset({429, 503})
"""The service did nothing, and says when to come back. A 500 or 504 would most likely come again, and costs it as much again."""
JITTER: Final = 0.25
"""So much longer than asked, at most: clients that were refused together must not come back together."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a call is repeated, all within the call's time."""

    attempts: int = 4
    """In all, the first included; 1: nothing is repeated."""
    first_wait_s: float = 0.2
    """Before the first repeat, where the service names no time; doubled each time, and drawn by chance below that."""
    longest_wait_s: float = 30.0
    """A service that asks for more patience than that is given up at once."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ValueError(f"{self}; allowed: at least one attempt, and no negative times")

    def wait_s(self, attempt: int, asked_s: float | None, chance: Callable[[], float] = random.random) -> float | None:
        """Seconds to wait after a failed attempt (the first is 1); None: give up. Never less than the service asked for."""
        if attempt >= self.attempts:
            return None
        if asked_s is None:
            return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * chance()
        if asked_s > self.longest_wait_s:
            return None
        return asked_s * (1 + JITTER * chance())


def retry_after_s(field: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds of a Retry-After field: a number, or an HTTP date. None when there is none, or none that can be read."""
    if field is None:
        return None
    text = field.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now()).total_seconds())
