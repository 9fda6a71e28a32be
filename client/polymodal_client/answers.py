"""The service's answers as frozen objects. Unknown fields of a newer service are ignored; missing fields are errors."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from polymodal_client.errors import PolymodalError, ProblemError, error_of
from polymodal_client.files import File, Image

Document = Mapping[str, Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class LabelScore:
    """The score of one label."""

    label: str
    score: float
    """Calibrated probability, from 0 to 1."""
    selected: bool | None = None
    """Whether the score reaches the label's own threshold; only of a multi-label model, and of candidate labels."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(document["label"], document["score"], document.get("selected"))


@dataclass(frozen=True, slots=True)
class Interval:
    """The range that probably contains the true number."""

    low: float
    high: float
    coverage: float

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(document["low"], document["high"], document["coverage"])


@dataclass(frozen=True, slots=True)
class Classification:
    """The classification of one example."""

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
        """The label with the highest score. Raises LookupError if there is none: a regression, a high threshold."""
        if not self.labels:
            raise LookupError("this answer has no labels: a regression has a value, and a threshold may leave none")
        return self.labels[0]

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read the JSON document."""
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
class TranscribedWord:
    """A word of a transcript; its times are in seconds."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class TranscribedSegment:
    """A piece of a transcript; its times are in seconds."""

    text: str
    start: float
    end: float
    confidence: float
    words: tuple[TranscribedWord, ...] = ()
    """Only with the option words."""


