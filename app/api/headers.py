"""Security header fields of every answer: against sniffing, framing, scripts, other sites and caches."""

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DEFAULTS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_FILES_BELOW = "/web/"  # the page's own files, which are the same for everyone and may be kept

Fields = list[tuple[bytes, bytes]]


def protect(fields: Fields, path: str) -> None:
    """Add the fields to those of an answer, which may have its own policy."""
    present = {name for name, _ in fields}
    fields.extend(_ALWAYS)
    fields.extend(
        (name, value)
        for name, value in _DEFAULTS
        if name not in present and not (name == b"cache-control" and path.startswith(_FILES_BELOW))
    )
