"""Middleware that checks a request before its body is read: the address's rate limit, the key, the key's rate limit."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from polymodal.app.access.addresses import Network, client_address, group_of, is_loopback
from polymodal.app.access.counters import Counters, LocalCounters, RedisCounters
from polymodal.app.access.keys import KeysFile, authenticate
from polymodal.app.access.rates import Allowance, Rate
from polymodal.app.access.scopes import OPEN, authorize
from polymodal.app.api.context import context_of
from polymodal.app.api.errors import RouteNotFound
from polymodal.app.api.routing import Routes
from polymodal.app.settings import MEMORY, Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The rate limits of the settings, and their counters."""

    per_address: Rate | None
    per_key: Rate | None
    counters: Counters

    async def aclose(self) -> None:
        """Close connections to Redis."""
        if isinstance(self.counters, RedisCounters):
            await self.counters.aclose()


@dataclass(frozen=True, slots=True)
class Rules:
    """Requirements on requests to one port."""

    keys: KeysFile | None
    limits: Limits | None = None
    trusted: tuple[Network, ...] = ()
    """Proxies whose X-Forwarded-For is used."""


class Guard:
    """Admits a request, or raises RateLimited, Unauthorized, Forbidden or RouteNotFound."""

    def __init__(self, app: ASGIApp, routes: Routes, rules: Rules) -> None:
        self._app = app
        self._routes = routes
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that is admitted."""
        await self._admit(scope)
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Check the request. The address is counted first, so that requests with wrong keys are limited, too."""
        route, needs = self._routes.resolve(scope) or (None, None)
        if needs == OPEN:
            return
        if route is not None:
            scope["route"] = route  # for metrics and log of a refused request
        context, rules = context_of(scope), self._rules
        allowance = None
        if rules.limits is not None:
            allowance = context.allowance = Allowance(rules.limits.counters)
            if rules.limits.per_address:
                await allowance.join("address", rules.limits.per_address, self._client(scope))
        if rules.keys is not None:
            key = authenticate(rules.keys, scope["headers"])
            context.key = key.name
            if needs is not None:
                authorize(key.scopes, needs)
            if allowance is not None and rules.limits is not None and rules.limits.per_key:
                await allowance.join("key", rules.limits.per_key, key.name)
            if needs is None:
                raise RouteNotFound(scope["path"])

    def _client(self, scope: Scope) -> str:
        client, trusted = scope.get("client"), self._rules.trusted
        peer = client[0] if client else None
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"] if trusted else []
        return group_of(client_address(peer, forwarded, trusted))


def keys_for(settings: Settings, stale: Callable[[bool], None]) -> KeysFile | None:
    """Return the keys of the settings; None without a file of keys. Raises KeysError."""
    return KeysFile(settings.api_keys_file, stale) if settings.api_keys_file else None


def limits_for(settings: Settings, storage_failed: Callable[[], None]) -> Limits | None:
    """Return the rate limits of the settings; None without any."""
    if settings.rate_limit_per_address is None and settings.rate_limit_per_key is None:
        return None
    uri = settings.rate_limit_storage
    counters = LocalCounters() if uri == MEMORY else RedisCounters(uri, storage_failed)
    return Limits(settings.rate_limit_per_address, settings.rate_limit_per_key, counters)


def rules_for(settings: Settings, keys: KeysFile | None, limits: Limits | None) -> Rules | None:
    """Return the rules of the main port; None without keys and limits."""
    return None if keys is None and limits is None else Rules(keys, limits, settings.trusted_proxies)


def admin_rules_for(settings: Settings, keys: KeysFile | None) -> Rules | None:
    """Return the rules of the admin port, which needs keys unless only this machine can reach it."""
    return None if keys is None or is_loopback(settings.admin_host) else Rules(keys)


def warn_of_open_ports(settings: Settings, keys: KeysFile | None) -> None:
    """Log a warning when a port is open to everyone, or when the file of keys is empty."""
    if keys is None:
        hosts = {"host": settings.host} | ({} if settings.admin_port is None else {"admin_host": settings.admin_host})
        for name, host in hosts.items():
            if not is_loopback(host):
                advice = "set POLYMODAL_API_KEYS_FILE, or let a proxy in front require keys"
                log.warning("open_to_everyone", **{name: host}, next=advice)
    elif keys.count == 0:
        log.warning("no_api_keys", path=str(settings.api_keys_file), next="polymodal keys add")
