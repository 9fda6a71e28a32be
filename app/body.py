"""From the bytes of a request to its named parts and options; limits are enforced while reading.

At most `max_body_bytes` of a request are ever held, and nothing is written to disk.
"""

import asyncio
import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.schemas import BatchBody, BatchItem, ClassifyBody, Example, Options
from app.service import Service
from app.settings import Settings
from model import Parts

Schema = TypeVar("Schema", bound=BaseModel)

MULTIPART, JSON = "multipart/form-data", "application/json"

_FIELDS = tuple(ClassifyBody.model_fields)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # also matches whole pairs, of which most emoji are made
_OPTION_BYTES = 1024  # a form's top_k, threshold or model
PART_HEADERS, PART_HEADER_BYTES = 8, 4096
"""Header fields of one part of a form, and bytes of one of them."""
JSON_DEPTH, JSON_PIECES = 16, 250_000
"""Lists and objects within each other; strings, commas and brackets in all: 20 MB of short fields would become 1.7 GB."""
# A string, also one without an end, so that each byte is read once; a comma or a bracket.
_JSON_PIECE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[\]{}]', re.DOTALL)
_BLANKS = b" \t\r\n\v\f"
_ALLOWED = {
    "image": "the image file as a base64 string",
    "text": "a string",
    "top_k": "an integer from 1 to the number of labels",
    "threshold": "a number from 0 to 1",
    "model": "the name of a served model",
    "id": "a string of up to 128 characters",
    "items": "a list of at least one object",
}


class RequestError(Exception):
    """The caller can succeed by sending something else; says the same three things as model.InputError."""

    def __init__(self, input: str, found: str, allowed: str) -> None:
        super().__init__(f"{input}: {found}; allowed: {allowed}")
        self.input, self.found, self.allowed = input, found, allowed


class MalformedBody(RequestError):
    """Not what its media type promises: bad JSON, bad base64, bad multipart, invalid UTF-8."""


