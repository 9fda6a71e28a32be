"""Security header fields of every response: against sniffing, framing, scripts, other sites and caches."""

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
