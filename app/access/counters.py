"""Number of requests of each client in a sliding window, in this process or shared in Redis.

The count is that of the present window plus the share of the last one that is less than a window's length ago. It needs two numbers
for each client, and a burst at the end of a window does not double a limit.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from math import floor
from typing import Protocol, TypeVar

import structlog

log = structlog.get_logger(__name__)

MAX_COUNTERS = 65_536
"""Clients that are counted in this process; for one more, the least recently seen one is dropped."""
_REDIS_TIMEOUT_S = 0.5
_RETRY_S = 1.0
_MAX_CONNECTIONS = 32

Value = TypeVar("Value")
Counts = tuple[int, float, int, float]
"""Count of the last window, seconds for which it still counts; count of the present one, seconds until it expires."""


class Counters(Protocol):
    """Storage of counts; the storages of the library limits implement it, too."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add `amount` unless that exceeds the limit; return whether it was added. `expiry`: seconds of a window."""

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """Return the present counts."""


class LocalCounters:
    """Counts of a bounded number of clients in this process.

    The library's own storage in memory starts a task for each request that scans every client's counter (without asyncio: a
    thread), and grows with the number of clients.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, max_counters: int = MAX_COUNTERS) -> None:
        self._now = now
        self._max = max_counters
        self._kept: OrderedDict[str, tuple[int, int, int]] = (
            OrderedDict()
        )  # number of the window, last count, present count

    def __len__(self) -> int:
        return len(self._kept)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """As in Counters. Atomic, because it awaits nothing."""
        last, last_counts_s, present, _ = self._counts(key, expiry)
        fits = floor(last * last_counts_s / expiry) + present + amount <= limit
        self._kept[key] = (int(self._now() // expiry), last, present + amount if fits else present)
        self._kept.move_to_end(key)  # also for a refused client, which is still active
        if len(self._kept) > self._max:
            self._kept.popitem(last=False)
        return fits

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """As in Counters."""
        return self._counts(key, expiry)

    def _counts(self, key: str, expiry: int) -> Counts:
        window, within = divmod(self._now(), expiry)
        kept, last, present = self._kept.get(key, (int(window), 0, 0))
        if kept < window:
            last, present = (present if kept == window - 1 else 0), 0
        left = expiry - within
        return last, left, present, left + expiry


class RedisCounters:
    """Counts in Redis, for services that share their limits; in this process while Redis fails.

    When Redis fails, the service goes on, and each process enforces the limits by itself.
    """

    def __init__(self, uri: str, failed: Callable[[], None]) -> None:
        """`failed` is called after every failed request to Redis."""
        from limits.aio.storage import RedisStorage  # noqa: PLC0415 — an extra
        from limits.errors import StorageError  # noqa: PLC0415
        from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415

        self._pool = BlockingConnectionPool.from_url(
            uri,
            max_connections=_MAX_CONNECTIONS,
            timeout=_REDIS_TIMEOUT_S,
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
        )
        self._redis = RedisStorage(
            uri,
            implementation="redispy",
            wrap_exceptions=True,
            key_prefix="polymodal",
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._failures = (StorageError, OSError, TimeoutError)
        self._failed = failed
        self._local = LocalCounters()
        self._broken = False
        self._retry_at = 0.0

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """As in Counters."""
        return await self._call(lambda counters: counters.acquire_sliding_window_entry(key, limit, expiry, amount))

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """As in Counters."""
        return await self._call(lambda counters: counters.get_sliding_window(key, expiry))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _call(self, operation: Callable[[Counters], Awaitable[Value]]) -> Value:
        now = time.monotonic()
        if now < self._retry_at:
            return await operation(self._local)
        retrying = self._broken
        if retrying:
            self._retry_at = now + _RETRY_S  # one request retries; the others don't wait for its outcome
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                value = await operation(self._redis)
        except self._failures as failure:
            self._retry_at = time.monotonic() + _RETRY_S
            self._failed()
            if not self._broken:  # the message may contain the address, and with it a password
                log.error("rate_limits_without_redis", problem=type(failure).__name__)  # noqa: TRY400
            self._broken = True
            return await operation(self._local)
        if retrying:  # the success of a request that was sent before the failure proves nothing
            log.info("rate_limits_in_redis_again")
            self._broken = False
            self._retry_at = 0.0
        return value
