"""The body of POST /v1/embeddings, as clients of OpenAI's API, of Jina's, of infinity's and of vLLM's write it.

All inputs are validated and decoded from base64 before any is computed: an unusable one refuses the request, and is named by its
index.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, create_model

from polymodal.app.api.body.binary import file_of
from polymodal.app.api.body.json import Fault, encoded, parse, validated
from polymodal.app.api.body.problems import MalformedBody, TooManyItems, UnknownField, shown
from polymodal.app.api.schemas import Example, ModelChoice
from polymodal.app.settings import Settings
from polymodal.model import MODALITIES, Count, Inputs, InvalidParameter, NothingGiven, Schema

MOST_INPUTS: Final = 2048
"""Inputs of one request, as many as OpenAI accepts."""

_TEXT: Final = next(name for name, modality in MODALITIES.items() if modality.textual)
"""The modality of a string, and of the type text of OpenAI's messages."""
_LINKED: Final = {f"{name}_url": name for name, modality in MODALITIES.items() if not modality.textual}
"""Modalities by the types of OpenAI's and vLLM's messages for files."""
_ALL: Final = " or ".join(MODALITIES)
_INPUTS: Final = f"a text, or a list of 1 to {MOST_INPUTS:,} texts or objects with {_ALL}"
_VISIBLE: Final = "a text with at least one character that shows something"
_CURE: Final = (
    "texts, because the model has a tokenizer of its own; LangChain's OpenAIEmbeddings sends texts with "
    "check_embedding_ctx_length=False"
)
_TOKENS: Final = re.compile(rb'"input"\s*:\s*\[\s*(?:\[\s*)?[0-9]')
"""The beginning of token ids in a body. No string contains it, because its quotes are escaped."""


# --- schemas ---


class LinkedFile(Schema):
    """A file in a message."""

    url: Annotated[str, Field(min_length=1)]
    """A data: URI; the service fetches nothing, so no other URL."""
    detail: str | None = None
    """Accepted without effect."""


def _content_schema(kind: str, value: Any) -> type[Schema]:  # noqa: ANN401 — a type
    name = "".join(map(str.capitalize, kind.split("_")))
    fields: Any = {"type": (Literal[kind], ...), kind: (value, ...)}
    options = {"use_attribute_docstrings": False}
    about = f"An item of the type {kind} in a message."
    return create_model(f"{name}Content", __base__=Schema, __doc__=about, __cls_kwargs__=options, **fields)


_CONTENTS: Final[Any] = reduce(
    or_, (_content_schema("text", str), *(_content_schema(kind, LinkedFile) for kind in _LINKED))
)


class EmbeddingMessage(Schema):
    """A message of a conversation."""

    role: Literal["user"]
    content: str | Annotated[list[_CONTENTS], Field(min_length=1)]


class EmbeddingInput(Example):  # type: ignore[misc, valid-type]  # derived from the table
    """An item of `input`. With several inputs it has one vector, of all of them together."""


class EmbeddingsChoice(ModelChoice):
    """The fields of POST /v1/embeddings in addition to the inputs."""

    allowed: ClassVar[Mapping[str, str]] = {
        "encoding_format": "float or base64",
        "dimensions": "an integer from 1",
        "modality": _ALL,
        "user": "a string",
    }

    encoding_format: Literal["float", "base64"] | None = None
    """float for lists of numbers, the default; base64 for the bytes of float32 numbers in little-endian order."""
    dimensions: Count | None = None
    """The number that the model's vectors have; no other, because they can't be shortened."""
    modality: Literal[tuple(MODALITIES)] | None = None  # type: ignore[valid-type]  # from the table
    """What the strings of `input` are: texts, by default, or files as data: URIs or base64."""
    user: str | None = None
    """Accepted without effect."""


