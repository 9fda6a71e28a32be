"""Who may ask for what: which key a request carries, and which scope its path needs. Knows nothing of bodies."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from app.keys import Key, KeysFile, Scope

Headers = Iterable[tuple[bytes, bytes]]  # as in an ASGI scope: names in lower case

OPEN = frozenset({"/", "/livez", "/readyz", "/startupz", "/healthz"})
"""Answered without a key and without a limit: the page's first file, and the probes, which machines ask that have no key."""
_OPEN_BELOW = "/web/"
_SCOPES: tuple[tuple[str, Scope], ...] = (
    ("/v1/classify", "classify"),
    ("/v1/models", "models"),
    ("/metrics", "metrics"),
    ("/docs", "docs"),
    ("/openapi.json", "docs"),
)
_CREDENTIAL = re.compile(rb"[A-Za-z0-9._~+/=-]{1,256}")  # RFC 6750's b64token, bounded
_ALLOWED = "Authorization: Bearer KEY, or X-API-Key: KEY"


class Unauthorized(Exception):
    """No key, or none that is valid."""

    def __init__(self, found: str) -> None:
        self.input, self.found, self.allowed = "key", found, _ALLOWED
        super().__init__(f"key: {found}; allowed: {_ALLOWED}")


class Forbidden(Exception):
    """A valid key that doesn't open this route."""

    def __init__(self, key: Key, needed: Scope) -> None:
        self.input, self.found = "key", f"the scopes {', '.join(sorted(key.scopes))}"
        self.allowed = f"a key with the scope {needed}"
        super().__init__(f"key: {self.found}; allowed: {self.allowed}")


def is_open(path: str) -> bool:
    """Whether anybody may ask for this path, as often as they like."""
    return path in OPEN or path.startswith(_OPEN_BELOW)


def scope_of(path: str) -> Scope | None:
    """The scope that a path needs; None: any key will do. A route that nobody thought of here is closed, not open."""
    return next((scope for stem, scope in _SCOPES if path == stem or path.startswith(stem + "/")), None)


def presented_key(headers: Headers) -> str:
    """The key that a request carries. Raises Unauthorized, which never repeats what was sent.

    Other schemes of Authorization are left alone: they may be meant for a proxy in front, with the key in X-API-Key.
    """
    given: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credential = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                given.add(credential.strip())
        elif name == b"x-api-key":
            given.add(value.strip())
    if not given:
        raise Unauthorized("none")
    if len(given) > 1:
        raise Unauthorized("several that differ")
    (key,) = given
    if not _CREDENTIAL.fullmatch(key):
        raise Unauthorized("one that is malformed")
    return key.decode("ascii")


def authenticate(keys: KeysFile, headers: Headers) -> Key:
    """The record of the key that a request carries. Raises Unauthorized."""
    key = keys.find(presented_key(headers))
    if key is None:
        raise Unauthorized("one that is unknown")
    if key.expired(datetime.now(UTC)):
        raise Unauthorized("one that has expired")
    return key


def authorize(key: Key, path: str) -> None:
    """Raises Forbidden unless a key opens a path."""
    needed = scope_of(path)
    if needed is not None and needed not in key.scopes:
        raise Forbidden(key, needed)
