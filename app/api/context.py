"""The context of one request, from its first byte to its log line."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from polymodal.app.access.rates import Allowance
from polymodal.app.observe.timeline import Timeline
from polymodal.model import Description

_KEY: Final = "polymodal.context"


@dataclass(slots=True)
class RequestContext:
    """Data that middleware and routes record about a request, for header fields, its log line, metrics and its trace."""

    request_id: str
    timeline: Timeline = field(default_factory=Timeline)
    status: int = 0
    """Of the response; 0 until it starts."""
    code: str = ""
    """Of the problem that was returned; empty without one."""
    key: str = ""
    """Name of the API key."""
    allowance: Allowance | None = None
    """The client's rate limits; None without limits."""
    model: Description | None = None
    """The model that answers, once it is resolved."""
    items: int | None = None
    """Of a batch."""
    modalities: Sequence[str] | None = None
    """The inputs that were sent, and after the answer those that were used; None until the body is read."""

    def store(self, scope: MutableMapping[str, Any]) -> None:
        """Make it the context of the request that has this ASGI scope."""
        scope[_KEY] = self


def context_of(request: Mapping[str, Any]) -> RequestContext:
    """Return the context of a request, or of its ASGI scope."""
    return cast(RequestContext, request[_KEY])
