"""Reading a body under limits: its media type, its bytes and its time."""

import asyncio
from collections.abc import Callable

from fastapi import Request

from app.body.charsets import codec_of, parameters_of
from app.body.problems import BodyTooSlow, TooManyBytes, UnknownField, UnsupportedMediaType, shown
from app.settings import Settings

MULTIPART, JSON = "multipart/form-data", "application/json"


def content_type(request: Request, *accepted: str) -> tuple[str, dict[bytes, bytes]]:
    """The media type and its parameters; also refuses whatever else would be silently ignored."""
    if request.query_params:
        name = next(iter(request.query_params))
        raise UnknownField("query", shown(name), "no query parameters; send them as fields of the body")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding", shown(encoding), "an uncompressed body")
    declared = request.headers.get("content-type")
    media_type, parameters = parameters_of("Content-Type", (declared or "").encode("latin-1"))
    if (kind := media_type.decode("latin-1")) not in accepted:
        found = "none" if declared is None else shown(declared)
        raise UnsupportedMediaType("Content-Type", found, " or ".join(accepted))
    charset = parameters.get(b"charset")
    if kind == JSON and charset and codec_of("Content-Type", charset) not in ("utf_8", "ascii"):
        raise UnsupportedMediaType("Content-Type", shown(declared), f"{JSON}, which is UTF-8")
    return kind, parameters


async def read(request: Request, settings: Settings, take: Callable[[bytes], None]) -> None:
    """Hand the body over as it arrives.

    A declared length is refused at once, an undeclared one as soon as it is exceeded.
    """
    limit, timeout_ms = settings.max_body_bytes, settings.body_timeout_ms
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooManyBytes("body", f"{int(declared)} bytes", f"up to {limit} bytes")
    received = 0
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise TooManyBytes("body", f"more than {limit} bytes", f"up to {limit} bytes")
                take(chunk)
    except TimeoutError:
        found = f"{received} bytes in {timeout_ms} ms"
        raise BodyTooSlow("body", found, f"a body that arrives within {timeout_ms} ms") from None


async def read_whole(request: Request, settings: Settings) -> bytes:
    """Return the body. Raises TooManyBytes or BodyTooSlow."""
    body = bytearray()
    await read(request, settings, body.extend)
    return bytes(body)