class UnknownField(RequestError):
    """A field that nobody reads; most likely misspelt."""


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


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks about one example."""

    parts: Parts
    options: Options


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """What a client asks about many examples; each is unpacked only when its turn comes."""

    ids: list[str | None]
    unpack: list[Callable[[], Parts]]
    options: Options


async def read_question(request: Request, service: Service, settings: Settings) -> Question:
    """Read the body of POST /v1/classify: a form or JSON."""
    media_type, parameters = _content_type(request, MULTIPART, JSON)
    if media_type == MULTIPART:
        form = _Form(parameters.get(b"boundary", b""), settings)
        await _read(request, settings, form.write)
        return form.close()
    body = await _whole(request, settings)
    return await service.offload(lambda: _question(_parse_json(body), settings))


async def read_batch(request: Request, service: Service, settings: Settings) -> BatchQuestion:
    """Read the body of POST /v1/classify/batch: JSON."""
    _content_type(request, JSON)
    body = await _whole(request, settings)
    return await service.offload(lambda: _batch(_parse_json(body), settings))


# --- Reading, under limits ---


def _content_type(request: Request, *accepted: str) -> tuple[str, dict[bytes, bytes]]:
    """The media type and its parameters; also refuses whatever else would be silently ignored."""
    if request.query_params:
        name = next(iter(request.query_params))
        raise UnknownField("query", _shown(name), "no query parameters; send them as fields of the body")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding", _shown(encoding), "an uncompressed body")
    declared = request.headers.get("content-type")
    media_type, parameters = parse_options_header(declared)
    if (kind := media_type.decode("latin-1").lower()) not in accepted:
        found = "none" if declared is None else _shown(declared)
        raise UnsupportedMediaType("Content-Type", found, " or ".join(accepted))
    return kind, parameters


async def _read(request: Request, settings: Settings, take: Callable[[bytes], None]) -> None:
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


async def _whole(request: Request, settings: Settings) -> bytes:
    body = bytearray()
    await _read(request, settings, body.extend)
    return bytes(body)


# --- multipart/form-data ---


@dataclass(slots=True)
class _Part:
    name: str = ""
    filename: str = ""
    limit: int = 0
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects parts while the parser finds them, and refuses on the way what is unknown, repeated or too long."""

    def __init__(self, boundary: bytes, settings: Settings) -> None:
        self._limits = {"image": settings.max_image_bytes, "text": settings.max_text_bytes}
        self._parts: dict[str, _Part] = {}
        self._part = _Part()
        self._header = bytearray()
        self._value = bytearray()
        self._begun = self._ended = False
        if not boundary:
            raise MalformedBody("Content-Type", "no boundary", f"{MULTIPART}; boundary=…")
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._name_part,
            "on_part_data": self._extend,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary, callbacks, max_header_count=PART_HEADERS, max_header_size=PART_HEADER_BYTES
            )
        except FormParserError:
            raise MalformedBody("Content-Type", "a boundary that is too long", "up to 256 bytes") from None

    def write(self, chunk: bytes) -> None:
        if (
            not self._begun
        ):  # behind line breaks the parser would take other things too, as far as they are in one chunk with them
            chunk = chunk.lstrip(b"\r\n")
            self._begun = bool(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            allowed = (
                f"parts as in RFC 7578, each with up to {PART_HEADERS} header fields of up to {PART_HEADER_BYTES} bytes"
            )
            raise MalformedBody("body", "broken multipart", allowed) from None

    def close(self) -> Question:
        if not self._ended:
            raise MalformedBody("body", "no closing boundary", "the whole multipart body")
        parts: dict[str, bytes | str] = {}
        # A form in which no file was chosen sends a part without name and bytes; an empty file has a name.
        if (image := self._parts.get("image")) and (image.data or image.filename):
            parts["image"] = bytes(image.data)
        if text := self._parts.get("text"):
            parts["text"] = bytes(text.data)
        options = {
            name: value
            for name in Options.model_fields
            if name in self._parts and (value := self._parts[name].data.decode("utf-8", "replace").strip())
        }
        return Question(parts, _checked(Options, options, strict=False))

    def _begin(self) -> None:
        self._part = _Part()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, parameters = parse_options_header(bytes(self._value))
            self._part.name = parameters.get(b"name", b"").decode("utf-8", "replace")
            self._part.filename = parameters.get(b"filename", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        part = self._part
        if part.name not in _FIELDS:
            raise UnknownField("body", f"field {_shown(part.name)}", ", ".join(_FIELDS))
        if part.name in self._parts:
            raise RepeatedField(part.name, "the field twice", "once")
        part.limit = self._limits.get(part.name, _OPTION_BYTES)
        self._parts[part.name] = part

    def _extend(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if len(part.data) + end - start > part.limit:
            raise TooManyBytes(part.name, f"more than {part.limit} bytes", f"up to {part.limit} bytes")
        part.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


# --- application/json; all of this runs on the decode threads ---


def _parse_json(body: bytes) -> dict[str, Any]:
    allowed = "a JSON object in UTF-8"
    _check_structure(body)
    try:
        text = body.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise MalformedBody("body", f"invalid UTF-8 at byte {error.start}", allowed) from None
    except json.JSONDecodeError as error:
        found = f"invalid JSON at line {error.lineno}, column {error.colno}" if body else "no bytes"
        raise MalformedBody("body", found, allowed) from None
    except ValueError:  # an integer of thousands of digits
        raise MalformedBody("body", "a number that is too long", allowed) from None
    if _SURROGATE.search(text) and not _is_unicode(document):
        raise MalformedBody("body", "half of a surrogate pair", allowed)
    if not isinstance(document, dict):
        raise MalformedBody("body", _shown(document), allowed)
    return document


def _check_structure(body: bytes) -> None:
    """Refuse JSON that is nested too deeply or has too many pieces, before each becomes an object of Python's."""
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH and body.count(b",") + body.count(b'"') <= JSON_PIECES:
        return  # nearly every request for one example; base64 has none of these characters
    depth = 0
    for number, piece in enumerate(_JSON_PIECE.finditer(body)):
        if number == JSON_PIECES:
            found, allowed = f"JSON of more than {JSON_PIECES} pieces", "as many strings, commas and brackets"
            raise MalformedBody("body", found, allowed)
        first = body[piece.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > JSON_DEPTH:
            found, allowed = "JSON nested too deeply", f"up to {JSON_DEPTH} lists and objects within each other"
            raise MalformedBody("body", found, allowed)


def _is_unicode(document: object) -> bool:
    """Whether every string can be written as UTF-8: JSON's escapes can also spell half of a surrogate pair."""
    match document:
        case str():
            return document.isascii() or document.encode("utf-8", "ignore").decode("utf-8") == document
        case list():
            return all(map(_is_unicode, document))
        case dict():
            return all(map(_is_unicode, (*document, *document.values())))
    return True


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        ((repeated, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise RepeatedField("body", f"field {_shown(repeated)} twice", "each field once")
    return fields


def _refuse_constant(name: str) -> None:
    raise MalformedBody("body", name, "JSON, which has no such number")


def _question(fields: dict[str, Any], settings: Settings) -> Question:
    body = _checked(ClassifyBody, fields)
    options = Options(top_k=body.top_k, threshold=body.threshold, model=body.model)
    return Question(_parts(body, settings), options)


def _batch(fields: dict[str, Any], settings: Settings) -> BatchQuestion:
    items = fields.pop("items", None)
    options = _checked(Options, fields, known=BatchBody.model_fields)
    if not isinstance(items, list) or not items:
        raise InvalidParameter("items", _shown(items), _ALLOWED["items"])
    if len(items) > (limit := settings.max_batch_request_items):
        raise TooManyItems("items", f"{len(items)} items", f"up to {limit} items")
    return BatchQuestion(
        ids=[_item_id(item) for item in items],
        unpack=[partial(_unpack, item, settings) for item in items],
        options=options,
    )


def _item_id(item: object) -> str | None:
    """An item's id, also when the rest of the item is wrong: the client must recognise which one it was."""
    given = item.get("id") if isinstance(item, dict) else None
    return given if isinstance(given, str) and len(given) <= 128 else None


def _unpack(item: object, settings: Settings) -> Parts:
    if not isinstance(item, dict):
        raise InvalidParameter("item", _shown(item), "an object with image, text or both")
    return _parts(_checked(BatchItem, item), settings)


def _parts(example: Example, settings: Settings) -> Parts:
    parts: dict[str, bytes | str] = {}
    if example.image is not None:
        parts["image"] = _image(example.image, settings.max_image_bytes)
    if example.text is not None:
        parts["text"] = _text(example.text, settings.max_text_bytes)
    return parts


def _image(encoded: str, limit: int) -> bytes:
    allowed = "base64 as in RFC 4648, or a data: URI with ;base64"
    if encoded[:5].lower() == "data:":
        head, _, encoded = encoded.partition(",")
        if not head.lower().endswith(";base64"):
            raise MalformedBody("image", "a data: URI without ;base64", allowed)
    try:
        packed = encoded.encode("ascii").translate(None, _BLANKS)  # `base64` on the command line wraps its lines
        if (size := len(packed) * 3 // 4 - packed[-2:].count(b"=")) > limit:
            raise TooManyBytes("image", f"{size} bytes", f"up to {limit} bytes")
        return base64.b64decode(packed, validate=True)
    except ValueError:
        raise MalformedBody("image", "invalid base64", allowed) from None


def _text(text: str, limit: int) -> bytes:
    encoded = text.encode("utf-8")
    if len(encoded) > limit:
        raise TooManyBytes("text", f"{len(encoded)} bytes", f"up to {limit} bytes")
    return encoded


# --- Both ---


def _checked(
    schema: type[Schema], fields: Mapping[str, Any], *, strict: bool = True, known: Iterable[str] | None = None
) -> Schema:
    """The fields as a schema has them; a form's fields are all text, so it is not strict with them."""
    try:
        return schema.model_validate(fields, strict=strict)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise UnknownField("body", f"field {_shown(name)}", ", ".join(known or schema.model_fields))
    raise InvalidParameter(name, _shown(problem["input"]), _ALLOWED[name])


def _shown(value: object) -> str:
    """What a client sent, short enough to be shown back."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 64 else value[:63] + "…")
    return json.dumps(value)[:64]
