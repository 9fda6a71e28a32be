"""Security header fields of every response: against sniffing, framing, scripts, other sites and caches."""

import base64
import hashlib
import re

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DEFAULTS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_CACHED_FOLDER = "/web/"  # the page's own files, which are the same for everyone

Fields = list[tuple[bytes, bytes]]


def protect(fields: Fields, path: str) -> None:
    """Add the security fields to those of a response; a policy that the response sets itself stays."""
    present = {name for name, _ in fields}
    fields.extend(_ALWAYS)
    fields.extend(
        (name, value)
        for name, value in _DEFAULTS
        if name not in present and not (name == b"cache-control" and path.startswith(_CACHED_FOLDER))
    )


def policy_for(html: str) -> str:
    """Return the content security policy for a page of FastAPI's documentation.

    It allows only files from the sites that the page names, and the page's own scripts by their digests.
    """
    sites = sorted(set(re.findall(r'(?:src|href)="(https://[^/"]+)', html)))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src", *digests, *sites)),
            " ".join(("style-src 'unsafe-inline'", *sites)),  # the viewer sets styles in its elements
            " ".join(("img-src data:", *sites)),
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
