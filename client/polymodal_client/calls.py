"""Each call described once: what is sent, and how its answer is read. Knows no connection and no time."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from polymodal_client.answers import Classification, Health, Item, ItemAnswer, ModelDetail, Models
from polymodal_client.items import id_of, is_missing, item_of, text_of
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
    """What to answer, and by which model. Raises TypeError or ValueError for a value of another type."""

    model: str | None = None
    top_k: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.model is not None and not isinstance(self.model, str):
            raise TypeError(f"model: {type(self.model).__name__}; allowed: a name of models()")
        if self.top_k is not None:
            object.__setattr__(self, "top_k", whole_number("top_k", self.top_k))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", real_number("threshold", self.threshold))

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        values = {"model": self.model, "top_k": self.top_k, "threshold": self.threshold}
        return {name: value for name, value in values.items() if value is not None}


def whole_number(name: str, value: Any) -> int:  # noqa: ANN401
    """Return an int for any whole number, also one of numpy's. Raises TypeError or ValueError naming it."""
    number = real_number(name, value, "a whole number")
    if not number.is_integer():
        raise ValueError(f"{name}: {value}; allowed: a whole number")
    return int(number)


def real_number(name: str, value: Any, allowed: str = "a number") -> float:  # noqa: ANN401
    """Return a float for any finite number, also one of numpy's. Raises TypeError or ValueError naming it."""
    kind = type(value).__name__
    if kind.startswith("bool") or not hasattr(value, "__float__") or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name}: {kind}; allowed: {allowed}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: {number}; allowed: {allowed}")
    return number


def classify(item: Item, options: Options) -> Call[Classification]:
    """One example, as a form. Raises OSError, TypeError or ValueError when its image or its text can't be sent."""
    parts = _parts(item)
    if (image := parts.pop("image", None)) is None:
        return Call("POST", "/v1/classify", Classification.of, json={**options.given(), **parts})
    fields = {name: str(value) for name, value in (options.given() | parts).items()}
    return Call("POST", "/v1/classify", Classification.of, fields=fields, files={"image": image})


def _parts(item: Item) -> dict[str, Any]:
    """Return what an item has: its text, and the bytes of its image. An empty path is what tables have for no image."""
    parts: dict[str, Any] = {}
    if (text := text_of(item.text)) is not None:
        parts["text"] = text
    image = item.image
    if image is not None and not is_missing(image) and not (isinstance(image, str) and not image):
        parts["image"] = bytes_of(image)
    return parts


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


def pack(index: int, row: object) -> Packed:
    """Read and encode an item or a row. Raises TypeError, OSError or ValueError for one that can't be sent."""
    item = item_of(row)
    document = _parts(item)
    if "image" in document:
        document["image"] = base64.b64encode(document["image"]).decode("ascii")
    return Packed(index, id_of(item), document)


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
    if (
        not isinstance(name, str)
        or not name
        or set(name) & set("/?#%\\")
        or not name.isprintable()
        or name in (".", "..")
    ):
        raise ValueError(f"model: {name!r}; allowed: a name of models()")
    return Call("GET", f"/v1/models/{name}", lambda document, _: ModelDetail.of(document))


def health(probe: str) -> Call[Health]:
    """One of the probes. Raises ValueError for any other."""
    if probe not in ("live", "started", "ready"):
        raise ValueError(f"probe: {probe!r}; allowed: live, started, ready")
    path = {"live": "/livez", "started": "/startupz", "ready": "/readyz"}[probe]
    return Call("GET", path, lambda document, _: Health.of(document), repeatable=False)
