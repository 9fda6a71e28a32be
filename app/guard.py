"""What a request must pass before anything of it is read: its address's limit, its key, its key's limit."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from starlette.types import Scope

from app.access import authenticate, authorize, is_open
from app.addresses import Network, client_address, group_of, is_loopback
from app.counters import Counters, LocalCounters, RedisCounters
from app.keys import KeysFile
from app.rate_limits import Allowance, Rate
from app.settings import MEMORY, Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The rates that hold, and where is counted."""

    per_address: Rate | None
    per_key: Rate | None
    counters: Counters

    async def aclose(self) -> None:
        """Give connections back."""
        if isinstance(self.counters, RedisCounters):
            await self.counters.aclose()


class Guard:
    """Built only when there is something to guard: a service without keys and limits has none, and pays nothing for it."""

    def __init__(self, keys: KeysFile | None, limits: Limits | None, trusted: tuple[Network, ...]) -> None:
        self._keys = keys
        self._limits = limits
        self._trusted = trusted

    async def admit(self, scope: Scope) -> None:
        """Let a request pass. Raises RateLimited, Unauthorized or Forbidden.

        The address is counted first, so that whoever tries keys is slowed down like everybody.
        """
        path = scope["path"]
        if is_open(path):
            return
        state = scope["state"]
        limits = self._limits
        allowance = None
        if limits is not None:
            allowance = state["allowance"] = Allowance(limits.counters)
            if limits.per_address:
                await allowance.join("address", limits.per_address, self._client(scope))
        if self._keys is not None:
            key = authenticate(self._keys, scope["headers"])
            state["key"] = key.name
            authorize(key, path)
            if allowance is not None and limits is not None and limits.per_key:
                await allowance.join("key", limits.per_key, key.name)

    def _client(self, scope: Scope) -> str:
        client = scope.get("client")
        peer = client[0] if client else None
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"] if self._trusted else []
        return group_of(client_address(peer, forwarded, self._trusted))


def keys_for(settings: Settings, stale: Callable[[bool], None]) -> KeysFile | None:
    """The keys that the settings name. Raises KeysError."""
    return KeysFile(settings.api_keys_file, stale) if settings.api_keys_file else None


def limits_for(settings: Settings, storage_failed: Callable[[], None]) -> Limits | None:
    """The limits that the settings name."""
    if settings.rate_limit_per_address is None and settings.rate_limit_per_key is None:
        return None
    uri = settings.rate_limit_storage
    counters = LocalCounters() if uri == MEMORY else RedisCounters(uri, storage_failed)
    return Limits(settings.rate_limit_per_address, settings.rate_limit_per_key, counters)


def guard_for(settings: Settings, keys: KeysFile | None, limits: Limits | None) -> Guard | None:
    """The guard of the first port."""
    return None if keys is None and limits is None else Guard(keys, limits, settings.trusted_proxies)


def admin_guard_for(settings: Settings, keys: KeysFile | None) -> Guard | None:
    """The guard of the second port: keys, unless only this machine can reach it."""
    return None if keys is None or is_loopback(settings.admin_host) else Guard(keys, None, ())


def warn_of_open_doors(settings: Settings, keys: KeysFile | None) -> None:
    """Say at the start what anybody, or nobody, can use."""
    if keys is None:
        hosts = {"host": settings.host} | ({} if settings.admin_port is None else {"admin_host": settings.admin_host})
        for name, host in hosts.items():
            if not is_loopback(host):
                advice = "set POLYMODAL_API_KEYS_FILE, or let a proxy in front ask for keys"
                log.warning("open_to_everyone", **{name: host}, next=advice)
    elif keys.count == 0:
        log.warning("no_api_keys", path=str(settings.api_keys_file), next="polymodal keys add")