@dataclass(frozen=True, slots=True)
class Transcription:
    """The words of a recording."""

    model: str
    digest: str
    """The model's version."""
    text: str
    """Empty if nothing was spoken; `reason` is then why."""
    segments: tuple[TranscribedSegment, ...]
    seconds: float
    speech_seconds: float
    silence_seconds: float
    language: str | None = None
    language_probability: float | None = None
    reason: str | None = None
    """silence, no_speech or no_words; None if there are words."""
    candidates: Mapping[str, float] | None = None
    """Probability by candidate, most probable first; None without candidates, and without speech."""
    warnings: tuple[str, ...] = ()
    request_id: str = ""
    """As in the service's log."""

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read the JSON document."""
        ranked = document.get("candidates")
        return cls(
            model=document["model"],
            digest=document["digest"],
            text=str(document["text"]),
            segments=tuple(map(_segment, document["segments"])),
            seconds=float(document["seconds"]),
            speech_seconds=float(document["speech_seconds"]),
            silence_seconds=float(document["silence_seconds"]),
            language=document.get("language"),
            language_probability=document.get("language_probability"),
            reason=document.get("reason"),
            candidates=None if ranked is None else {entry["text"]: float(entry["probability"]) for entry in ranked},
            warnings=tuple(document["warnings"]),
            request_id=request_id,
        )


def _segment(document: Document) -> TranscribedSegment:
    words = tuple(TranscribedWord(word["text"], *_times(word)) for word in document.get("words", ()))
    return TranscribedSegment(document["text"], *_times(document), words=words)


def _times(document: Document) -> tuple[float, float, float]:
    return float(document["start"]), float(document["end"]), float(document["confidence"])


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors of one example's inputs, in the space of the model."""

    model: str
    digest: str
    """The model's version."""
    modalities: tuple[str, ...]
    """The inputs that were used."""
    embeddings: Mapping[str, tuple[float, ...]]
    """By input, a vector of length 1."""
    aligned: bool
    """Whether vectors of different inputs may be compared; those of one input always may."""
    space: str = "classifier"
    """The space of the vectors."""
    fused: tuple[float, ...] | None = None
    """One vector for all inputs together; only if the option fused is set."""
    request_id: str = ""
    """As in the service's log."""

    @property
    def vector(self) -> tuple[float, ...]:
        """The vector of all inputs together, or of the only input. Raises LookupError where there are several."""
        if self.fused is not None:
            return self.fused
        if len(self.embeddings) != 1:
            raise LookupError(f"vector: embeddings of {', '.join(self.embeddings) or 'nothing'}; allowed: of one input")
        return next(iter(self.embeddings.values()))

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read the JSON document."""
        return cls(
            model=document["model"],
            digest=document["digest"],
            modalities=tuple(document["modalities"]),
            embeddings={name: tuple(map(float, vector)) for name, vector in document["embeddings"].items()},
            aligned=document["aligned"],
            space=document.get("space", "classifier"),
            fused=tuple(map(float, document["fused"])) if "fused" in document else None,
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """The query and one candidate."""

    index: int
    """Position of the candidate, from 0."""
    id: str | None
    cosine: float
    """From -1 to 1; no probability, and only comparable between pairs of the same inputs."""
    match: float | None
    """Probability that the two belong together; None where these inputs were not calibrated."""
    selected: bool | None
    """Whether the match reaches the threshold; None without a match."""
    modalities: tuple[str, ...]
    """The inputs of the candidate that were used."""
    threshold: float | None = None

    @classmethod
    def of(cls, document: Document, ids: Sequence[str | None]) -> Self:
        """Read the JSON document; `ids` are those of all candidates."""
        return cls(
            index=document["index"],
            id=ids[document["index"]],
            cosine=float(document["cosine"]),
            match=document.get("match"),
            selected=document.get("selected"),
            modalities=tuple(document["modalities"]),
            threshold=document.get("threshold"),
        )


@dataclass(frozen=True, slots=True)
class FailedCandidate:
    """A candidate that could not be compared."""

    index: int
    """Position of the candidate, from 0."""
    id: str | None
    error: ProblemError

    @classmethod
    def of(cls, document: Document, ids: Sequence[str | None]) -> Self:
        """Read the JSON document; `ids` are those of all candidates."""
        return cls(document["index"], ids[document["index"]], error_of(document["problem"]))


@dataclass(frozen=True, slots=True)
class Similarity:
    """The comparison of a query with candidates."""

    model: str
    digest: str
    """The model's version."""
    modalities: tuple[str, ...]
    """The inputs of the query that were used."""
    prior: float
    """Share of the pairs that belong together, which each match assumes."""
    pairs: tuple[Pair, ...]
    """Best first."""
    failed: tuple[FailedCandidate, ...]
    """The candidates with a problem, which are not among the pairs."""
    request_id: str = ""
    """As in the service's log."""

    @property
    def best(self) -> Pair:
        """The best pair. Raises LookupError if there is none, because every candidate failed."""
        if not self.pairs:
            raise LookupError("this answer has no pairs: every candidate failed")
        return self.pairs[0]

    @classmethod
    def of(cls, document: Document, request_id: str, ids: Sequence[str | None]) -> Self:
        """Read the JSON document; `ids` are those of all candidates."""
        return cls(
            model=document["model"],
            digest=document["digest"],
            modalities=tuple(document["modalities"]),
            prior=float(document["prior"]),
            pairs=tuple(Pair.of(pair, ids) for pair in document["pairs"]),
            failed=tuple(FailedCandidate.of(entry, ids) for entry in document["failed"]),
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """An item of an index that is similar to the query."""

    id: str
    cosine: float
    """Similarity of the vectors, from -1 to 1; no probability."""
    match: float | None
    """Probability that item and query belong together; None where their inputs were not calibrated."""
    modalities: tuple[str, ...]
    """The inputs of the item."""
    metadata: Mapping[str, str | int | float | bool]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        match = document.get("match")
        return cls(
            id=document["id"],
            cosine=float(document["cosine"]),
            match=None if match is None else float(match),
            modalities=tuple(document["modalities"]),
            metadata=dict(document["metadata"]),
        )


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The items of an index that are most similar to a query."""

    index: str
    """Name of the index."""
    model: str
    digest: str
    """The model's version."""
    modalities: tuple[str, ...]
    """The inputs of the query that were used."""
    prior: float
    """The share of items that belong to the query, which each match assumes."""
    hits: tuple[Hit, ...]
    """Best first."""
    request_id: str = ""
    """As in the service's log."""

    @classmethod
    def of(cls, document: Document, request_id: str) -> Self:
        """Read the JSON document."""
        return cls(
            index=document["index"],
            model=document["model"],
            digest=document["digest"],
            modalities=tuple(document["modalities"]),
            prior=float(document["prior"]),
            hits=tuple(map(Hit.of, document["hits"])),
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True)
class Index:
    """An index that can be searched."""

    name: str
    items: int
    digest: str
    """Version of the model that it was built with."""
    model: str
    filters: tuple[str, ...]
    """Keys that `filter` may have."""
    usable: bool
    """Whether that version is served."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        names = {name: document[name] for name in ("name", "items", "digest", "model", "usable")}
        return cls(**names, filters=tuple(document["filters"]))


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a batch; any input may be missing: None, NaN or pandas.NA."""

    image: Image | None = None
    text: str | None = None
    id: str | None = None
    """Returned with the answer."""
    inputs: Mapping[str, str | File | None] | None = None
    """Inputs of any modality by name; a str is a text, except that of image, which is a path."""


@dataclass(frozen=True, slots=True)
class ItemAnswer(Generic[Answer]):
    """The answer to one item of a batch, or why there is none."""

    index: int
    """Its position among all items, from 0."""
    id: str | None
    answer: Answer | None
    error: Exception | None
    """Why there is no answer: a PolymodalError, or the error of reading the row or one of its files."""

    @property
    def classification(self) -> Classification | None:
        """The answer of `classify_batch`."""
        return self.answer if isinstance(self.answer, Classification) else None

    def result(self) -> Answer:
        """Return the answer, or raise the error."""
        if self.answer is None:
            raise self.error or PolymodalError("no answer")
        return self.answer


@dataclass(frozen=True, slots=True)
class Input:
    """What one modality accepts."""

    name: str
    media_types: tuple[str, ...]
    limits: Mapping[str, int]
    textual: bool
    """Whether it is a text; otherwise it is a file."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document; for an older service, only the input text is textual."""
        name = document["name"]
        textual = document.get("textual", name == "text")
        return cls(name, tuple(document["media_types"]), dict(document["limits"]), textual)


@dataclass(frozen=True, slots=True)
class Model:
    """One served model."""

    name: str
    digest: str
    target: str | None
    """What it predicts: single-label, multi-label or regression; None for a model that only embeds."""
    labels: tuple[str, ...]
    inputs: tuple[Input, ...]
    runtime: str
    thresholds: Mapping[str, float] | None = None
    tasks: tuple[str, ...] = ("classify",)
    """The tasks that it can be called for, such as classify and embed."""
    kind: str = "network"

    @property
    def task(self) -> str | None:
        """Deprecated name of `target`."""
        warnings.warn("Model.task is deprecated: use Model.target", DeprecationWarning, stacklevel=2)
        return self.target

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(**_summary(document))


@dataclass(frozen=True, slots=True)
class ModelDetail(Model):
    """One served model with its card and its measured quality."""

    card: str = ""
    """The model card, in Markdown."""
    report: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(**_summary(document), card=document["card"], report=document["report"])


def _summary(document: Document) -> dict[str, Any]:
    return {
        "name": document["name"],
        "digest": document["digest"],
        "target": document.get("target", document.get("task")),  # task: of an older service
        "labels": tuple(document["labels"]),
        "inputs": tuple(map(Input.of, document["inputs"])),
        "runtime": document["runtime"],
        "thresholds": document.get("thresholds"),
        "tasks": tuple(document.get("tasks", ("classify",))),
        "kind": document.get("kind", "network"),
    }


@dataclass(frozen=True, slots=True)
class Models:
    """All served models."""

    default: str
    """Name of the model for requests that name none."""
    models: tuple[Model, ...]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(document["default"], tuple(map(Model.of, document["models"])))


@dataclass(frozen=True, slots=True)
class Health:
    """A passed probe; a failed one raises Unavailable."""

    state: str
    """starting, ready or draining."""
    models: tuple[str, ...]

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read the JSON document."""
        return cls(document["state"], tuple(document["models"]))
