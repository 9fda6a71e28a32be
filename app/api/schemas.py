"""Schemas of requests and answers. Those of tasks are derived from MODALITIES and TASKS."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from polymodal.app.settings import Settings
from polymodal.model import MODALITIES, Description, InputSpec, Schema, Space, Task, tasks_of


def _encodable(text: str) -> str:
    """Raise pydantic's own error for half of a surrogate pair, which pydantic detects only in strings with other limits."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "half of a surrogate pair") from None
    return text


class ModelChoice(Schema):
    """The choice of a model."""

    model: Annotated[str, AfterValidator(_encodable)] | None = None
    """Name of the model; by default the first one of /v1/models."""


def _derived(name: str, *bases: type[Schema], about: str | None = None, **fields: Any) -> type[Schema]:  # noqa: ANN401
    """Create a schema without docstrings of fields, for which pydantic would search its source for 10 ms or more."""
    options = {"use_attribute_docstrings": False}
    return create_model(name, __base__=bases or Schema, __doc__=about, __cls_kwargs__=options, **fields)


# --- inputs, from the table of modalities ---

_BLANK = "a text without visible characters counts as missing."


def _in_json(name: str) -> Any:  # noqa: ANN401 — the type and default of a field for `create_model`
    if MODALITIES[name].textual:
        return str | None, Field(None, description=f"The {name}; {_BLANK}")
    spelling = "in the standard or the URL-safe alphabet, with or without padding; or as a data: URI."
    return str | None, Field(None, description=f"The {name} file as base64, {spelling}")


def _in_form(name: str) -> Any:  # noqa: ANN401
    if MODALITIES[name].textual:
        text = f"The {name}, in UTF-8 or the charset that its part declares; {_BLANK}"
        return str | None, Field(None, description=text)
    file = f"The {name} file; its format is determined from its bytes, not its name or declared type."
    return bytes | None, Field(None, description=file, json_schema_extra={"format": "binary"})


Example = _derived(
    "Example", about="One example. Any of its inputs may be missing.", **{name: _in_json(name) for name in MODALITIES}
)
_Form = _derived("_Form", **{name: _in_form(name) for name in MODALITIES})
BatchItem = _derived(
    "BatchItem",
    Example,
    about="One item of a batch.",
    id=(Annotated[str, Field(max_length=128)] | None, Field(None, description="Returned with the item's answer.")),
)


# --- bodies and answers of a task ---


@dataclass(frozen=True, slots=True)
class TaskSchemas:
    """The schemas of one task; their names are those in OpenAPI."""

    choice: type[Schema]
    """The options and the choice of a model."""
    form: type[Schema]
    body: type[Schema]
    batch_body: type[Schema]
    batch_answer: type[Schema]
    batch_answers: type[Schema]


@cache
def schemas_of(task: Task) -> TaskSchemas:
    """Derive the schemas of a task."""
    name, options, path = task.name.capitalize(), task.Options, f"POST /v1/{task.name}"
    about = f"The multipart form of {path}. Numbers are written as in JSON."
    items: Any = Annotated[list[BatchItem], Field(min_length=1)]  # type: ignore[valid-type]  # derived above
    answer = _derived(
        f"{task.batch_name}Answer",
        about=f"The answer for one item: `{task.result}` when `status` is 200, otherwise `problem`.",
        index=(int, Field(description="Position in the request, from 0.")),
        id=(str | None, Field(None, description="The item's id, if it has one.")),
        status=(int, Field(description="The status that a request for this item alone would have.")),
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
            items=(items, Field(description="The items. Each is answered independently of the others.")),
        ),
        batch_answer=answer,
        batch_answers=_derived(
            f"{task.batch_name}Answers",
            about="The answers for all items, in their order.",
            items=(list[answer], ...),  # type: ignore[valid-type]
        ),
    )


# --- everything else ---


