"""Rate limits: how much a client may ask for in a time, what it is told of that, and when it may come back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Self

from app.counters import Counters, Counts

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,3})?(second|minute|hour|day)s?")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many units in so many seconds; a request is one unit, and each further item of a batch one more."""

    units: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`600/minute`, `10000/day`, `100/10seconds`. Raises ValueError."""
        if not (found := _RATE.fullmatch("".join(text.split()).lower())):
            raise ValueError("not a rate; allowed: for example 600/minute, 10000/day or 100/10seconds")
        return cls(int(found[1]), int(found[2] or 1) * _SECONDS[found[3]])


class RateLimited(Exception):
    """This client has asked for more than its share; later it may again."""

    def __init__(self, who: str, rate: Rate, retry_after_s: int) -> None:
        super().__init__(
            f"{who}: more than {rate.units:,} in {rate.seconds:,} s; allowed: again in {retry_after_s:,} s"
        )
        self.retry_after_s = retry_after_s


class Allowance:
    """What one request may take of its client's limits, and what is left of them."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._limits: dict[str, tuple[Rate, str]] = {}
        self._left: dict[str, tuple[int, int]] = {}

    @property
    def most(self) -> int | None:
        """Units that a request can never exceed, however long it waits; None without a limit."""
        return min((rate.units for rate, _ in self._limits.values()), default=None)

    async def join(self, policy: str, rate: Rate, client: str) -> None:
        """Count this request under one more limit. Raises RateLimited."""
        self._limits[policy] = rate, client
        await self._take(policy, 1, 1)

    async def take(self, units: int) -> None:
        """Count so many more under all limits that were joined. Raises RateLimited."""
        if units:
            for policy in self._limits:
                await self._take(policy, units, 1 + units)

    async def _take(self, policy: str, units: int, when_asked_again: int) -> None:
        rate, client = self._limits[policy]
        counter = f"{policy}/{client}/{rate.units}/{rate.seconds}"
        fits = await self._counters.acquire_sliding_window_entry(counter, rate.units, rate.seconds, units)
        counts = await self._counters.get_sliding_window(counter, rate.seconds)
        self._left[policy] = left(counts, rate), wait_s(counts, rate, rate.units)
        if not fits:
            raise RateLimited(policy, rate, max(1, wait_s(counts, rate, when_asked_again)))

    def fields(self) -> Mapping[bytes, bytes]:
        """The header fields RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11."""
        if not self._left:
            return {}
        policies = [
            f'"{name}";q={self._limits[name][0].units};w={self._limits[name][0].seconds}' for name in self._left
        ]
        present = [f'"{name}";r={units};t={seconds}' for name, (units, seconds) in self._left.items()]
        return {b"ratelimit-policy": ", ".join(policies).encode(), b"ratelimit": ", ".join(present).encode()}


def left(counts: Counts, rate: Rate) -> int:
    """Units that may still be taken now."""
    last, last_counts_s, present, _ = counts
    return max(0, rate.units - floor(last * last_counts_s / rate.seconds) - present)


def wait_s(counts: Counts, rate: Rate, units: int) -> int:
    """Whole seconds until so many units (at most the rate's) can be taken, if nobody takes any meanwhile; 0: now.

    What was counted in a window loses weight evenly while the next one passes, so the moment can be computed.
    """
    last, last_counts_s, present, remembered_s = counts
    room = rate.units - units + 1  # what is counted must be below it
    if last * last_counts_s / rate.seconds + present < room:
        return 0
    if present < room:
        return floor(last_counts_s - (room - present) * rate.seconds / last) + 1
    window_left_s = max(0.0, remembered_s - rate.seconds)
    return floor(window_left_s + rate.seconds * (1 - room / present)) + 1
