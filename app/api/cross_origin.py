"""CORS: pages of other sites that may read answers; outside of ErrorResponses, so that they can read problems, too."""

from collections.abc import Callable
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from polymodal.app.settings import Settings

_SENT = ("Authorization", "X-API-Key", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms")
_SHOWN = ("X-Request-Id", "Server-Timing", "Retry-After", "RateLimit", "RateLimit-Policy")


def cross_origin_for(settings: Settings) -> Callable[[ASGIApp], ASGIApp] | None:
    """Return the middleware; None when no other site may read answers.

    It answers preflights without a key, as browsers send none. Cookies are not allowed, as the service has none.
    """
    if not settings.cors_origins:
        return None
    return partial(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=_SENT,
        expose_headers=_SHOWN,
    )
