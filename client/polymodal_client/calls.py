"""Descriptions of calls: what is sent, and how the answer is read. Needs no connection and no clock."""

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from polymodal_client.answers import (
    Classification,
    Embedding,
    Health,
    Index,
    Item,
    ItemAnswer,
    ModelDetail,
    Models,
    SearchAnswer,
    Similarity,
    Transcription,
)
from polymodal_client.errors import error_of
from polymodal_client.items import id_of, inputs_of, item_of, rows_of

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, and the function that reads its answer; it can be sent any number of times."""

    method: str
    path: str
    read: Callable[[Any, str], Answer] = field(repr=False)
    """From a JSON document and the request's id. Raises LookupError, TypeError or ValueError for another document."""
    json: Any = field(default=None, repr=False)
    fields: Mapping[str, str] | None = field(default=None, repr=False)
    """Of a form."""
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    repeatable: bool = True
    """Whether it may be retried. Probes may not, because their failure is the answer."""


def whole_number(name: str, value: Any) -> int:  # noqa: ANN401
    """Return an int for any whole number, also of numpy. Raises TypeError or ValueError, which names the option."""
    number = real_number(name, value, "a whole number")
    if not number.is_integer():
        raise ValueError(f"{name}: {value}; allowed: a whole number")
    return int(number)


def real_number(name: str, value: Any, allowed: str = "a number") -> float:  # noqa: ANN401
    """Return a float for any finite number, also of numpy. Raises TypeError or ValueError, which names the option."""
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


@dataclass(frozen=True, slots=True)
class Packed:
    """An item whose files are read and encoded."""

    index: int
    """Position among all items."""
    id: str | None
    document: Mapping[str, str]

    @property
    def size(self) -> int:
        """Approximate number of characters in JSON."""
        return sum(map(len, self.document.values()))


def pack(index: int, row: object) -> Packed:
    """Read and encode an item or a row. Raises TypeError, OSError or ValueError for one that can't be sent."""
    inputs = inputs_of(item_of(row), _RESERVED)
    document = {
        name: value if isinstance(value, str) else base64.b64encode(value).decode("ascii")
        for name, value in inputs.items()
    }
    return Packed(index, id_of(row), document)


class Operation(Protocol[Answer]):
    """A task or a search, which describes the call for one item."""

    def call(self, item: Item) -> Call[Answer]:
        """Describe a call. Raises OSError, TypeError or ValueError for an input that can't be sent."""


def _call(
    path: str,
    read: Callable[[Any, str], Answer],
    options: Mapping[str, Any],
    item: Item,
    member: str | None = None,
) -> Call[Answer]:
    """Describe a call for one item: a form if it has files, otherwise JSON, with the inputs in an object `member` if one is named.

    Raises OSError, TypeError or ValueError for an input that can't be sent.
    """
    inputs = inputs_of(item, _RESERVED)
    files = {name: value for name, value in inputs.items() if isinstance(value, bytes)}
    if not files:
        return Call("POST", path, read, json={**options, **({member: inputs} if member else inputs)})
    fields = {**options, **{name: value for name, value in inputs.items() if isinstance(value, str)}}
    return Call("POST", path, read, fields={name: _in_form(value) for name, value in fields.items()}, files=files)


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """A task of the service with its options: calls for one item and for many, and the function that reads an answer."""

    name: str
    """Its routes are /v1/NAME and /v1/NAME/batch."""
    member: str
    """The answer's name in an item of a batch."""
    read: Callable[[Any, str], Answer] = field(repr=False)
    """From a JSON document and the request's id."""
    options: Mapping[str, Any]

    def call(self, item: Item) -> Call[Answer]:
        """Describe a call for one item: a form if it has files, otherwise JSON.

        Raises OSError, TypeError or ValueError for an input that can't be sent.
        """
        return _call(f"/v1/{self.name}", self.read, self.options, item)

    def batch_call(self, items: Sequence[Packed]) -> Call[tuple[ItemAnswer[Answer], ...]]:
        """Describe a call for many items. Ids are not sent, because the answers are in the items' order."""

        def read(document: Any, request_id: str) -> tuple[ItemAnswer[Answer], ...]:  # noqa: ANN401 — JSON
            answers = document["items"]
            if [int(answer["index"]) for answer in answers] != list(range(len(items))):
                raise ValueError("not one answer for each item")
            return tuple(self._item(item, answer, request_id) for item, answer in zip(items, answers, strict=True))

        body = {**self.options, "items": [item.document for item in items]}
        return Call("POST", f"/v1/{self.name}/batch", read, json=body)

    def _item(self, item: Packed, document: Mapping[str, Any], request_id: str) -> ItemAnswer[Answer]:
        answer, problem = document.get(self.member), document.get("problem")
        if (answer is None) == (problem is None):
            raise ValueError("neither an answer nor a problem")
        return ItemAnswer(
            index=item.index,
            id=item.id,
            answer=None if answer is None else self.read(answer, request_id),
            error=None if problem is None else error_of(problem),
        )


def classify(
    model: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    candidate_labels: Sequence[str] | None = None,
    prior: float | None = None,
) -> Task[Classification]:
    """Return the task classify. Raises TypeError or ValueError for an option of another type."""
    options = _validated(model=model, top_k=top_k, threshold=threshold, candidate_labels=candidate_labels, prior=prior)
    return Task("classify", "classification", Classification.of, options)


