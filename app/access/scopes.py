"""Scopes of keys. Every route is registered with the scope that it needs (`app.api.routing`)."""

from collections.abc import Iterable
from typing import Final, Self

from polymodal.app.problems import RequestError
from polymodal.model import TASKS

OPEN: Final = "(open)"
"""Scope of a route without keys and rate limits: the page, and the probes, whose clients have no key."""
ANY_KEY: Final = "(any key)"
"""Scope of a route that returns nothing about the service."""


def scopes() -> tuple[str, ...]:
    """Return every scope that a route may need and a key may have: one for each task, and those of other routes."""
    return (*TASKS, "models", "metrics", "docs")


class Forbidden(RequestError):
    """A valid key without the scope of this route."""

    status = 403
    code = "forbidden"
    title = "The key does not open this route"

    def __init__(self, scopes: Iterable[str], needed: str) -> None:
        super().__init__("key", f"the scopes {', '.join(sorted(scopes))}", f"a key with the scope {needed}")

    @classmethod
    def example(cls) -> Self:
        """As of a key for the list of models."""
        return cls(("models",), "classify")


def authorize(scopes: Iterable[str], needed: str) -> None:
    """Raise Forbidden unless a key with these scopes may use a route that needs this one."""
    if needed not in (OPEN, ANY_KEY, *scopes):
        raise Forbidden(scopes, needed)
