"""Whether and when a call is retried. Calls change nothing in the service, so retries are safe."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

REPEATED: Final = frozenset({429, 503})
"""Statuses without any work in the service, with Retry-After. A 500 or 504 would probably recur at the same cost."""
JITTER: Final = 0.25
"""Largest random addition to Retry-After, as a share, so that clients that were rejected together do not retry together."""


@dataclass(frozen=True, slots=True)
class Retries:
    """Number of attempts and pauses of a call, within the call's timeout."""

    attempts: int = 4
    """In all, the first included; 1: no retries."""
    first_wait_s: float = 0.2
    """Upper bound of the random pause before the first retry, without Retry-After; doubled each time."""
    longest_wait_s: float = 30.0
    """A call with a larger Retry-After fails at once."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ValueError(f"{self}; allowed: at least one attempt, and no negative times")

    def wait_s(self, attempt: int, after_s: float | None, chance: Callable[[], float] = random.random) -> float | None:
        """Return the seconds to wait after a failed attempt (the first is 1), at least Retry-After; None: no retry."""
        if attempt >= self.attempts:
            return None
        if after_s is None:
            return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * chance()
        if after_s > self.longest_wait_s:
            return None
        return after_s * (1 + JITTER * chance())


def retry_after_s(field: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Return the seconds of a Retry-After field: a number, or an HTTP date. None without a valid one."""
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
