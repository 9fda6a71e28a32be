"""CORS: which other sites' pages may read answers. Around everything else, so that refusals can be read, too."""

from collections.abc import Callable
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app.settings import Settings

_SENT = ("Authorization", "X-API-Key", "Content-Type", "X-Request-Id", "X-Request-Timeout-Ms")
_SHOWN = ("X-Request-Id", "Server-Timing", "Retry-After", "RateLimit", "RateLimit-Policy")


def cross_origin_for(settings: Settings) -> Callable[[ASGIApp], ASGIApp] | None:
    """What to put around an application; None where no other site may read anything.

    Preflights are answered there, without a key, as browsers send none. Cookies are never allowed: there are none.
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
