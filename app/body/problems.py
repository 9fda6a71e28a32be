"""The problems of a body, with the input, what was found and what is allowed."""

import json


class RequestError(Exception):
    """The caller can succeed by sending something else; says the same three things as model.InputError."""

    def __init__(self, input: str, found: str, allowed: str) -> None:
        super().__init__(f"{input}: {found}; allowed: {allowed}")
        self.input, self.found, self.allowed = input, found, allowed


class MalformedBody(RequestError):
    """Not what its media type promises: bad JSON, bad base64, bad multipart, invalid UTF-8."""


class UnknownField(RequestError):
    """A field that the route does not read; most likely misspelt."""


class RepeatedField(RequestError):
    """The same field twice: which one is meant?"""


class InvalidParameter(RequestError):
    """The right field with a value that cannot be."""


class TooManyBytes(RequestError):
    """The body or one of its parts is longer than this service reads."""


class TooManyItems(RequestError):
    """A batch with more items than this service takes at once."""


class UnsupportedMediaType(RequestError):
    """A body of a kind that this route does not read."""


class BodyTooSlow(RequestError):
    """The body did not arrive in time."""


def bounded(where: str, content: bytes, limit: int) -> bytes:
    """Return the content, or raise TooManyBytes if it is longer than `limit` bytes."""
    if (size := len(content)) > limit:
        raise TooManyBytes(where, f"{size} bytes", f"up to {limit} bytes")
    return content


def shown(value: object) -> str:
    """What a client sent, short enough to be shown back."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 64 else value[:63] + "…")
    return json.dumps(value)[:64]
