"""JSON bodies: bounded before they are parsed, and then the request or the items of a batch. Runs on the unpacking threads."""

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.body.binary import image_of
from app.body.problems import (
    InvalidParameter,
    MalformedBody,
    RepeatedField,
    RequestError,
    TooManyItems,
    UnknownField,
    bounded,
    shown,
)
from app.body.request import ParsedBatch, ParsedRequest
from app.schemas import BatchBody, BatchItem, ClassifyBody, Example, Options
from app.settings import Settings
from model import Parts

Schema = TypeVar("Schema", bound=BaseModel)

JSON_DEPTH, JSON_PIECES = 16, 250_000
"""Lists and objects within each other; strings, commas and brackets in all: 20 MB of short fields would become 1.7 GB."""
# A string, also one without an end, so that each byte is read once; a comma or a bracket.
_JSON_PIECE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[\]{}]', re.DOTALL)
ALLOWED = {
    "image": "the image file as a base64 string",
    "text": "a string",
    "top_k": "an integer from 1 to the number of labels, as JSON writes numbers",
    "threshold": "a number from 0 to 1, as JSON writes numbers",
    "model": "the name of a served model",
    "id": "a string of up to 128 characters",
    "items": "a list of at least one object",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Placeholder of a JSON value that can be parsed but not accepted, so that only its own item of a batch fails."""

    kind: type[RequestError]
    found: str
    allowed: str
    id: object = None
    """Of an object: its own."""

    def at(self, where: str) -> RequestError:
        """Return the error for the field or item that has this value."""
        return self.kind(where, self.found, self.allowed)


def parse(body: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object. Raises RequestError."""
    allowed = "a JSON object in UTF-8"
    document = loads(body, "body", allowed)
    if not isinstance(document, dict):
        raise MalformedBody("body", shown(document), allowed)
    return document


def loads(content: bytes, where: str, allowed: str) -> object:
    """Parse JSON. Values that only their field or item is refused for become a `Fault`."""
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
    if isinstance(document, Fault):
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Fault:
    """Build a JSON object; a repeated field makes it a fault that keeps an unambiguous id."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = Counter(name for name, _ in pairs)
    ((repeated, _),) = names.most_common(1)
    id_ = fields.get("id") if names["id"] == 1 else None
    return Fault(RepeatedField, f"field {shown(repeated)} twice", "each field once", id_)


def _constant(name: str) -> Fault:
    return Fault(MalformedBody, name, "JSON, which has no such number")


def _integer(digits: str) -> int | Fault:
    try:
        return int(digits)
    except ValueError:  # thousands of digits
        return Fault(MalformedBody, "a number that is too long", f"up to {sys.get_int_max_str_digits()} digits")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)


def request_of(fields: dict[str, Any], settings: Settings) -> ParsedRequest:
    """Return what a request for one example contains. Raises RequestError."""
    body = checked(ClassifyBody, fields)
    options = Options(top_k=body.top_k, threshold=body.threshold, model=body.model)
    return ParsedRequest(_parts(body, settings), options)


def batch_of(fields: dict[str, Any], settings: Settings) -> ParsedBatch:
    """Return what a request for a batch contains; what is wrong with an item is raised when it is unpacked. Raises RequestError."""
    items = fields.pop("items", None)
    options = checked(Options, fields, known=BatchBody.model_fields)
    if isinstance(items, Fault):
        raise items.at("items")
    if not isinstance(items, list) or not items:
        raise InvalidParameter("items", shown(items), ALLOWED["items"])
    if len(items) > (limit := settings.max_batch_request_items):
        raise TooManyItems("items", f"{len(items)} items", f"up to {limit} items")
    return ParsedBatch(
        ids=[_item_id(item) for item in items],
        unpack=[partial(_unpack, item, settings) for item in items],
        options=options,
    )


def _item_id(item: object) -> str | None:
    """An item's id, also when the rest of the item is wrong: the client must recognise which one it was."""
    given = item.id if isinstance(item, Fault) else item.get("id") if isinstance(item, dict) else None
    return given if isinstance(given, str) and len(given) <= 128 and half_at(given) is None else None


def _unpack(item: object, settings: Settings) -> Parts:
    if isinstance(item, Fault):
        raise item.at("item")
    if not isinstance(item, dict):
        raise InvalidParameter("item", shown(item), "an object with image, text or both")
    return _parts(checked(BatchItem, item), settings)


def _parts(example: Example, settings: Settings) -> Parts:
    parts: dict[str, bytes | str] = {}
    if example.image is not None:
        parts["image"] = image_of(example.image, settings.max_image_bytes)
    if example.text is not None:
        parts["text"] = text_of(example.text, settings.max_text_bytes)
    return parts


def text_of(text: object, limit: int) -> bytes:
    """A text of JSON as UTF-8."""
    if not isinstance(text, str):
        raise InvalidParameter("text", shown(text), ALLOWED["text"])
    try:
        return bounded("text", text.encode("utf-8"), limit)
    except UnicodeEncodeError as error:
        raise half_character("text", error.start) from None


def checked(schema: type[Schema], fields: Mapping[str, Any], *, known: Iterable[str] | None = None) -> Schema:
    """The fields as a schema has them."""
    try:
        return schema.model_validate(fields, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    value = problem["input"]
    if not problem["loc"]:  # the name of a field, not its value
        raise MalformedBody("body", f"field {shown(value)}, which has half of a surrogate pair", "whole characters")
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise UnknownField("body", f"field {shown(name)}", ", ".join(known or schema.model_fields))
    if isinstance(value, Fault):
        raise value.at(name)
    if problem["type"] == "string_unicode":
        raise half_character(name, half_at(value))
    raise InvalidParameter(name, shown(value), ALLOWED[name])


def half_character(where: str, position: int | None) -> MalformedBody:
    """Return the error for a string that has no UTF-8, with the position that `half_at` found."""
    found = f"half of a surrogate pair, or a byte that is not UTF-8, at position {position}"
    return MalformedBody(where, found, "whole characters")


def half_at(text: str) -> int | None:
    """Return the position of half of a surrogate pair (JSON's escapes allow it) or of a byte that was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
