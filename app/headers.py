"""Header fields that tell browsers what an answer is not for: sniffing, framing, scripts, other sites, caches."""

import base64
import hashlib
import re

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_UNLESS_GIVEN = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_FILES_BELOW = "/web/"  # the page's own files, which are the same for everyone and may be kept

Fields = list[tuple[bytes, bytes]]


def protect(fields: Fields, path: str) -> None:
    """Add the fields to an answer's; a page that needs another policy has its own."""
    given = {name for name, _ in fields}
    fields.extend(_ALWAYS)
    fields.extend(
        (name, value)
        for name, value in _UNLESS_GIVEN
        if name not in given and not (name == b"cache-control" and path.startswith(_FILES_BELOW))
    )


def policy_for(html: str) -> str:
    """The narrowest content security policy with which a page of FastAPI's documentation works.

    Files come from the sites that the page itself names; of scripts in the page only those that it has now, by their digests.
    """
    sites = sorted(set(re.findall(r'(?:src|href)="(https://[^/"]+)', html)))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts]
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
