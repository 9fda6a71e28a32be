"""From the bytes of a request to its named parts and options; limits are enforced while reading.

At most `max_body_bytes` of a request are ever held, and nothing is written to disk.
"""

import asyncio
import base64
import binascii
import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from encodings.aliases import aliases
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from app.schemas import BatchBody, BatchItem, ClassifyBody, Example, Options
from app.service import Service
from app.settings import Settings
from model import Parts

Schema = TypeVar("Schema", bound=BaseModel)

MULTIPART, JSON = "multipart/form-data", "application/json"

_FIELDS = tuple(ClassifyBody.model_fields)
_CHARSET = "_charset_"  # of RFC 7578: a form's field that names the charset of the other ones


def _codecs() -> dict[str, str]:
    """Return Python's codec by charset name, for WHATWG's Encoding Standard, which maps some charsets to a superset."""
    names = ["ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be", "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic"]
    names += ["gb18030", "euc_jp", "iso2022_jp"]
    names += [f"cp{number}" for number in (866, 874, 932, 949, 950, *range(1250, 1259))]
    names += [f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)]
    larger = {"latin_1": "cp1252", "iso8859_9": "cp1254", "iso8859_11": "cp874", "tis_620": "cp874"}
    larger |= {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
    larger |= {"windows_874": "cp874", "windows_31j": "cp932"}  # names that Python lacks
    known = {name: name for name in names} | larger
    return known | {alias.removeprefix("x_"): known[codec] for alias, codec in aliases.items() if codec in known}


_CODECS = _codecs()
_OPTION_BYTES = 1024  # a form's top_k, threshold or model
PART_HEADERS, PART_HEADER_BYTES = 8, 4096
"""Header fields of one part of a form, and bytes of one of them."""
JSON_DEPTH, JSON_PIECES = 16, 250_000
"""Lists and objects within each other; strings, commas and brackets in all: 20 MB of short fields would become 1.7 GB."""
# A string, also one without an end, so that each byte is read once; a comma or a bracket.
_JSON_PIECE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[\]{}]', re.DOTALL)
# A parameter of a header field; an unclosed quote is part of the value.
_PARAMETER = re.compile(rb';\s*([^\s;=]+)\s*=\s*("(?:[^"\\]|\\.)*+"(?=\s*(?:;|\Z))|[^;]*)')
_PART_HEADERS = frozenset({b"content-disposition", b"content-type", b"content-transfer-encoding"})
_CODINGS = frozenset({b"content-encoding", b"transfer-encoding", b"content-range"})
"""Header fields of a part with which its bytes would be something else than its content."""
_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})  # RFC 2045
_COMPOSITE, _URLENCODED = (b"multipart/", b"message/"), b"application/x-www-form-urlencoded"
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BLANKS = " \t\r\n\v\f"
_INDENTS = re.compile(rb"(?<![ \t])[ \t]*+[\r\n\v\f][ \t\r\n\v\f]*+")  # line breaks and the blanks around them
_BASE64_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE64 = "base64 as in RFC 4648, of one alphabet, with all of its padding or none, also in lines; or a data: URI of it"
_DATA_URI_HEAD = 1024  # characters before the comma
_PIECE_BYTES = 65_536  # that are unescaped together
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_BAD_QUOTED_PRINTABLE = re.compile(rb"=(?![0-9a-fA-F]{2}|[ \t]*(?:\r?\n|\Z))")
_ALLOWED = {
    "image": "the image file as a base64 string",
    "text": "a string",
    "top_k": "an integer from 1 to the number of labels, as JSON writes numbers",
    "threshold": "a number from 0 to 1, as JSON writes numbers",
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
        form = _Form(parameters.get(b"boundary", b""), settings, parameters.get(b"charset", b""))
        await _read(request, settings, form.write)
        return await service.offload(form.close) if form.encoded else form.close()
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
    media_type, parameters = _parameters("Content-Type", (declared or "").encode("latin-1"))
    if (kind := media_type.decode("latin-1")) not in accepted:
        found = "none" if declared is None else _shown(declared)
        raise UnsupportedMediaType("Content-Type", found, " or ".join(accepted))
    charset = parameters.get(b"charset")
    if kind == JSON and charset and _codec("Content-Type", charset) not in ("utf_8", "ascii"):
        raise UnsupportedMediaType("Content-Type", _shown(declared), f"{JSON}, which is UTF-8")
    return kind, parameters


def _parameters(where: str, value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Split a header field into its value and its parameters; value and names in lower case. Raises RepeatedField."""
    kind, _, _ = value.partition(b";")
    parameters: dict[bytes, bytes] = {}
    for name, text in _PARAMETER.findall(value, len(kind)):
        if (key := name.lower()) in parameters:
            raise RepeatedField(where, f"parameter {_shown(key.decode('latin-1'))} twice", "each parameter once")
        quoted = len(text) > 1 and text.startswith(b'"') and text.endswith(b'"')
        parameters[key] = text[1:-1] if quoted else text.rstrip()
    return kind.strip().lower(), parameters


def _codec(where: str, charset: bytes) -> str:
    """Return Python's codec for a charset. Raises UnsupportedMediaType for one that is not in `_CODECS`."""
    name = charset.strip().decode("latin-1")
    try:
        return _CODECS[name.lower().replace("-", "_").removeprefix("x_")]
    except KeyError:
        allowed = "utf-8, utf-16, windows-1252 or another charset of the WHATWG's Encoding Standard"
        raise UnsupportedMediaType(where, f"charset {_shown(name)}", allowed) from None


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
    disposition: dict[bytes, bytes] = field(default_factory=dict)
    """The parameters of its Content-Disposition."""
    encoding: bytes = b""
    """Content-Transfer-Encoding, if it has to be decoded: base64 or quoted-printable."""
    limit: int = 0
    """Bytes of its decoded content."""
    wire_limit: int = 0
    """Bytes before they are decoded; larger than `limit` for a part with a transfer encoding."""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)

    @property
    def has_filename(self) -> bool:
        """Whether the part has a file name in any form: filename, or filename* and filename*0 as in RFC 2231."""
        return any(
            text.rpartition(b"'")[2] if name.endswith(b"*") else text
            for name, text in self.disposition.items()
            if name.partition(b"*")[0] == b"filename"
        )

    def content(self) -> bytes:
        """Return the bytes without their transfer encoding. Raises MalformedBody or TooManyBytes."""
        match self.encoding:
            case b"base64":
                return _base64(self.name, bytes(self.data), self.limit)
            case b"quoted-printable":
                if bad := _BAD_QUOTED_PRINTABLE.search(self.data):
                    found = f"quoted-printable with a bad escape at position {bad.start()}"
                    raise MalformedBody(self.name, found, "quoted-printable as in RFC 2045")
                return _bounded(self.name, binascii.a2b_qp(self.data), self.limit)
        return bytes(self.data)

    def value(self, charset: bytes) -> object:
        """Return a text as UTF-8, or the value of JSON; `charset` is the default of a part that declares none."""
        where = self.name
        if not (declared := self.headers.get(b"content-type", b"")):
            return _bounded(where, _in_utf8(where, self.content(), charset), self.limit)
        media_type, parameters = _parameters(where, declared)
        extended = any(name.startswith(b"charset*") for name in parameters)  # RFC 2231
        if extended or parameters.get(b"delsp", b"").lower() == b"yes" or media_type == _URLENCODED:
            found = f"Content-Type {_shown(declared.decode('latin-1'))}"
            raise UnsupportedMediaType(where, found, f"text/plain or {JSON}")
        content = _in_utf8(where, self.content(), parameters.get(b"charset") or charset)
        content = _bounded(where, content, self.limit)
        return _loads(content, where, "JSON in UTF-8") if media_type == JSON.encode() else content


class _Form:
    """Collects parts while the parser finds them, and refuses on the way what is unknown, repeated or too long."""

    def __init__(self, boundary: bytes, settings: Settings, charset: bytes = b"") -> None:
        """`charset` is the default of the parts that declare none."""
        self.encoded = False
        """Whether a part has a transfer encoding; `close` is then slow and belongs on a thread."""
        self._charset = charset
        self._limits = {"image": settings.max_image_bytes, "text": settings.max_text_bytes}
        self._encoded_limit = settings.max_body_bytes
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
        options: dict[str, object] = {}
        charset = self._charset
        if named := self._parts.pop(_CHARSET, None):
            charset = named.content().strip() or charset
        if charset:
            _codec(_CHARSET if named else "Content-Type", charset)
        for name, part in self._parts.items():
            if name == "image":
                # A form in which no file was chosen sends a part without name and bytes; an empty file has a name.
                if (content := part.content()) or part.has_filename:
                    parts[name] = content
            elif name == "text":
                if (text := part.value(charset)) is not None:
                    parts[name] = text if isinstance(text, bytes) else _text(text, part.limit)
            elif (value := _option(name, part.value(charset))) is not None:
                options[name] = value
        return Question(parts, _checked(Options, options))

    def _begin(self) -> None:
        self._part = _Part()

    def _end_header(self) -> None:
        name, headers = bytes(self._header).lower(), self._part.headers
        if name in headers:
            raise RepeatedField("body", f"header field {_shown(name.decode())} of one part twice", "each one once")
        if name in _PART_HEADERS:
            headers[name] = bytes(self._value)
        elif name in _CODINGS and (value := self._value.strip().lower()) != b"identity":
            found = f"{name.decode()} {_shown(value.decode('latin-1'))} of a part"
            raise UnsupportedMediaType("body", found, "parts that are whole and not compressed")
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        part, headers = self._part, self._part.headers
        _, part.disposition = _parameters("body", headers.get(b"content-disposition", b""))
        part.name = part.disposition.get(b"name", b"").decode("utf-8", "replace")
        if part.name not in _FIELDS and part.name != _CHARSET:
            raise UnknownField("body", f"field {_shown(part.name)}", ", ".join(_FIELDS))
        if part.name in self._parts:
            raise RepeatedField(part.name, "the field twice", "once")
        if headers.get(b"content-type", b"").lower().startswith(_COMPOSITE):
            declared = headers[b"content-type"].decode("latin-1")
            allowed = "a file or a text by itself, not several in one"
            raise UnsupportedMediaType(part.name, f"Content-Type {_shown(declared)}", allowed)
        part.limit = part.wire_limit = self._limits.get(part.name, _OPTION_BYTES)
        if (encoding := headers.get(b"content-transfer-encoding", b"").strip().lower()) not in _IDENTITY:
            if encoding not in (b"base64", b"quoted-printable"):
                found = f"Content-Transfer-Encoding {_shown(encoding.decode('latin-1'))}"
                raise UnsupportedMediaType(part.name, found, "7bit, 8bit, binary, quoted-printable or base64")
            part.encoding, part.wire_limit, self.encoded = encoding, self._encoded_limit, True
        self._parts[part.name] = part

    def _extend(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if len(part.data) + end - start > part.wire_limit:
            raise TooManyBytes(part.name, f"more than {part.wire_limit} bytes", f"up to {part.wire_limit} bytes")
        part.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _in_utf8(where: str, content: bytes, charset: bytes) -> bytes:
    """Transcode a text to UTF-8; a byte order mark has precedence over the charset. The model validates what is UTF-8."""
    codec = _codec(where, charset) if charset else "utf_8"
    if content.startswith(codecs.BOM_UTF8):
        return content.removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codec = "utf_16"
    elif codec == "utf_8":
        return content
    elif codec == "utf_16":  # without a mark; .NET writes it so
        codec = "utf_16_le"
    try:
        return content.decode(codec).encode()
    except UnicodeDecodeError as error:
        found = f"a byte that is not {codec.replace('_', '-')} at position {error.start}"
        raise MalformedBody(where, found, "bytes of the declared charset") from None


def _option(name: str, value: object) -> object:
    """Return a form's option as the value that it has in JSON; None for a blank one."""
    if not isinstance(value, bytes):
        return value
    text = value.decode("utf-8", "replace")
    if not text.strip():
        return None
    if name == "model":
        return text.strip()
    return json.loads(text) if _JSON_NUMBER.fullmatch(text) else text


# --- application/json; all of this runs on the decode threads ---


@dataclass(frozen=True, slots=True)
class _Fault:
    """Placeholder of a JSON value that can be parsed but not accepted, so that only its own item of a batch fails."""

    kind: type[RequestError]
    found: str
    allowed: str
    id: object = None
    """Of an object: its own."""

    def at(self, where: str) -> RequestError:
        return self.kind(where, self.found, self.allowed)


def _parse_json(body: bytes) -> dict[str, Any]:
    allowed = "a JSON object in UTF-8"
    document = _loads(body, "body", allowed)
    if not isinstance(document, dict):
        raise MalformedBody("body", _shown(document), allowed)
    return document


def _loads(content: bytes, where: str, allowed: str) -> object:
    """Parse JSON. Values that only their field or item is refused for become a `_Fault`."""
    _check_structure(content)
    content = content.removeprefix(codecs.BOM_UTF8)
    damage = None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        damage, text = error, content.decode("utf-8", "surrogateescape")
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        found = f"invalid JSON at line {error.lineno}, column {error.colno}" if content else "no bytes"
        if damage:
            found = f"invalid UTF-8 at byte {damage.start}"
        raise MalformedBody(where, found, allowed) from None
    if isinstance(document, _Fault):
        raise document.at(where)
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
    """Build a JSON object; a repeated field makes it a fault that keeps an unambiguous id."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = Counter(name for name, _ in pairs)
    ((repeated, _),) = names.most_common(1)
    id_ = fields.get("id") if names["id"] == 1 else None
    return _Fault(RepeatedField, f"field {_shown(repeated)} twice", "each field once", id_)


def _constant(name: str) -> _Fault:
    return _Fault(MalformedBody, name, "JSON, which has no such number")


def _integer(digits: str) -> int | _Fault:
    try:
        return int(digits)
    except ValueError:  # thousands of digits
        return _Fault(MalformedBody, "a number that is too long", f"up to {sys.get_int_max_str_digits()} digits")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)


def _question(fields: dict[str, Any], settings: Settings) -> Question:
    body = _checked(ClassifyBody, fields)
    options = Options(top_k=body.top_k, threshold=body.threshold, model=body.model)
    return Question(_parts(body, settings), options)


def _batch(fields: dict[str, Any], settings: Settings) -> BatchQuestion:
    items = fields.pop("items", None)
    options = _checked(Options, fields, known=BatchBody.model_fields)
    if isinstance(items, _Fault):
        raise items.at("items")
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
    given = item.id if isinstance(item, _Fault) else item.get("id") if isinstance(item, dict) else None
    return given if isinstance(given, str) and len(given) <= 128 and _half_character(given) is None else None


def _unpack(item: object, settings: Settings) -> Parts:
    if isinstance(item, _Fault):
        raise item.at("item")
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
    encoded = encoded.strip(_BLANKS)
    if encoded[:7].lower() == "data%3a":
        encoded = _unescaped(encoded).decode("latin-1")
    if encoded[:5].lower() == "data:":
        if (comma := encoded.find(",", 0, _DATA_URI_HEAD)) < 0:
            raise MalformedBody("image", "a data: URI without a comma", _BASE64)
        _, *parameters = encoded[:comma].lower().split(";")
        encoded = encoded[comma + 1 :]
        if "base64" not in map(str.strip, parameters):
            if "%" not in encoded:  # no picture is made of such characters alone
                raise MalformedBody("image", "a data: URI without ;base64", _BASE64)
            return _bounded("image", _unescaped(encoded), limit)
    return _base64("image", _unescaped(encoded), limit)


def _unescaped(text: str) -> bytes:
    """Encode as ASCII and decode percent-escapes. Raises MalformedBody."""
    try:
        content = text.encode("ascii")
    except UnicodeEncodeError as error:
        found = f"invalid base64 or data: URI, with {_shown(text[error.start])} at position {error.start}"
        raise MalformedBody("image", found, _BASE64) from None
    if "%" not in text:
        return content
    if bad := _BAD_ESCAPE.search(text):
        raise MalformedBody("image", f"a bad percent-escape at position {bad.start()}", _BASE64)
    # Like urllib.parse.unquote_to_bytes, which makes an object of every escape and takes 20 times the memory.
    unescaped, at = bytearray(), 0
    while at < len(content):
        end = at + _PIECE_BYTES
        if (cut := content.rfind(b"%", end - 2, end)) > 0:  # an escape stays whole
            end = cut
        unescaped += binascii.a2b_qp(content[at:end].replace(b"=", b"=3D").replace(b"%", b"="))
        at = end
    return bytes(unescaped)


def _base64(where: str, packed: bytes, limit: int) -> bytes:
    """Decode base64 of either alphabet, with or without padding, also in lines. Raises MalformedBody if it is ambiguous."""
    try:
        content = base64.b64decode(packed, validate=True)
        usual = len(packed) == (len(content) + 2) // 3 * 4  # binascii lets pass more padding
    except binascii.Error:
        usual = False
    if not usual:
        packed = _plain_base64(where, packed)
        content = base64.b64decode(packed, validate=True)
    if (rest := len(content) % 3) and base64.b64encode(content[-rest:]) != packed[-4:]:
        raise MalformedBody(where, "invalid base64, whose last letter has bits of no byte", _BASE64)
    return _bounded(where, content, limit)


def _plain_base64(where: str, packed: bytes) -> bytes:
    """Normalise base64: one line, standard alphabet, padding. Raises MalformedBody with the reason."""
    packed = packed.strip()
    if b" " in packed or b"\t" in packed:
        packed = _INDENTS.sub(b"", packed)
    packed = packed.translate(None, b"\r\n\v\f")
    letters = packed.rstrip(b"=")
    padding, signs = len(packed) - len(letters), letters.translate(None, _BASE64_LETTERS)
    reason = None
    if foreign := signs.translate(None, b"+/-_"):
        reason = f"with {_shown(chr(foreign[0]))} at position {letters.index(foreign[:1])}"
    elif (b"+" in signs or b"/" in signs) and (b"-" in signs or b"_" in signs):
        reason = 'of two alphabets, with "+" or "/" and with "-" or "_"'
    elif len(letters) % 4 == 1:
        reason = f"of {len(letters)} letters, which is one too many or too few"
    elif padding and padding != -len(letters) % 4:
        reason = f'of {len(letters)} letters with {padding} "="'
    if reason:
        raise MalformedBody(where, f"invalid base64, {reason}", _BASE64)
    return letters.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(letters) % 4)


def _text(text: object, limit: int) -> bytes:
    """A text of JSON as UTF-8."""
    if not isinstance(text, str):
        raise InvalidParameter("text", _shown(text), _ALLOWED["text"])
    try:
        return _bounded("text", text.encode("utf-8"), limit)
    except UnicodeEncodeError as error:
        raise _half("text", error.start) from None


# --- Both ---


def _checked(schema: type[Schema], fields: Mapping[str, Any], *, known: Iterable[str] | None = None) -> Schema:
    """The fields as a schema has them."""
    try:
        return schema.model_validate(fields, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    value = problem["input"]
    if not problem["loc"]:  # the name of a field, not its value
        raise MalformedBody("body", f"field {_shown(value)}, which has half of a surrogate pair", "whole characters")
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise UnknownField("body", f"field {_shown(name)}", ", ".join(known or schema.model_fields))
    if isinstance(value, _Fault):
        raise value.at(name)
    if problem["type"] == "string_unicode":
        raise _half(name, _half_character(value))
    raise InvalidParameter(name, _shown(value), _ALLOWED[name])


def _bounded(where: str, content: bytes, limit: int) -> bytes:
    if (size := len(content)) > limit:
        raise TooManyBytes(where, f"{size} bytes", f"up to {limit} bytes")
    return content


def _half(where: str, position: int | None) -> MalformedBody:
    """Return the error for a string that has no UTF-8, with the position that `_half_character` found."""
    found = f"half of a surrogate pair, or a byte that is not UTF-8, at position {position}"
    return MalformedBody(where, found, "whole characters")


def _half_character(text: str) -> int | None:
    """Return the position of half of a surrogate pair (JSON's escapes allow it) or of a byte that was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _shown(value: object) -> str:
    """What a client sent, short enough to be shown back."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 64 else value[:63] + "…")
    return json.dumps(value)[:64]
