"""What a request must pass before anything of it is read: its address's limit, its key, its key's limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from app.access import authenticate, authorize, is_open
from app.addresses import Network, client_address, group_of
from app.counters import Counters
from app.keys import KeysFile
from app.rate_limits import Allowance, Rate


class HasFields(Protocol):
    """What adds header fields to the answer; found in the request's state as `allowance`."""

    def fields(self) -> Mapping[bytes, bytes]:
        """Names in lower case, and values."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The rates that hold, and where is counted."""

    per_address: Rate | None
    per_key: Rate | None
    counters: Counters


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
        if limits:
            allowance = state["allowance"] = Allowance(limits.counters)
            if limits.per_address:
                await allowance.join("address", limits.per_address, self._client(scope))
        if self._keys:
            key = authenticate(self._keys, scope["headers"])
            state["key"] = key.name
            authorize(key, path)
            if limits and limits.per_key and allowance:
                await allowance.join("key", limits.per_key, key.name)

    def _client(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope["client"] else None
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"] if self._trusted else []
        return group_of(client_address(peer, forwarded, self._trusted))
