"""Multipart forms: parts are collected and limited while the body is parsed, then decoded as their headers declare."""

import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from polymodal.app.api.body.binary import decode_base64
from polymodal.app.api.body.charsets import codec_of, in_utf8, parameters_of
from polymodal.app.api.body.json import loads, text_of, validated
from polymodal.app.api.body.limits import JSON, MULTIPART
from polymodal.app.api.body.problems import (
    MalformedBody,
    RepeatedField,
    TooManyBytes,
    UnknownField,
    UnsupportedMediaType,
    bounded,
    shown,
)
from polymodal.app.api.body.request import ParsedRequest
from polymodal.app.api.schemas import Operation, choice_of, inputs_of_operation
from polymodal.app.settings import Settings

_CHARSET = "_charset_"  # RFC 7578: the field with the charset of all other fields
OPTION_BYTES = 1024  # of an option in a form, such as the name of the model
LIST_OPTIONS = ("candidate_labels", "candidates", "phrases")
LONG_OPTION_BYTES = {**dict.fromkeys(LIST_OPTIONS, 65_536), "prompt": 8192}
TEXT_OPTIONS = frozenset({"model", "index", "language", "prompt"})
"""Options whose value is a text, also if it looks like a number or JSON."""
MOST_REPEATED = 128
"""Most values of all lists whose fields are repeated."""
PART_HEADERS, PART_HEADER_BYTES = 8, 4096
"""Limits of a part: number of its header fields, and bytes of each."""
_PART_HEADERS = frozenset({b"content-disposition", b"content-type", b"content-transfer-encoding"})
_CODINGS = frozenset({b"content-encoding", b"transfer-encoding", b"content-range"})
"""Header fields which mean that the part's bytes are not its content."""
_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})  # RFC 2045
_COMPOSITE, _URLENCODED = (b"multipart/", b"message/"), b"application/x-www-form-urlencoded"
_JSON_VALUE = re.compile(r"true|false|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BAD_QUOTED_PRINTABLE = re.compile(rb"=(?![0-9a-fA-F]{2}|[ \t]*(?:\r?\n|\Z))")


@dataclass(slots=True)
class _Part:
    name: str = ""
    disposition: dict[bytes, bytes] = field(default_factory=dict)
    """Parameters of Content-Disposition."""
    encoding: bytes = b""
    """Content-Transfer-Encoding if it changes the bytes: base64 or quoted-printable; otherwise empty."""
    limit: int = 0
    """Most bytes of the decoded content."""
    wire_limit: int = 0
    """Most bytes before they are decoded; larger than `limit` for a part with a transfer encoding."""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)

    @property
    def has_filename(self) -> bool:
        """Whether the part has a file name in any spelling: filename, or filename* and filename*0 as in RFC 2231."""
        return any(
            text.rpartition(b"'")[2] if name.endswith(b"*") else text
            for name, text in self.disposition.items()
            if name.partition(b"*")[0] == b"filename"
        )

    def content(self) -> bytes | bytearray:
        """Decode the transfer encoding; without one, return the data itself. Raises MalformedBody or TooManyBytes."""
        match self.encoding:
            case b"base64":
                return decode_base64(self.name, self.data, self.limit)
            case b"quoted-printable":
                if bad := _BAD_QUOTED_PRINTABLE.search(self.data):
                    problem = f"quoted-printable with a bad escape at position {bad.start()}"
                    raise MalformedBody(self.name, problem, "quoted-printable as in RFC 2045")
                return bounded(self.name, binascii.a2b_qp(self.data), self.limit)
        return self.data

    def value(self, charset: bytes) -> object:
        """Return a text as UTF-8, or the value of JSON. `charset` is the default of a part that declares none."""
        where = self.name
        if not (declared := self.headers.get(b"content-type", b"")):
            return bounded(where, in_utf8(where, bytes(self.content()), charset), self.limit)
        media_type, parameters = parameters_of(where, declared)
        extended = any(name.startswith(b"charset*") for name in parameters)  # RFC 2231
        if extended or parameters.get(b"delsp", b"").lower() == b"yes" or media_type == _URLENCODED:
            problem = f"Content-Type {shown(declared.decode('latin-1'))}"
            raise UnsupportedMediaType(where, problem, f"text/plain or {JSON}")
        content = in_utf8(where, bytes(self.content()), parameters.get(b"charset") or charset)
        content = bounded(where, content, self.limit)
        return loads(content, where, "JSON in UTF-8") if media_type == JSON.encode() else content