class EmbeddingsBody(EmbeddingsChoice):
    """The JSON body of POST /v1/embeddings, with either `input` or `messages`."""

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[
            list[Annotated[str, Field(min_length=1)] | EmbeddingInput], Field(min_length=1, max_length=MOST_INPUTS)
        ]
        | None
    ) = None
    """A text, or a list of texts and of objects; each gets a vector."""
    messages: Annotated[list[EmbeddingMessage], Field(min_length=1)] | None = None
    """A conversation, which gets one vector of all its texts and its file together."""


# --- parsing ---


@dataclass(frozen=True, slots=True)
class EmbeddingItem:
    """One item of a request, which gets one vector."""

    place: str
    """Where it is in the body, for messages: input[3]."""
    inputs: Inputs
    places: Mapping[str, str]
    """Where its inputs are, by modality: input[3].image."""

    def unpack(self) -> Inputs:
        """Return the inputs."""
        return self.inputs


@dataclass(frozen=True, slots=True)
class ParsedEmbeddings:
    """A parsed request for vectors."""

    items: list[EmbeddingItem]
    model: str | None
    """The name of the model; None for the default one."""
    dimensions: int | None
    packed: bool
    """Whether vectors are returned in base64."""
    ignored: Collection[str]
    """Fields of the request without effect."""


