"""What clients send and see; the examples here are the examples in OpenAPI."""

from dataclasses import asdict
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.service import Outcome
from app.settings import Settings
from model import Description, InputSpec

_DIGEST = "9f2c41d7a0b35e88c6f1d2047b9ae3515dd0c7e6f84a2b913c605e7f18d4ab20"
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


def _integral(value: object) -> object:
    """Return an integer for a number that JSON Schema counts as one: 3.0 and 3e0 are 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _encodable(text: str) -> str:
    """Raise pydantic's own error for half of a surrogate pair, which it finds only in strings with other limits."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "half of a surrogate pair") from None
    return text


class _Schema(BaseModel):
    """Frozen, closed, and documented by the sentences below its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Options(_Schema):
    """What to answer, and by which model."""

    top_k: Annotated[int, Field(ge=1), BeforeValidator(_integral)] | None = None
    """Answer only the best labels, at most this many; from 1 to the number of labels; 3.0 is 3. Not for a regression."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Answer only labels with at least this score. Not for a regression."""
    model: Annotated[str, AfterValidator(_encodable)] | None = None
    """Name of the model; the first of /v1/models unless given."""


class Example(_Schema):
    """One picture with its text; either may be missing."""

    image: str | None = None
    """The image file as base64, of the standard alphabet or the one for URLs, with or without padding; or as a data: URI."""
    text: str | None = None
    """The text; one that shows nothing (empty, blank, zero-width characters alone) counts as missing."""


class ClassifyForm(Options):
    """The multipart form of POST /v1/classify; documents it, `app.body` reads it. Its numbers are written as in JSON."""

    image: Annotated[bytes | None, Field(json_schema_extra={"format": "binary"})] = None
    """The image file; its bytes say what it is, not its name or declared type."""
    text: str | None = None
    """The text, in UTF-8 or the charset that its part declares; one that shows nothing (empty, blank, zero-width characters
    alone) counts as missing."""


class ClassifyBody(Options, Example):
    """The JSON body of POST /v1/classify."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": _PIXEL, "text": "a small boat on a lake", "top_k": 3}]}
    )


class BatchItem(Example):
    """One item of a batch."""

    id: Annotated[str, Field(max_length=128)] | None = None
    """Comes back with the item's answer."""


class BatchBody(Options):
    """The JSON body of POST /v1/classify/batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"id": "a", "text": "a small boat on a lake"}, {"id": "b", "image": "bm90IGFuIGltYWdl"}]}
            ]
        }
    )

    items: Annotated[list[BatchItem], Field(min_length=1)]
    """Each is answered on its own: a bad one fails alone."""


class LabelScore(_Schema):
    """How sure the model is of one label."""

    label: str
    score: float
    """Calibrated probability from 0 to 1."""
    selected: bool | None = None
    """Whether the score reaches the label's own threshold; only in the answers of a multi-label model."""


class Range(_Schema):
    """Where a number probably lies."""

    low: float
    high: float
    coverage: float
    """For which part of examples like those of the validation part the right number is in there."""


