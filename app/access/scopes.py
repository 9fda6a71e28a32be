"""Scopes of keys. Every route is registered with the scope that it needs (`app.api.routing`)."""

from collections.abc import Iterable
from typing import Final, Self

from polymodal.app.problems import RequestError
from polymodal.model import TASKS

OPEN: Final = "(open)"
"""Scope of the routes that need no key and have no rate limit: the page and the probes."""
ANY_KEY: Final = "(any key)"
"""Scope of a route that any key may use, because it returns nothing about the service."""


def scopes() -> tuple[str, ...]:
    """Return all scopes: one per task, and those of the other routes."""
    return (*TASKS, "search", "models", "metrics", "docs")


class Forbidden(RequestError):
    """A valid key without the scope of this route."""

    status = 403
    code = "forbidden"
    title = "The key does not open this route"

    def __init__(self, scopes: Iterable[str], needed: str) -> None:
        super().__init__("key", f"the scopes {', '.join(sorted(scopes))}", f"a key with the scope {needed}")

    @classmethod
    def example(cls) -> Self:
        """Return the error for a key that may only list models."""
        return cls(("models",), "classify")


def authorize(scopes: Iterable[str], needed: str) -> None:
    """Raise Forbidden unless a key with these scopes may use a route that needs the scope `needed`."""
    if needed not in (OPEN, ANY_KEY, *scopes):
        raise Forbidden(scopes, needed)
