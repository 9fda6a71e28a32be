"""Reading a body under limits: its media type, its bytes and its time."""

import asyncio
from collections.abc import Callable, Iterable

from fastapi import Request

from polymodal.app.api.body.charsets import codec_of, parameters_of
from polymodal.app.api.body.problems import BodyTooSlow, TooManyBytes, UnknownField, UnsupportedMediaType, shown
from polymodal.app.serving.admission import Admitted
from polymodal.app.settings import Settings
from polymodal.model import MODALITIES

MULTIPART, JSON = "multipart/form-data", "application/json"


def content_type(request: Request, *accepted: str) -> tuple[str, dict[bytes, bytes]]:
    """Return the media type and its parameters. Raises RequestError, also for a query, which would be ignored."""
    if request.query_params:
        name = next(iter(request.query_params))
        raise UnknownField("query", shown(name), "no query parameters; send them as fields of the body")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding", shown(encoding), "an uncompressed body")
    declared = request.headers.get("content-type")
    media_type, parameters = parameters_of("Content-Type", (declared or "").encode("latin-1"))
    if (kind := media_type.decode("latin-1")) not in accepted:
        raise UnsupportedMediaType.of(declared, accepted)
    charset = parameters.get(b"charset")
    if kind == JSON and charset and codec_of("Content-Type", charset) not in ("utf_8", "ascii"):
        raise UnsupportedMediaType("Content-Type", shown(declared), f"{JSON}, which is UTF-8")
    return kind, parameters


async def read(
    request: Request,
    settings: Settings,
    admitted: Admitted,
    take: Callable[[bytes], None],
    inputs: Iterable[str] = MODALITIES,
) -> None:
    """Pass the body, which may hold `inputs`, to `take` in chunks as it arrives.

    Raises TooManyBytes, before reading when the declared length is too large; BodyTooSlow; and Overloaded when the bodies of all
    requests exceed their limit.
    """
    limit, timeout_ms = settings.max_request_bytes(inputs), settings.body_timeout_ms
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        if int(declared) > limit:
            raise TooManyBytes.of("body", limit, int(declared))
        admitted.hold(int(declared))
    received = 0
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise TooManyBytes.of("body", limit)
                admitted.hold(received)
                take(chunk)
    except TimeoutError:
        raise BodyTooSlow.of(received, timeout_ms) from None


async def read_whole(
    request: Request, settings: Settings, admitted: Admitted, inputs: Iterable[str] = MODALITIES
) -> bytearray:
    """Return the body. Raises the same errors as `read`."""
    body = bytearray()
    await read(request, settings, admitted, body.extend, inputs)
    return body
