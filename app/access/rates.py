"""Rate limits: how many units a client may use in a window, the header fields about them, and when to retry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Self

from polymodal.app.access.counters import Counters, Counts
from polymodal.app.problems import Problem

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,3})?(second|minute|hour|day)s?")


@dataclass(frozen=True, slots=True)
class Rate:
    """Units per number of seconds. A request is one unit, and each further item of a batch is one more."""

    units: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `600/minute`, `10000/day`, `100/10seconds`. Raises ValueError."""
        if not (match := _RATE.fullmatch("".join(text.split()).lower())):
            raise ValueError("not a rate; allowed: for example 600/minute, 10000/day or 100/10seconds")
        return cls(int(match[1]), int(match[2] or 1) * _SECONDS[match[3]])


class RateLimited(Problem):
    """The client has sent more than its limit allows."""

    status = 429
    code = "rate_limited"
    title = "More requests than this client's share"

    def __init__(self, policy: str, rate: Rate, retry_after_s: int) -> None:
        super().__init__(
            f"{policy}: more than {rate.units:,} in {rate.seconds:,} s; allowed: again in {retry_after_s:,} s"
        )
        self.retry_after_s = retry_after_s

    @classmethod
    def example(cls) -> Self:
        """Return the error for a key's limit."""
        return cls("key", Rate(600, 60), retry_after_s=12)


class Allowance:
    """The rate limits of one request, and the units that are left."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._limits: dict[str, tuple[Rate, str]] = {}
        self._left: dict[str, tuple[int, int]] = {}

    @property
    def most(self) -> int | None:
        """Most units that one request can use, however long it waits; None without a limit."""
        return min((rate.units for rate, _ in self._limits.values()), default=None)

    async def join(self, policy: str, rate: Rate, client: str) -> None:
        """Add a limit, and count the request under it. Raises RateLimited."""
        self._limits[policy] = rate, client
        await self._take(policy, 1, 1)

    async def take(self, units: int) -> None:
        """Count `units` under all limits. Raises RateLimited."""
        if units:
            for policy in self._limits:
                await self._take(policy, units, 1 + units)

    async def _take(self, policy: str, units: int, retry_units: int) -> None:
        rate, client = self._limits[policy]
        counter = f"{policy}/{client}/{rate.units}/{rate.seconds}"
        fits = await self._counters.acquire_sliding_window_entry(counter, rate.units, rate.seconds, units)
        counts = await self._counters.get_sliding_window(counter, rate.seconds)
        self._left[policy] = left(counts, rate), wait_s(counts, rate, rate.units)
        if not fits:
            raise RateLimited(policy, rate, max(1, wait_s(counts, rate, retry_units)))

    def fields(self) -> Mapping[bytes, bytes]:
        """Return the header fields RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11."""
        if not self._left:
            return {}
        policies = [
            f'"{name}";q={self._limits[name][0].units};w={self._limits[name][0].seconds}' for name in self._left
        ]
        present = [f'"{name}";r={units};t={seconds}' for name, (units, seconds) in self._left.items()]
        return {b"ratelimit-policy": ", ".join(policies).encode(), b"ratelimit": ", ".join(present).encode()}


def left(counts: Counts, rate: Rate) -> int:
    """Return the units that are left now."""
    last, last_counts_s, present, _ = counts
    return max(0, rate.units - floor(last * last_counts_s / rate.seconds) - present)


def wait_s(counts: Counts, rate: Rate, units: int) -> int:
    """Return the whole seconds until `units` are left if none are used meanwhile; 0 if they are left now.

    `units` must not exceed the rate's. The count of a window decreases linearly during the next one.
    """
    last, last_counts_s, present, expires_s = counts
    bound = rate.units - units + 1  # the count must be below it
    if last * last_counts_s / rate.seconds + present < bound:
        return 0
    if present < bound:
        return floor(last_counts_s - (bound - present) * rate.seconds / last) + 1
    window_left_s = max(0.0, expires_s - rate.seconds)
    return floor(window_left_s + rate.seconds * (1 - bound / present)) + 1
