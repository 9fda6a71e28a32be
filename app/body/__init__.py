"""From the bytes of a request to its named parts and options; limits are enforced while reading.

At most `max_body_bytes` of a request are ever held, and nothing is written to disk.
"""

from fastapi import Request

from app.body.form import Form
from app.body.json import batch_of, parse, request_of
from app.body.limits import JSON, MULTIPART, content_type, read, read_whole
from app.body.problems import (
    BodyTooSlow,
    InvalidParameter,
    MalformedBody,
    RepeatedField,
    RequestError,
    TooManyBytes,
    TooManyItems,
    UnknownField,
    UnsupportedMediaType,
)
from app.body.request import ParsedBatch, ParsedRequest
from app.service import Service
from app.settings import Settings

__all__ = [
    "JSON",
    "MULTIPART",
    "BodyTooSlow",
    "InvalidParameter",
    "MalformedBody",
    "ParsedBatch",
    "ParsedRequest",
    "RepeatedField",
    "RequestError",
    "TooManyBytes",
    "TooManyItems",
    "UnknownField",
    "UnsupportedMediaType",
    "read_batch",
    "read_request",
]


async def read_request(request: Request, service: Service, settings: Settings) -> ParsedRequest:
    """Read the body of POST /v1/classify: a form or JSON."""
    media_type, parameters = content_type(request, MULTIPART, JSON)
    if media_type == MULTIPART:
        form = Form(parameters.get(b"boundary", b""), settings, parameters.get(b"charset", b""))
        await read(request, settings, form.write)
        return await service.offload(form.close) if form.encoded else form.close()
    body = await read_whole(request, settings)
    return await service.offload(lambda: request_of(parse(body), settings))


async def read_batch(request: Request, service: Service, settings: Settings) -> ParsedBatch:
    """Read the body of POST /v1/classify/batch: JSON."""
    content_type(request, JSON)
    body = await read_whole(request, settings)
    return await service.offload(lambda: batch_of(parse(body), settings))
