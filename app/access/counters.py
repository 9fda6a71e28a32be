"""Counters of each client's requests in a sliding window, in this process or shared in Redis.

The sliding count is that of the present window, plus that of the last window times the share of it that is less than a window's
length ago. It needs two numbers per client, and a burst where two windows meet cannot double a limit. In this process a client's
windows start with its own first request, so a limit of one request per hour is exact. In Redis all clients have the same windows.
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
"""Most clients that are counted in this process; for a new one, the least recently seen one is dropped."""
_REDIS_TIMEOUT_S = 0.5
_RETRY_S = 1.0
_MAX_CONNECTIONS = 32

Value = TypeVar("Value")
Counts = tuple[int, float, int, float]
"""Count of the last window, and seconds for which it still counts; count of the present window, and seconds until it expires."""


class Counters(Protocol):
    """Storage of counts. The storages of the library `limits` implement it, too."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add `amount` unless that exceeds the limit; return whether it was added. `expiry`: length of a window in seconds."""

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """Return the present counts."""


class LocalCounters:
    """Counts of a bounded number of clients in this process.

    The storage in memory of `limits` starts a task or thread for each request that scans the counters of all clients, and it grows
    with the number of clients.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, max_counters: int = MAX_COUNTERS) -> None:
        self._now = now
        self._max = max_counters
        self._windows: OrderedDict[str, tuple[float, int, int]] = OrderedDict()
        """By client: start of the present window, count of the last one, count of the present one."""

    def __len__(self) -> int:
        return len(self._windows)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Implement Counters. Atomic, because it awaits nothing."""
        now = self._now()
        start, last, present = self._window(key, expiry, now)
        fits = floor(last * (start + expiry - now) / expiry) + present + amount <= limit
        self._windows[key] = (start, last, present + amount if fits else present)
        self._windows.move_to_end(key)  # also for a refused client, which is active
        if len(self._windows) > self._max:
            self._windows.popitem(last=False)
        return fits

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """Implement Counters."""
        now = self._now()
        start, last, present = self._window(key, expiry, now)
        left = start + expiry - now
        return last, left, present, left + expiry

    def _window(self, key: str, expiry: int, now: float) -> tuple[float, int, int]:
        start, last, present = self._windows.get(key, (now, 0, 0))
        if now < start + expiry:
            return start, last, present
        if now < start + 2 * expiry:
            return start + expiry, present, 0
        return now, 0, 0


class RedisCounters:
    """Counts in Redis, which several services share. While Redis fails, each process counts by itself."""

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
        """Implement Counters."""
        return await self._call(lambda counters: counters.acquire_sliding_window_entry(key, limit, expiry, amount))

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """Implement Counters."""
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
            self._retry_at = now + _RETRY_S  # only one request retries; the others do not wait for it
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                value = await operation(self._redis)
        except self._failures as failure:
            self._retry_at = time.monotonic() + _RETRY_S
            self._failed()
            if not self._broken:  # without the message, which may contain the address with its password
                log.error("rate_limits_without_redis", problem=type(failure).__name__)  # noqa: TRY400
            self._broken = True
            return await operation(self._local)
        if retrying:  # a request that was sent before the failure may succeed later
            log.info("rate_limits_in_redis_again")
            self._broken = False
            self._retry_at = 0.0
        return value
