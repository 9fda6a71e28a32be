"""JSON bodies, whose size and depth are limited before they are parsed. Runs on the unpacking threads."""

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

from polymodal.app.api.body.binary import file_of
from polymodal.app.api.body.problems import MalformedBody, RepeatedField, TooManyItems, UnknownField, bounded, shown
from polymodal.app.api.body.request import ParsedBatch, ParsedComparison, ParsedRequest
from polymodal.app.api.schemas import BatchItem, Example, SearchBody, SimilarityBody, choice_of, schemas_of
from polymodal.app.problems import RequestError
from polymodal.app.serving.search import SEARCH
from polymodal.app.serving.similarity import SIMILARITY
from polymodal.app.settings import Settings
from polymodal.model import MODALITIES, TASKS, Inputs, InvalidParameter, Schema, Task

Validated = TypeVar("Validated", bound=BaseModel)

JSON_DEPTH, JSON_PIECES = 16, 250_000
"""Most nested lists and objects, and most strings, commas and brackets in all: 20 MB of short fields would become 1.7 GB."""
# A string, a comma or a bracket. A string without an end matches, too, so that each byte is read once.
_JSON_PIECE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[\]{}]', re.DOTALL)
ALLOWED = {
    **{
        name: "a string" if modality.textual else f"the {name} file as a base64 string"
        for name, modality in MODALITIES.items()
    },
    **{field: allowed for task in TASKS.values() for field, allowed in task.Options.allowed.items()},
    "model": "the name of a served model",
    "id": "a string of up to 128 characters",
    "items": "a list of at least one object",
    "candidates": "a list of at least one object",
}
"""The allowed values by field, for messages."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Placeholder of a JSON value that is syntactically valid but rejected, so that only its own item of a batch fails."""

    kind: type[RequestError]
    problem: str
    allowed: str
    id: object = None
    """The id of a rejected object."""

    def at(self, where: str) -> RequestError:
        """Return the error for the field or item `where` with this value."""
        return self.kind(where, self.problem, self.allowed)


def parse(body: bytearray) -> dict[str, Any]:
    """Return the fields of a JSON object. Clears `body` to free its memory. Raises RequestError."""
    allowed = "a JSON object in UTF-8"
    document = loads(body, "body", allowed)
    if not isinstance(document, dict):
        raise MalformedBody("body", shown(document), allowed)
    return document


def loads(content: bytes | bytearray, where: str, allowed: str) -> object:
    """Parse JSON. A value for which only its field or item is rejected becomes a `Fault`. Clears a bytearray."""
    _check_structure(content)
    start, size = len(codecs.BOM_UTF8) * content.startswith(codecs.BOM_UTF8), len(content)
    damage = None
    try:
        text = str(memoryview(content)[start:], "utf-8")
    except UnicodeDecodeError as error:
        damage, text = error, str(memoryview(content)[start:], "utf-8", "surrogateescape")
    if isinstance(content, bytearray):
        content.clear()
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if damage:
            raise MalformedBody(where, f"invalid UTF-8 at byte {damage.start}", allowed) from None
        if size == start:
            raise MalformedBody(where, "no bytes", allowed) from None
        raise MalformedBody.of_json(where, error.lineno, error.colno, allowed) from None
    if isinstance(document, Fault):
        raise document.at(where)
    return document


