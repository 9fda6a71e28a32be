"""CORS: which pages of other sites may read responses. It is outside of ErrorResponses, so that they can read problems, too."""

from collections.abc import Callable
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from polymodal.app.settings import Settings

_REQUEST_FIELDS = ("Authorization", "X-API-Key", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms")
_RESPONSE_FIELDS = ("X-Request-Id", "Server-Timing", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Ignored-Fields")


def cross_origin_for(settings: Settings) -> Callable[[ASGIApp], ASGIApp] | None:
    """Return the middleware; None when no other site may read responses.

    It responds to preflights without a key, because browsers send none. Cookies are not allowed; the service uses none.
    """
    if not settings.cors_origins:
        return None
    return partial(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=_REQUEST_FIELDS,
        expose_headers=_RESPONSE_FIELDS,
    )
