"""How often each client has asked: counts in two windows that slide, in this process or shared in Redis.

The count that holds at a moment is that of the present window and of the part of the last one that is not yet a window's
length ago. Two small numbers for each client are all that has to be kept, and no burst at the end of a window doubles a limit.
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
"""Clients that are remembered in this process; beyond, whoever was not seen for longest is forgotten."""
_REDIS_TIMEOUT_S = 0.5
_RETRY_S = 1.0
_MAX_CONNECTIONS = 32

Answer = TypeVar("Answer")
Counts = tuple[int, float, int, float]
"""Of the last window, seconds for which it still counts; of the present one, seconds for which it will be remembered."""


class Counters(Protocol):
    """Where the counts are; the storages of the library limits are such, too."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` more unless that exceeds the limit; whether it was counted. `expiry`: a window's seconds."""

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """What is counted now."""


class LocalCounters:
    """In this process, of a bounded number of clients.

    Not the library's: its storage in memory starts a task for each request that looks at every client's counter (and the one
    without asyncio a thread), and grows with the number of clients.
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
        """As in Counters. Never waits, so that nothing can come between looking and counting."""
        last, last_counts_s, present, _ = self._counts(key, expiry)
        fits = floor(last * last_counts_s / expiry) + present + amount <= limit
        self._kept[key] = (int(self._now() // expiry), last, present + amount if fits else present)
        self._kept.move_to_end(key)  # also of who is refused: forgetting is for those who stay away
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
    """In Redis, for services that share their limits; while Redis doesn't answer, in this process.

    So a broken Redis neither stops the service nor opens it: each process then holds the limits by itself.
    """

    def __init__(self, uri: str, failed: Callable[[], None]) -> None:
        """`failed` is told each time that Redis was asked in vain."""
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
        self._ask_again = 0.0

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """As in Counters."""
        return await self._ask(lambda where: where.acquire_sliding_window_entry(key, limit, expiry, amount))

    async def get_sliding_window(self, key: str, expiry: int) -> Counts:
        """As in Counters."""
        return await self._ask(lambda where: where.get_sliding_window(key, expiry))

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._pool.aclose()

    async def _ask(self, question: Callable[[Counters], Awaitable[Answer]]) -> Answer:
        now = time.monotonic()
        if now < self._ask_again:
            return await question(self._local)
        trying_again = self._broken
        if trying_again:
            self._ask_again = now + _RETRY_S  # one request tries; the others need not wait for the outcome
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                answer = await question(self._redis)
        except self._failures as failure:
            self._ask_again = time.monotonic() + _RETRY_S
            self._failed()
            if not self._broken:  # the message might have the address in it, and that a password
                log.error("rate_limits_without_redis", problem=type(failure).__name__)  # noqa: TRY400
            self._broken = True
            return await question(self._local)
        if trying_again:  # an answer to an earlier question proves nothing
            log.info("rate_limits_in_redis_again")
            self._broken = False
            self._ask_again = 0.0
        return answer
