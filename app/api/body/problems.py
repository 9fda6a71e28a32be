"""Errors of a request's body."""

import json
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final, Self, TypeVar

from polymodal.app.problems import RequestError

Content = TypeVar("Content", bytes, bytearray)


class MalformedBody(RequestError):
    """A body that does not match its media type: bad JSON, bad base64, bad multipart, invalid UTF-8."""

    status = 400
    code = "malformed_body"
    title = "The body cannot be read"

    @classmethod
    def of_json(cls, where: str, line: int, column: int, allowed: str) -> Self:
        """Return the error for JSON with a syntax error at this position."""
        return cls(where, f"invalid JSON at line {line}, column {column}", allowed)

    @classmethod
    def example(cls) -> Self:
        """Return the error for JSON without a comma."""
        return cls.of_json("body", 1, 27, "a JSON object in UTF-8")


class UnknownField(RequestError):
    """A field that the route does not have, most likely a misspelt one."""

    status = 400
    code = "unknown_field"
    title = "A field that this route does not know"

    @classmethod
    def of(cls, name: object, known: Iterable[str]) -> Self:
        """Return the error for a field of a body; `known` are those that the route has."""
        return cls("body", f"field {shown(name)}", ", ".join(known))

    @classmethod
    def example(cls) -> Self:
        """Return the error for a misspelt field."""
        return cls.of("txt", ("image", "text", "audio", "top_k", "threshold", "candidate_labels", "prior", "model"))


class RepeatedField(RequestError):
    """A field that occurs twice, which is ambiguous."""

    status = 400
    code = "repeated_field"
    title = "A field was given twice"

    @classmethod
    def example(cls) -> Self:
        """Return the error for a field of JSON."""
        return cls("body", f"field {shown('text')} twice", "each field once")


class UrlNotAccepted(RequestError):
    """A URL in place of a file; the service fetches nothing."""

    status = 422
    code = "url_not_accepted"
    title = "A URL in place of a file"

    @classmethod
    def of(cls, where: str, scheme: str) -> Self:
        """Return the error for a URL of this scheme."""
        allowed = "the file itself as base64 or as a data: URI, because the service fetches nothing"
        return cls(where, f"a URL of the scheme {scheme[:32]}", allowed)

    @classmethod
    def example(cls) -> Self:
        """Return the error for an address of the web."""
        return cls.of("image", "https")


class TooManyBytes(RequestError):
    """The body or one of its inputs exceeds its limit of bytes."""

    status = 413
    code = "too_many_bytes"
    title = "More bytes than are accepted"

    @classmethod
    def of(cls, where: str, limit: int, size: int | None = None) -> Self:
        """Return the error for an input of `size` bytes, or for one whose size is only known to exceed the limit."""
        return cls(where, f"more than {limit} bytes" if size is None else f"{size} bytes", f"up to {limit} bytes")

    @classmethod
    def example(cls) -> Self:
        """Return the error for an image."""
        return cls.of("image", 10_485_760)


class TooManyItems(RequestError):
    """A batch with more items than the limit."""

    status = 422
    code = "too_many_items"
    title = "More items than a batch may have"

    @classmethod
    def of(cls, items: int, limit: int) -> Self:
        """Return the error for a batch with more items than the limit."""
        return cls("items", f"{items} items", f"up to {limit} items")

    @classmethod
    def example(cls) -> Self:
        """Return the error for the default limit."""
        return cls.of(65, 64)


class UnsupportedMediaType(RequestError):
    """A media type that the route does not accept."""

    status = 415
    code = "unsupported_media_type"
    title = "A media type that this route does not read"

    @classmethod
    def of(cls, declared: str | None, accepted: Iterable[str]) -> Self:
        """Return the error for a Content-Type that is not accepted, or for a body without one."""
        return cls("Content-Type", "none" if declared is None else shown(declared), " or ".join(accepted))

    @classmethod
    def example(cls) -> Self:
        """Return the error for plain text."""
        return cls.of("text/plain", ("multipart/form-data", "application/json"))


class BodyTooSlow(RequestError):
    """The body did not arrive in time."""

    status = 408
    code = "body_too_slow"
    title = "The body did not arrive in time"
    headers = MappingProxyType({"Connection": "close"})  # the rest of the body may never come

    @classmethod
    def of(cls, received: int, timeout_ms: int) -> Self:
        """Return the error for a body of which only `received` bytes arrived in time."""
        return cls("body", f"{received} bytes in {timeout_ms} ms", f"a body that arrives within {timeout_ms} ms")

    @classmethod
    def example(cls) -> Self:
        """Return the error for a body of which only a part arrived."""
        return cls.of(1_048_576, 30_000)


BODY_ERRORS: Final = (MalformedBody, UnknownField, RepeatedField, BodyTooSlow, TooManyBytes, UnsupportedMediaType)
"""Errors of the body of any request."""


def bounded(where: str, content: Content, limit: int) -> Content:
    """Return the content, or raise TooManyBytes if it is longer than `limit` bytes."""
    if (size := len(content)) > limit:
        raise TooManyBytes.of(where, limit, size)
    return content


def shown(value: object) -> str:
    """Return a short text about a client's value for messages."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 64 else value[:63] + "…")
    return json.dumps(value)[:64]