def embeddings_of(body: bytearray, settings: Settings) -> ParsedEmbeddings:
    """Return the request of a body. Raises RequestError or InputError."""
    try:
        fields = parse(body)
    except MalformedBody:  # thousands of token ids are too many pieces of JSON
        if _TOKENS.search(body):
            raise InvalidParameter("input", "token ids", _CURE) from None
        raise
    inputs, messages = fields.pop("input", None), fields.pop("messages", None)
    choice = validated(EmbeddingsChoice, fields, known=EmbeddingsBody.model_fields)
    ignored = {name for name in ("user",) if fields.get(name) is not None}
    reader = _Reader(settings, choice.modality or _TEXT, ignored)
    if messages is not None:
        if inputs is not None or choice.modality is not None:
            other = "input" if inputs is not None else "modality"
            raise InvalidParameter("messages", f"next to {other}", "either input or messages")
        items = [reader.conversation(messages)]
    else:
        items = reader.items(inputs)
    return ParsedEmbeddings(items, choice.model, choice.dimensions, choice.encoding_format == "base64", sorted(ignored))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the items of one request."""

    settings: Settings
    modality: str
    """Of strings."""
    ignored: set[str]
    """Collects the fields without effect."""

    def items(self, inputs: object) -> list[EmbeddingItem]:
        """Return the items of the field `input`."""
        if isinstance(inputs, str):
            return [self._of_string("input", inputs)]
        if isinstance(inputs, Fault):
            raise inputs.at("input")
        if not isinstance(inputs, list) or not inputs:
            raise InvalidParameter("input", "an empty list" if inputs == [] else shown(inputs), _INPUTS)
        if _is_token(inputs[0]) or (isinstance(inputs[0], list) and inputs[0] and _is_token(inputs[0][0])):
            raise InvalidParameter("input", "token ids", _CURE)
        if len(inputs) > MOST_INPUTS:
            raise TooManyItems("input", f"{len(inputs):,} inputs", f"up to {MOST_INPUTS:,} inputs in one request")
        return [self._item(f"input[{index}]", value) for index, value in enumerate(inputs)]

    def _item(self, place: str, value: object) -> EmbeddingItem:
        if isinstance(value, str):
            return self._of_string(place, value)
        if not isinstance(value, dict | Fault):
            raise InvalidParameter(place, shown(value), f"a text, or an object with {_ALL}")
        fields = _object(place, value, MODALITIES)
        contents = {name: content for name, content in fields.items() if content is not None}
        if not contents:
            raise NothingGiven(place, "an object without inputs", f"at least one of {', '.join(MODALITIES)}")
        places = {name: f"{place}.{name}" for name in contents}
        inputs = {name: self._input(places[name], name, content) for name, content in contents.items()}
        return EmbeddingItem(place, inputs, places)

    def _of_string(self, place: str, value: str) -> EmbeddingItem:
        name = self.modality
        return EmbeddingItem(place, {name: self._input(place, name, value)}, {name: place})

    def _input(self, place: str, modality: str, value: object) -> bytes:
        textual, limit = MODALITIES[modality].textual, self.settings.max_input_bytes(modality)
        allowed = _VISIBLE if textual else f"the {modality} file as a data: URI or base64"
        if not isinstance(value, str):
            raise InvalidParameter(place, shown(value), allowed)
        if not value:
            raise NothingGiven(place, "an empty string", allowed)
        return encoded(place, value, limit) if textual else file_of(place, value, limit)

    def conversation(self, messages: object) -> EmbeddingItem:
        """Return the one item of the field `messages`: all its texts, in lines, and its files."""
        if isinstance(messages, Fault):
            raise messages.at("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidParameter("messages", shown(messages), "a list of at least one message")
        texts: list[bytes] = []
        inputs: dict[str, bytes] = {}
        places: dict[str, str] = {}
        for index, message in enumerate(messages):
            for place, modality, value in self._contents(f"messages[{index}]", message):
                content = self._input(place, modality, value)
                if modality == _TEXT:
                    texts.append(content)
                elif modality in inputs:
                    raise InvalidParameter(place, f"a second {modality}", f"one {modality} in all messages")
                else:
                    inputs[modality], places[modality] = content, place
        if texts:
            inputs[_TEXT], places[_TEXT] = b"\n".join(texts), "messages"
        return EmbeddingItem("messages", inputs, places)

    def _contents(self, place: str, message: object) -> list[tuple[str, str, object]]:
        """Return the place, the modality and the value of each input of a message."""
        fields = _object(place, message, ("role", "content"))
        if (role := fields.get("role")) != "user":
            raise InvalidParameter(f"{place}.role", shown(role), '"user", because only its messages are embedded')
        content, place = fields.get("content"), f"{place}.content"
        if isinstance(content, str):
            return [(place, _TEXT, content)]
        if not isinstance(content, list) or not content:
            raise InvalidParameter(place, shown(content), "a text, or a list of texts and files")
        return [self._content(f"{place}[{index}]", entry) for index, entry in enumerate(content)]

    def _content(self, place: str, entry: object) -> tuple[str, str, object]:
        kinds = ("text", *_LINKED)
        fields = _object(place, entry)
        if (kind := fields.get("type")) not in kinds:
            raise InvalidParameter(f"{place}.type", shown(kind), " or ".join(kinds))
        _check_fields(place, fields, ("type", kind))
        if kind == "text":
            return f"{place}.text", _TEXT, fields.get("text")
        linked = _object(f"{place}.{kind}", fields.get(kind), ("url", "detail"))
        if (detail := linked.get("detail")) is not None:
            if not isinstance(detail, str):
                raise InvalidParameter(f"{place}.{kind}.detail", shown(detail), "a string")
            self.ignored.add("detail")
        return f"{place}.{kind}.url", _LINKED[kind], linked.get("url")


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(place: str, value: object, known: Collection[str] | None = None) -> dict[str, Any]:
    """Return the fields of an object, all of them valid JSON. Raises RequestError for anything else, and for an unknown field."""
    if isinstance(value, Fault):
        raise value.at(place)
    if not isinstance(value, dict):
        raise InvalidParameter(place, shown(value), "an object")
    for name, content in value.items():
        if isinstance(content, Fault):
            raise content.at(f"{place}.{name[:64]}")
    if known is not None:
        _check_fields(place, value, known)
    return value


def _check_fields(place: str, fields: Mapping[str, object], known: Collection[str]) -> None:
    for name in fields:
        if name not in known:
            raise UnknownField(place, f"field {shown(name)}", ", ".join(known))
