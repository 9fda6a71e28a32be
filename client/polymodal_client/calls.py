"""Each call described once: what is sent, and how its answer is read. Knows no connection and no time."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from polymodal_client.answers import Classification, Health, Item, ItemAnswer, ModelDetail, Models
from polymodal_client.pictures import bytes_of

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, and how to read its answer; it can be sent any number of times."""

    method: str
    path: str
    read: Callable[[Any, str], Answer] = field(repr=False)
    """From a JSON document and the request's id. Raises LookupError, TypeError or ValueError when it is no such answer."""
    json: Any = field(default=None, repr=False)
    fields: Mapping[str, str] | None = field(default=None, repr=False)
    """Of a form."""
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    repeatable: bool = True
    """Probes are not: their failure is the answer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to answer, and by which model."""

    model: str | None = None
    top_k: int | None = None
    threshold: float | None = None

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        values = {"model": self.model, "top_k": self.top_k, "threshold": self.threshold}
        return {name: value for name, value in values.items() if value is not None}


def classify(item: Item, options: Options) -> Call[Classification]:
    """One example, as a form. Raises OSError or ValueError when its image can't be read."""
    fields = {name: str(value) for name, value in options.given().items()}
    text = _text(item)
    files = {} if item.image is None else {"image": bytes_of(item.image)}
    if not files:
        return Call("POST", "/v1/classify", Classification.of, json={**options.given(), **text})
    return Call("POST", "/v1/classify", Classification.of, fields={**fields, **text}, files=files)


def _text(item: Item) -> dict[str, str]:
    """Raises UnicodeEncodeError, a ValueError, for what is no text: half a character."""
    if item.text is None:
        return {}
    item.text.encode()
    return {"text": item.text}


@dataclass(frozen=True, slots=True)
class Packed:
    """An item whose image was read and encoded, ready to be sent."""

    index: int
    """Among all items that were given."""
    id: str | None
    document: Mapping[str, str]

    @property
    def size(self) -> int:
        """Characters in JSON, roughly."""
        return sum(map(len, self.document.values()))


def pack(index: int, item: Item) -> Packed:
    """Read and encode an item. Raises OSError, TypeError or ValueError when its image can't be read."""
    document = _text(item)
    if item.image is not None:
        document["image"] = base64.b64encode(bytes_of(item.image)).decode("ascii")
    return Packed(index, item.id, document)


def classify_batch(items: Sequence[Packed], options: Options) -> Call[tuple[ItemAnswer, ...]]:
    """Many examples in one request. Ids stay here: the answers are in the items' order."""

    def read(document: Any, request_id: str) -> tuple[ItemAnswer, ...]:  # noqa: ANN401 — JSON
        answers = [ItemAnswer.of(each, request_id) for each in document["items"]]
        if [answer.index for answer in answers] != list(range(len(items))):
            raise ValueError("not one answer for each item")
        return tuple(
            ItemAnswer(item.index, item.id, answer.classification, answer.error)
            for item, answer in zip(items, answers, strict=True)
        )

    body = {**options.given(), "items": [item.document for item in items]}
    return Call("POST", "/v1/classify/batch", read, json=body)


def models() -> Call[Models]:
    """What is served."""
    return Call("GET", "/v1/models", lambda document, _: Models.of(document))


def model(name: str) -> Call[ModelDetail]:
    """One model with its card. Raises ValueError for what can't be a name."""
    if not name or set(name) & set("/?#%\\") or not name.isprintable() or name in (".", ".."):
        raise ValueError(f"model: {name!r}; allowed: a name of models()")
    return Call("GET", f"/v1/models/{name}", lambda document, _: ModelDetail.of(document))


def health(probe: str) -> Call[Health]:
    """One of the probes. Raises ValueError for any other."""
    if probe not in ("live", "started", "ready"):
        raise ValueError(f"probe: {probe!r}; allowed: live, started, ready")
    path = {"live": "/livez", "started": "/startupz", "ready": "/readyz"}[probe]
    return Call("GET", path, lambda document, _: Health.of(document), repeatable=False)