def embed(model: str | None = None, space: str | None = None, fused: bool | None = None) -> Task[Embedding]:
    """Return the task embed. Raises TypeError for an option of another type."""
    return Task("embed", "embedding", Embedding.of, _validated(model=model, space=space, fused=fused))


def transcribe(**options: object) -> Task[Transcription]:
    """Return the task transcribe. Raises TypeError or ValueError for an option of another type."""
    return Task("transcribe", "transcription", Transcription.of, _validated(**options))


def similarity(
    query: object,
    candidates: object,
    model: str | None = None,
    top_k: int | None = None,
    prior: float | None = None,
) -> Call[Similarity]:
    """Describe the comparison of a query with candidates, whose files are read. Raises the errors of `pack`.

    Ids are not sent, because the answer has the positions.
    """
    options = _validated(model=model, top_k=top_k, prior=prior)
    packed = [pack(index, candidate) for index, candidate in enumerate(rows_of(candidates, "candidates"))]
    ids = [item.id for item in packed]
    body = {**options, "query": pack(0, query).document, "candidates": [item.document for item in packed]}
    return Call(
        "POST", "/v1/similarity", lambda document, request_id: Similarity.of(document, request_id, ids), json=body
    )


@dataclass(frozen=True)
class Search:
    """A search with its options."""

    options: Mapping[str, Any]

    def call(self, item: Item) -> Call[SearchAnswer]:
        """Describe a call for one query: a form if it has files, otherwise JSON.

        Raises OSError, TypeError or ValueError for an input that can't be sent.
        """
        return _call("/v1/search", SearchAnswer.of, self.options, item, "query")


def search(
    index: str | None = None,
    top_k: int | None = None,
    filter: Mapping[str, str | int | float | bool] | None = None,
    min_match: float | None = None,
    prior: float | None = None,
) -> Search:
    """Return a search. Raises TypeError or ValueError for an option of another type."""
    return Search(_validated(index=index, top_k=top_k, filter=filter, min_match=min_match, prior=prior))


def indexes() -> Call[tuple[Index, ...]]:
    """Describe the call for the indexes."""
    return Call("GET", "/v1/indexes", lambda document, _: tuple(map(Index.of, document["indexes"])))


def task(name: str, options: Mapping[str, Any]) -> Task[Mapping[str, Any]]:
    """Return a task by its name, whose answer is a JSON document. Raises ValueError for an impossible name."""
    if not _TASK_NAME.fullmatch(name):
        raise ValueError(f"task: {name!r}; allowed: a name in `tasks` of a model")
    return Task(name, name, lambda document, _: dict(document), options)


def _validated(**options: object) -> dict[str, Any]:
    """Return the options that are set. Raises TypeError or ValueError for a value of another type."""
    return {name: _OPTIONS[name](name, value) for name, value in options.items() if value is not None}


def _in_form(value: Any) -> str:  # noqa: ANN401
    """Return a field of a form: a list, an object or a boolean as JSON, because forms have none."""
    return json.dumps(value) if isinstance(value, bool | list | tuple | dict) else str(value)


def _name(allowed: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str):
            raise TypeError(f"{name}: {type(value).__name__}; allowed: {allowed}")
        return value

    return check


def _flag(name: str, value: Any) -> bool:  # noqa: ANN401
    if not isinstance(value, bool):
        raise TypeError(f"{name}: {type(value).__name__}; allowed: True or False")
    return value


def _texts(name: str, value: Any) -> list[str]:  # noqa: ANN401
    texts = [] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name}: {type(value).__name__}; allowed: an iterable of at least one text")
    return texts


def _values(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: {type(value).__name__}; allowed: a mapping of keys to texts, numbers or bools")
    return {
        key: entry if isinstance(entry, str | bool | int) else real_number(f"{name}: {key}", entry)
        for key, entry in value.items()
    }


_OPTIONS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "model": _name("a name of models()"),
    "top_k": whole_number,
    "threshold": real_number,
    "candidate_labels": _texts,
    "prior": real_number,
    "space": _name("a space of the model"),
    "fused": _flag,
    "index": _name("a name of indexes()"),
    "filter": _values,
    "min_match": real_number,
    "language": _name("a code such as en"),
    "prompt": _name("a text"),
    "phrases": _texts,
    "candidates": _texts,
    "words": _flag,
    "temperature": real_number,
}
"""The options of all tasks, with the functions that validate them."""
_TASK_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MODEL_NAME: Final = re.compile(r"[^/?#%\\]+")
_RESERVED: Final = frozenset({"id", "items", "query", *_OPTIONS})
"""Fields of a request that are not inputs."""


def models() -> Call[Models]:
    """Describe the call for the served models."""
    return Call("GET", "/v1/models", lambda document, _: Models.of(document))


def model(name: str) -> Call[ModelDetail]:
    """Describe the call for one model with its card. Raises ValueError for an impossible name."""
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name) or not name.isprintable() or name in (".", ".."):
        raise ValueError(f"model: {name!r}; allowed: a name of models()")
    return Call("GET", f"/v1/models/{name}", lambda document, _: ModelDetail.of(document))


def health(probe: str) -> Call[Health]:
    """Describe the call of a probe. Raises ValueError for an unknown one."""
    if probe not in ("live", "started", "ready"):
        raise ValueError(f"probe: {probe!r}; allowed: live, started, ready")
    path = {"live": "/livez", "started": "/startupz", "ready": "/readyz"}[probe]
    return Call("GET", path, lambda document, _: Health.of(document), repeatable=False)
