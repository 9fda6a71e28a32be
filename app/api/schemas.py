"""Schemas of requests and answers: those of tasks, derived from MODALITIES and TASKS, and all others."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from polymodal.app.settings import Settings
from polymodal.model import MODALITIES, Description, InputSpec, Schema, Task, tasks_of


def _encodable(text: str) -> str:
    """Raise pydantic's own error for half of a surrogate pair, which it detects only in strings with other limits."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "half of a surrogate pair") from None
    return text


class ModelChoice(Schema):
    """The choice of a model."""

    model: Annotated[str, AfterValidator(_encodable)] | None = None
    """Name of the model; the first of /v1/models unless given."""


def _derived(name: str, *bases: type[Schema], about: str | None = None, **fields: Any) -> type[Schema]:  # noqa: ANN401
    """Create a schema. It has no source that pydantic could search for docstrings, which takes 10 ms or more."""
    options = {"use_attribute_docstrings": False}
    return create_model(name, __base__=bases or Schema, __doc__=about, __cls_kwargs__=options, **fields)


# --- inputs, from the table of modalities ---

_BLANK = "one that shows nothing (empty, blank, zero-width characters alone) counts as missing."


def _in_json(name: str) -> Any:  # noqa: ANN401 — a field's type and its default, as `create_model` takes them
    if MODALITIES[name].textual:
        return str | None, Field(None, description=f"The {name}; {_BLANK}")
    spelling = "of the standard alphabet or the one for URLs, with or without padding; or as a data: URI."
    return str | None, Field(None, description=f"The {name} file as base64, {spelling}")


def _in_form(name: str) -> Any:  # noqa: ANN401
    if MODALITIES[name].textual:
        text = f"The {name}, in UTF-8 or the charset that its part declares; {_BLANK}"
        return str | None, Field(None, description=text)
    file = f"The {name} file; its format is determined from its bytes, not its name or declared type."
    return bytes | None, Field(None, description=file, json_schema_extra={"format": "binary"})


Example = _derived(
    "Example",
    about="One example; any of its inputs may be missing.",
    **{name: _in_json(name) for name in MODALITIES},
)
_Form = _derived("_Form", **{name: _in_form(name) for name in MODALITIES})
BatchItem = _derived(
    "BatchItem",
    Example,
    about="One item of a batch.",
    id=(Annotated[str, Field(max_length=128)] | None, Field(None, description="Comes back with the item's answer.")),
)


# --- bodies and answers of a task ---


@dataclass(frozen=True, slots=True)
class TaskSchemas:
    """The schemas of one task; their names are those in OpenAPI."""

    choice: type[Schema]
    """The options and the model."""
    form: type[Schema]
    body: type[Schema]
    batch_body: type[Schema]
    batch_answer: type[Schema]
    batch_answers: type[Schema]


@cache
def schemas_of(task: Task) -> TaskSchemas:
    """Derive the schemas of a task."""
    name, options, path = task.name.capitalize(), task.Options, f"POST /v1/{task.name}"
    about = f"The multipart form of {path}. Its numbers are written as in JSON."
    items: Any = Annotated[list[BatchItem], Field(min_length=1)]  # type: ignore[valid-type]  # derived above
    answer = _derived(
        f"{task.batch_name}Answer",
        about=f"One item's answer: `{task.result}` when `status` is 200, else `problem`.",
        index=(int, Field(description="Position in the request, from 0.")),
        id=(str | None, Field(None, description="The item's own id, if it gave one.")),
        status=(int, Field(description="What the status would have been had the item come alone.")),
        **{task.result: (task.Answer | None, None)},
        problem=(Problem | None, None),
    )
    return TaskSchemas(
        choice=_derived(f"{name}Choice", ModelChoice, options),
        form=_derived(f"{name}Form", ModelChoice, options, _Form, about=about),
        body=_derived(f"{name}Body", ModelChoice, options, Example, about=f"The JSON body of {path}."),
        batch_body=_derived(
            f"{task.batch_name}Body",
            ModelChoice,
            options,
            about=f"The JSON body of {path}/batch.",
            items=(items, Field(description="Items that are answered independently: a bad one fails alone.")),
        ),
        batch_answer=answer,
        batch_answers=_derived(
            f"{task.batch_name}Answers",
            about="The answers about all items, in their order.",
            items=(list[answer], ...),  # type: ignore[valid-type]
        ),
    )


# --- everything else ---


class Problem(BaseModel):
    """A problem, as in RFC 9457."""

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
    """What is allowed there."""


class Input(Schema):
    """What one modality accepts."""

    name: str
    textual: bool
    """Whether it is a string in JSON; otherwise it is a file, in JSON as base64."""
    media_types: list[str]
    limits: dict[str, int]
    """Named with their unit, the model's as well as the service's own."""

    @classmethod
    def of(cls, spec: InputSpec, settings: Settings) -> Self:
        """Return an input with the model's limits, and the service's limit of bytes."""
        limits = {**spec.limits, "max_bytes": settings.max_input_bytes(spec.name)}
        textual = MODALITIES[spec.name].textual
        return cls(name=spec.name, textual=textual, media_types=list(spec.media_types), limits=limits)


class EmbeddingSpace(Schema):
    """The vectors that a model makes of inputs."""

    dimensions: int
    aligned: bool
    """Whether vectors of different modalities may be compared."""

    @classmethod
    def of(cls, description: Description) -> Self | None:
        """Return the embedding space of a model; None when it has none."""
        if not description.dimensions:
            return None
        return cls(dimensions=description.dimensions, aligned=description.aligned)


class ModelSummary(Schema):
    """One served model."""

    name: str
    digest: str
    """Version: the SHA-256 of its files."""
    kind: str
    """How the model is built and run, such as network."""
    tasks: list[str]
    """The tasks of the model: POST /v1/TASK."""
    target: str
    """What it was trained to predict: single-label, multi-label or regression."""
    task: Annotated[str, Field(deprecated=True)]
    """The former name of target, a copy of it."""
    labels: list[str]
    """Empty for a regression."""
    thresholds: dict[str, float] | None = None
    """By label, the score from which on it is selected; only of a multi-label model."""
    inputs: list[Input]
    embeddings: EmbeddingSpace | None = None
    """Of models with the task embed."""
    runtime: str
    """What executes it, e.g. onnx or torch."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return the summary of a model."""
        return cls(**_summary(description, settings))


class ModelDetail(ModelSummary):
    """One served model with its card and its measured quality."""

    card: str
    """The model card, in Markdown."""
    report: dict[str, Any]
    """Metrics per label and per set of modalities, and how they were measured."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return all details of a model."""
        return cls(**_summary(description, settings), card=description.card, report=dict(description.report))


class Models(Schema):
    """All served models."""

    default: str
    """The model that answers when a request names none."""
    models: list[ModelSummary]


class Health(Schema):
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
        "kind": description.kind,
        "tasks": list(tasks_of(description)),
        "target": description.target,
        "task": description.target,
        "labels": list(description.labels),
        "thresholds": description.thresholds,
        "inputs": [Input.of(spec, settings) for spec in description.inputs],
        "embeddings": EmbeddingSpace.of(description),
        "runtime": description.runtime,
    }