class Problem(BaseModel):
    """A problem, as in RFC 9457."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    type: str
    """The kind of problem as a URI, which ends with the code."""
    title: str
    """The kind of problem in words."""
    status: int
    """The HTTP status."""
    detail: str
    """This occurrence: the input, what was found and what is allowed."""
    instance: str
    """The request's id, as in X-Request-Id and the log."""
    code: str
    """Stable name of the kind of problem for programs."""
    input: str | None = None
    """The input or field with the problem, if it is about one."""
    found: str | None = None
    """What the service found in it."""
    allowed: str | None = None
    """What it accepts instead."""


class Input(Schema):
    """One input of a model, with its limits."""

    name: str
    textual: bool
    """Whether it is a string in JSON. Otherwise it is a file, which is base64 in JSON."""
    media_types: list[str]
    limits: dict[str, int]
    """Limits of the model and of the service. The names contain the units."""

    @classmethod
    def of(cls, spec: InputSpec, settings: Settings) -> Self:
        """Return an input with the model's limits and the service's limit of bytes."""
        limits = {**spec.limits, "max_bytes": settings.max_input_bytes(spec.name)}
        textual = MODALITIES[spec.name].textual
        return cls(name=spec.name, textual=textual, media_types=list(spec.media_types), limits=limits)


class EmbeddingSpace(Schema):
    """The vectors that a model computes from inputs by default, and its other spaces."""

    dimensions: int
    aligned: bool
    """Whether vectors of different modalities are comparable."""
    spaces: dict[str, int]
    """Dimensions by space: the values of the option `space`; the first is the default."""
    matches: list[str]
    """Pairs of sets of modalities for which `match` was calibrated, for example image~text."""

    @classmethod
    def of(cls, description: Description) -> Self | None:
        """Return the embedding space of a model; None when it has none."""
        if not description.spaces:
            return None
        space, dimensions = next(iter(description.spaces.items()))
        aligned = space == Space.ALIGNED
        return cls(
            dimensions=dimensions, aligned=aligned, spaces=dict(description.spaces), matches=sorted(description.matches)
        )


class ModelSummary(Schema):
    """One served model."""

    name: str
    digest: str
    """The version: the SHA-256 of the model's files."""
    kind: str
    """How the model is built and run, for example network."""
    tasks: list[str]
    """The tasks of the model, for POST /v1/TASK."""
    target: str | None = None
    """What the model was trained to predict: single-label, multi-label or regression. Models that only embed have none."""
    task: Annotated[str | None, Field(deprecated=True)] = None
    """The former name of target, a copy of it."""
    labels: list[str]
    """Empty for a regression, and without a target."""
    thresholds: dict[str, float] | None = None
    """The least score of each selected label; only multi-label models have them."""
    inputs: list[Input]
    embeddings: EmbeddingSpace | None = None
    """Only models with the task embed have one."""
    runtime: str
    """What executes the model, for example onnx or torch."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return the summary of a model."""
        return cls(**_summary(description, settings))


class ModelDetail(ModelSummary):
    """One served model with its card and its measured quality."""

    card: str
    """The model card, in Markdown."""
    report: dict[str, Any]
    """Metrics by label and by set of modalities, and how they were measured."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return all details of a model."""
        return cls(**_summary(description, settings), card=description.card, report=dict(description.report))


class Models(Schema):
    """All served models."""

    default: str
    """The model that is used when a request names none."""
    models: list[ModelSummary]


class Health(Schema):
    """A passed probe."""

    status: str
    """Always "ok", because a failed probe returns a problem."""
    state: str
    """starting, ready or draining."""
    models: list[str]


def _summary(description: Description, settings: Settings) -> dict[str, Any]:
    return {
        "name": description.name,
        "digest": description.digest,
        "kind": description.kind,
        "tasks": list(tasks_of(description)),
        "target": description.target or None,
        "task": description.target or None,
        "labels": list(description.labels),
        "thresholds": description.thresholds,
        "inputs": [Input.of(spec, settings) for spec in description.inputs],
        "embeddings": EmbeddingSpace.of(description),
        "runtime": description.runtime,
    }
