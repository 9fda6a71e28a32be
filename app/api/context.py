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
    """Data that middleware and routes record about a request: for header fields, its log line, metrics and its trace."""

    request_id: str
    timeline: Timeline = field(default_factory=Timeline)
    status: int = 0
    """Status of the response; 0 until it starts."""
    code: str = ""
    """Code of the problem that was returned; empty without one."""
    key: str = ""
    """Name of the API key; empty without one."""
    allowance: Allowance | None = None
    """The client's rate limits; None without limits."""
    model: Description | None = None
    """The model that is used; None until it is resolved."""
    items: int | None = None
    """Number of items of a batch; None for other requests."""
    modalities: Sequence[str] | None = None
    """The inputs that were sent, then those that were used; None until the body is read."""

    def store(self, scope: MutableMapping[str, Any]) -> None:
        """Store the context in the ASGI scope of its request."""
        scope[_KEY] = self


def context_of(request: Mapping[str, Any]) -> RequestContext:
    """Return the context of a request, or of its ASGI scope."""
    return cast(RequestContext, request[_KEY])