class Form:
    """Collects the parts of a form while it is parsed; rejects unknown, repeated and too long ones at once."""

    def __init__(self, task: Operation, boundary: bytes, settings: Settings, charset: bytes = b"") -> None:
        """`charset` is the default of the parts that declare none."""
        self.encoded = False
        """Whether a part has a transfer encoding. `close` is then slow and must run on a thread."""
        self._charset = charset
        self._task, self._choice = task, choice_of(task)
        self._inputs = inputs_of_operation(task)
        self._fields = (*self._inputs, *self._choice.model_fields)
        self._lists: frozenset[str] = getattr(task, "lists", frozenset())
        limits = {name: settings.max_input_bytes(modality.name) for name, modality in self._inputs.items()}
        self._limits = limits | LONG_OPTION_BYTES
        self._encoded_limit = settings.max_body_bytes
        self._parts: dict[str, _Part] = {}
        self._repeated: list[tuple[str, _Part]] = []
        """Parts of fields that are lists."""
        self._part = _Part()
        self._header = bytearray()
        self._value = bytearray()
        self._started = self._ended = False
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
        """Parse the next bytes of the body. Raises RequestError."""
        # After leading line breaks the parser would accept any other bytes of the same chunk.
        if not self._started:
            chunk = chunk.lstrip(b"\r\n")
            self._started = bool(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            allowed = (
                f"parts as in RFC 7578, each with up to {PART_HEADERS} header fields of up to {PART_HEADER_BYTES} bytes"
            )
            raise MalformedBody("body", "broken multipart", allowed) from None

    def close(self) -> ParsedRequest:
        """Decode the parts of the whole form into a request. Raises RequestError."""
        if not self._ended:
            raise MalformedBody("body", "no closing boundary", "the whole multipart body")
        inputs: dict[str, bytes | bytearray] = {}
        options: dict[str, object] = {}
        charset = self._charset
        if field_part := self._parts.pop(_CHARSET, None):
            charset = bytes(field_part.content().strip()) or charset
        if charset:
            codec_of(_CHARSET if field_part else "Content-Type", charset)
        for name, part in self._parts.items():
            if (modality := self._inputs.get(name)) is None:
                if (value := _option(name, part.value(charset))) is not None:
                    options[name] = value
            elif modality.textual:
                if (text := part.value(charset)) is not None:
                    inputs[name] = text if isinstance(text, bytes) else text_of(name, text, part.limit)
            # For a file that was not chosen, browsers send a part without bytes and file name. An empty file has a name.
            elif (content := part.content()) or part.has_filename:
                inputs[name] = content
        for name, part in self._repeated:
            value = part.value(charset)
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
            entry = text if text and not text.startswith("[") else _option(name, value)
            cast(list[object], options.setdefault(name, [])).extend(entry if isinstance(entry, list) else [entry])
        return ParsedRequest.of(self._task, inputs, validated(self._choice, options))

    def _begin(self) -> None:
        self._part = _Part()

    def _end_header(self) -> None:
        name, headers = bytes(self._header).lower(), self._part.headers
        if name in headers:
            raise RepeatedField("body", f"header field {shown(name.decode())} of one part twice", "each one once")
        if name in _PART_HEADERS:
            headers[name] = bytes(self._value)
        elif name in _CODINGS and (value := self._value.strip().lower()) != b"identity":
            problem = f"{name.decode()} {shown(value.decode('latin-1'))} of a part"
            raise UnsupportedMediaType("body", problem, "parts that are whole and not compressed")
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        part, headers = self._part, self._part.headers
        _, part.disposition = parameters_of("body", headers.get(b"content-disposition", b""))
        part.name = part.disposition.get(b"name", b"").decode("utf-8", "replace")
        field_of_list = part.name.partition("[")[0]
        if field_of_list in self._lists:
            if len(self._repeated) == MOST_REPEATED:
                raise RepeatedField(field_of_list, f"more than {MOST_REPEATED} values", f"up to {MOST_REPEATED} values")
            part.limit = part.wire_limit = OPTION_BYTES
            self._repeated.append((field_of_list, part))
            return
        if part.name not in self._fields and part.name != _CHARSET:
            raise UnknownField.of(part.name, self._fields)
        if part.name in self._parts:
            raise RepeatedField(part.name, "the field twice", "once")
        if headers.get(b"content-type", b"").lower().startswith(_COMPOSITE):
            declared = headers[b"content-type"].decode("latin-1")
            allowed = "a file or a text by itself, not several in one"
            raise UnsupportedMediaType(part.name, f"Content-Type {shown(declared)}", allowed)
        part.limit = part.wire_limit = self._limits.get(part.name, OPTION_BYTES)
        if (encoding := headers.get(b"content-transfer-encoding", b"").strip().lower()) not in _IDENTITY:
            if encoding not in (b"base64", b"quoted-printable"):
                problem = f"Content-Transfer-Encoding {shown(encoding.decode('latin-1'))}"
                raise UnsupportedMediaType(part.name, problem, "7bit, 8bit, binary, quoted-printable or base64")
            part.encoding, part.wire_limit, self.encoded = encoding, self._encoded_limit, True
        self._parts[part.name] = part

    def _extend(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if len(part.data) + end - start > part.wire_limit:
            raise TooManyBytes.of(part.name, part.wire_limit)
        part.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _option(name: str, value: object) -> object:
    """Return the value of an option as JSON would have it; None for a blank one."""
    if not isinstance(value, bytes):
        return value
    text = value.decode("utf-8", "replace")
    if not text.strip():
        return None
    if name in TEXT_OPTIONS:
        return text.strip()
    if text.lstrip().startswith("["):
        return loads(value, name, "a JSON list in UTF-8")
    if text.lstrip().startswith("{"):
        return loads(value, name, "a JSON object in UTF-8")
    return json.loads(text) if _JSON_VALUE.fullmatch(text) else text
