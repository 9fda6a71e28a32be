"""What the service says, as small frozen objects. What a newer service adds is left out; what is missing is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from polymodal_client.errors import PolymodalError, error_of
from polymodal_client.pictures import Image

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How sure the model is of one label."""

    label: str
    score: float
    """Calibrated probability, from 0 to 1."""
    selected: bool | None = None
    """Whether the score reaches the label's own threshold; only of a multi-label model."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(document["label"], document["score"], document.get("selected"))


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a number probably lies."""

    low: float
    high: float
    coverage: float

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(document["low"], document["high"], document["coverage"])


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer about one example."""

    model: str
    digest: str
    """The model's version."""
    modalities: tuple[str, ...]
    """The inputs that were used."""
    labels: tuple[LabelScore, ...]
    """Best first; empty for a regression."""
    value: float | None = None
    """The number; only of a regression."""
    interval: Interval | None = None
    request_id: str = ""
    """As in the service's log."""

    @property
    def best(self) -> LabelScore:
        """The label of the highest score. Raises LookupError where there is none: a regression, a high threshold."""
        if not self.labels:
            raise LookupError("this answer has no labels: a regression has a value, and a threshold may leave none")
        return self.labels[0]

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read it."""
        interval = document.get("interval")
        return cls(
            model=document["model"],
            digest=document["digest"],
            modalities=tuple(document["modalities"]),
            labels=tuple(map(LabelScore.of, document["labels"])),
            value=document.get("value"),
            interval=None if interval is None else Interval.of(interval),
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a batch; image or text may be missing: None, NaN or pandas.NA."""

    image: Image | None = None
    text: str | None = None
    id: str | None = None
    """Comes back with the answer."""


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """What became of one item of a batch."""

    index: int
    """Its position among the items that were given, from 0."""
    id: str | None
    classification: Classification | None
    error: Exception | None
    """Why there is none: a PolymodalError, or what the row or its image raised when it was read here."""

    def result(self) -> Classification:
        """The classification, or raise the error."""
        if self.classification is None:
            raise self.error or PolymodalError("no answer")
        return self.classification

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read it; the index is the one within its request."""
        found, problem = document.get("classification"), document.get("problem")
        if (found is None) == (problem is None):
            raise ValueError("neither a classification nor a problem")
        return cls(
            index=int(document["index"]),
            id=document.get("id"),
            classification=None if found is None else Classification.of(found, request_id),
            error=None if problem is None else error_of(problem),
        )


@dataclass(frozen=True, slots=True)
class Input:
    """What one modality accepts."""

    name: str
    media_types: tuple[str, ...]
    limits: Mapping[str, int]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(document["name"], tuple(document["media_types"]), dict(document["limits"]))


@dataclass(frozen=True, slots=True)
class Model:
    """One served model."""

    name: str
    digest: str
    task: str
    """single-label, multi-label or regression."""
    labels: tuple[str, ...]
    inputs: tuple[Input, ...]
    runtime: str
    thresholds: Mapping[str, float] | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(**_summary(document))


@dataclass(frozen=True, slots=True)
class ModelDetail(Model):
    """One served model with its card and its measured quality."""

    card: str = ""
    """The model card, in Markdown."""
    report: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(**_summary(document), card=document["card"], report=document["report"])


def _summary(document: Document) -> dict[str, Any]:
    return {
        "name": document["name"],
        "digest": document["digest"],
        "task": document["task"],
        "labels": tuple(document["labels"]),
        "inputs": tuple(map(Input.of, document["inputs"])),
        "runtime": document["runtime"],
        "thresholds": document.get("thresholds"),
    }


@dataclass(frozen=True, slots=True)
class Models:
    """All served models."""

    default: str
    """The one that answers when a request names none."""
    models: tuple[Model, ...]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(document["default"], tuple(map(Model.of, document["models"])))


@dataclass(frozen=True, slots=True)
class Health:
    """A passed probe; a failed one raises Unavailable."""

    state: str
    """starting, ready or draining."""
    models: tuple[str, ...]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it."""
        return cls(document["state"], tuple(document["models"]))