def _check_structure(body: bytes | bytearray) -> None:
    """Raise MalformedBody for JSON that is nested too deeply or has too many pieces, before they become Python objects."""
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH and body.count(b",") + body.count(b'"') <= JSON_PIECES:
        return  # nearly every request for one item; base64 has none of these characters
    depth = 0
    for number, piece in enumerate(_JSON_PIECE.finditer(body)):
        if number == JSON_PIECES:
            allowed = "up to that many strings, commas and brackets"
            raise MalformedBody("body", f"JSON of more than {JSON_PIECES} pieces", allowed)
        first = body[piece.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > JSON_DEPTH:
            allowed = f"up to {JSON_DEPTH} lists and objects within each other"
            raise MalformedBody("body", "JSON nested too deeply", allowed)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Fault:
    """Return a JSON object, or a fault for one with a repeated field; the fault keeps an id that occurs once."""
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


def request_of(task: Task, fields: dict[str, Any], settings: Settings) -> ParsedRequest:
    """Return the request for one item. Raises RequestError."""
    body = validated(schemas_of(task).body, fields)
    return ParsedRequest.of(task, inputs_of(body, settings), body)


def batch_of(task: Task, fields: dict[str, Any], settings: Settings) -> ParsedBatch:
    """Return the request for a batch. Raises RequestError; errors of an item are raised when it is unpacked."""
    schemas = schemas_of(task)
    items = fields.pop("items", None)
    choice = validated(schemas.choice, fields, known=schemas.batch_body.model_fields)
    items = _listed("items", items, settings)
    common = ParsedRequest.of(task, {}, choice)
    return ParsedBatch(
        ids=[_item_id(item) for item in items],
        unpack=[partial(_unpack, item, settings, schemas.batch_item) for item in items],
        options=common.options,
        model=common.model,
    )


def comparison_of(fields: dict[str, Any], settings: Settings) -> ParsedComparison:
    """Return the request for similarity. Raises RequestError; errors of an input are raised when its item is unpacked."""
    query, candidates = fields.pop("query", None), fields.pop("candidates", None)
    choice = validated(choice_of(SIMILARITY), fields, known=SimilarityBody.model_fields)
    candidates = _listed("candidates", candidates, settings)
    ids = [_item_id(candidate) for candidate in candidates]
    positions: dict[str, int] = {}
    for position, id_ in enumerate(ids):
        if id_ is not None and (first := positions.setdefault(id_, position)) != position:
            raise InvalidParameter("candidates", f"id {shown(id_)} at positions {first} and {position}", "each id once")
    common = ParsedRequest.of(SIMILARITY, {}, choice)
    return ParsedComparison(
        ids=ids,
        unpack=[partial(_unpack, candidate, settings, where="candidate") for candidate in candidates],
        options=common.options,
        model=common.model,
        query=partial(_unpack, query, settings, Example, where="query"),
    )


def search_of(fields: dict[str, Any], settings: Settings) -> ParsedRequest:
    """Return the request for a search. Raises RequestError."""
    query = fields.pop("query", None)
    choice = validated(choice_of(SEARCH), fields, known=SearchBody.model_fields)
    return ParsedRequest.of(SEARCH, _unpack(query, settings, Example, where="query"), choice)


def _listed(name: str, items: object, settings: Settings) -> list[object]:
    """Return the items of a list that is neither empty nor too long. Raises RequestError."""
    if isinstance(items, Fault):
        raise items.at(name)
    if not isinstance(items, list) or not items:
        raise InvalidParameter(name, shown(items), ALLOWED[name])
    check_number(name, len(items), settings)
    return items


def check_number(name: str, items: int, settings: Settings) -> None:
    """Raise TooManyItems for more items than a request may have."""
    if items > (limit := settings.max_batch_request_items):
        raise TooManyItems(name, f"{items} items", f"up to {limit} items")


def _item_id(item: object) -> str | None:
    """Return the id of an item, even if the rest of it is invalid, so that the client can identify it; None without a valid id."""
    id_ = item.id if isinstance(item, Fault) else item.get("id") if isinstance(item, dict) else None
    return id_ if isinstance(id_, str) and len(id_) <= 128 and surrogate_position(id_) is None else None


def _unpack(item: object, settings: Settings, schema: type[Schema] = BatchItem, where: str = "item") -> Inputs:
    if isinstance(item, Fault):
        raise item.at(where)
    if not isinstance(item, dict):
        names = [name for name in MODALITIES if name in schema.model_fields]
        several = {1: "", 2: " or both"}.get(len(names), " or several")
        raise InvalidParameter(where, shown(item), f"an object with {', '.join(names)}{several}")
    return inputs_of(validated(schema, item), settings)


def inputs_of(fields: Schema, settings: Settings) -> Inputs:
    """Decode the inputs of an item. Raises RequestError."""
    inputs: dict[str, bytes | str] = {}
    for name, modality in MODALITIES.items():
        if (value := getattr(fields, name, None)) is not None:
            decode = text_of if modality.textual else file_of
            inputs[name] = decode(name, value, settings.max_input_bytes(name))
    return inputs


def text_of(where: str, text: object, limit: int) -> bytes:
    """Encode a string of JSON as UTF-8. Raises RequestError."""
    if not isinstance(text, str):
        raise InvalidParameter(where, shown(text), ALLOWED[where])
    return encoded(where, text, limit)


def encoded(where: str, text: str, limit: int) -> bytes:
    """Encode a string of JSON as UTF-8. Raises MalformedBody or TooManyBytes."""
    try:
        return bounded(where, text.encode("utf-8"), limit)
    except UnicodeEncodeError as error:
        raise surrogate_error(where, error.start) from None


def validated(schema: type[Validated], fields: Mapping[str, Any], *, known: Iterable[str] | None = None) -> Validated:
    """Validate fields by a schema. Raises RequestError; `known` are the fields that its message lists."""
    try:
        return schema.model_validate(fields, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    value = first["input"]
    if not first["loc"]:  # the name of a field, not its value
        raise MalformedBody("body", f"field {shown(value)}, which has half of a surrogate pair", "whole characters")
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise UnknownField.of(name, known or schema.model_fields)
    if isinstance(value, Fault):
        raise value.at(name)
    if first["type"] == "string_unicode":
        raise surrogate_error(name, surrogate_position(value))
    allowed = {**ALLOWED, **getattr(schema, "allowed", {})}  # an option may have another meaning in another operation
    raise InvalidParameter(name, shown(value), allowed[name])


def surrogate_error(where: str, position: int | None) -> MalformedBody:
    """Return the error for a string that can't be encoded because of the character at this position."""
    problem = f"half of a surrogate pair, or a byte that is not UTF-8, at position {position}"
    return MalformedBody(where, problem, "whole characters")


def surrogate_position(text: str) -> int | None:
    """Return the position of the first character that can't be encoded; None without one.

    It is half of a surrogate pair, which JSON's escapes allow, or represents a byte that was not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