class Classification(_Schema):
    """The answer about one example."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "illustrations",
                    "digest": _DIGEST,
                    "modalities": ["image", "text"],
                    "labels": [{"label": "transport", "score": 0.91}, {"label": "places", "score": 0.06}],
                },
                {
                    "model": "tags",
                    "digest": _DIGEST,
                    "modalities": ["image", "text"],
                    "labels": [
                        {"label": "boat", "score": 0.88, "selected": True},
                        {"label": "lake", "score": 0.47, "selected": True},
                        {"label": "harbour", "score": 0.31, "selected": False},
                    ],
                },
                {
                    "model": "prices",
                    "digest": _DIGEST,
                    "modalities": ["text"],
                    "labels": [],
                    "value": 129.5,
                    "interval": {"low": 84.0, "high": 175.0, "coverage": 0.9},
                },
            ]
        }
    )

    model: str
    """Name of the model that answered."""
    digest: str
    """Its version: the SHA-256 of its files."""
    modalities: list[str]
    """The inputs that were used."""
    labels: list[LabelScore]
    """Best first; only those that top_k and threshold let through. Empty for a regression."""
    value: float | None = None
    """The number; only in the answers of a regression."""
    interval: Range | None = None
    """Around the value; missing where the model can tell none."""

    @classmethod
    def of(cls, outcome: Outcome, options: Options) -> Self:
        """What the client asked to see of an outcome."""
        prediction = outcome.prediction
        selected, interval = prediction.selected, prediction.interval
        ranked = sorted(prediction.scores.items(), key=lambda entry: entry[1], reverse=True)
        return cls.model_construct(  # checking what we say ourselves would take longer than saying it
            model=outcome.description.name,
            digest=outcome.description.digest,
            modalities=sorted(prediction.used),
            labels=[
                LabelScore.model_construct(
                    label=label, score=score, selected=None if selected is None else label in selected
                )
                for label, score in ranked[: options.top_k]
                if options.threshold is None or score >= options.threshold
            ],
            value=prediction.value,
            interval=None if interval is None else Range(**asdict(interval)),
        )


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    type: str
    """The kind of problem, as a URI; it ends in the code."""
    title: str
    """The kind of problem, in words."""
    status: int
    """The HTTP status."""
    detail: str
    """This occurrence: the input, what was found and what is allowed."""
    instance: str
    """The request's id, as in X-Request-Id and in the log."""
    code: str
    """Stable name of the kind of problem, for programs."""
    input: str | None = None
    """The input at fault, when there is one."""
    found: str | None = None
    """What was found there."""
    allowed: str | None = None
    """What would do."""


class BatchAnswer(_Schema):
    """One item's answer: a classification when `status` is 200, else a problem."""

    index: int
    """Position in the request, from 0."""
    id: str | None = None
    """The item's own id, if it gave one."""
    status: int
    """What the status would have been had the item come alone."""
    classification: Classification | None = None
    problem: Problem | None = None


class BatchAnswers(_Schema):
    """The answers about all items, in their order."""

    items: list[BatchAnswer]


class Input(_Schema):
    """What one modality accepts."""

    name: str
    media_types: list[str]
    limits: dict[str, int]
    """Named with their unit, the model's as well as the service's own."""

    @classmethod
    def of(cls, spec: InputSpec, settings: Settings) -> Self:
        """The model's limits, and how many bytes the service reads."""
        max_bytes = {"image": settings.max_image_bytes, "text": settings.max_text_bytes}
        own = {"max_bytes": max_bytes[spec.name]} if spec.name in max_bytes else {}
        return cls(name=spec.name, media_types=list(spec.media_types), limits={**spec.limits, **own})


class ModelSummary(_Schema):
    """One served model."""

    name: str
    digest: str
    """Version: the SHA-256 of its files."""
    task: str
    """single-label, multi-label or regression."""
    labels: list[str]
    """Empty for a regression."""
    thresholds: dict[str, float] | None = None
    """By label, the score from which on it is selected; only of a multi-label model."""
    inputs: list[Input]
    runtime: str
    """What executes it, e.g. onnx or torch."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """A model in short."""
        return cls(**_summary(description, settings))


class ModelDetail(ModelSummary):
    """One served model with its card and its measured quality."""

    card: str
    """The model card, in Markdown."""
    report: dict[str, Any]
    """Metrics per label and per set of modalities, and how they were measured."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """A model in full."""
        return cls(**_summary(description, settings), card=description.card, report=dict(description.report))


class Models(_Schema):
    """All served models."""

    default: str
    """The model that answers when a request names none."""
    models: list[ModelSummary]


class Health(_Schema):
    """A passed probe."""

    status: str
    """"ok"; a failed probe is answered with a problem."""
    state: str
    """starting, ready or draining."""
    models: list[str]


def _summary(description: Description, settings: Settings) -> dict[str, Any]:
    return {
        "name": description.name,
        "digest": description.digest,
        "task": description.task,
        "labels": list(description.labels),
        "thresholds": description.thresholds,
        "inputs": [Input.of(spec, settings) for spec in description.inputs],
        "runtime": description.runtime,
    }
