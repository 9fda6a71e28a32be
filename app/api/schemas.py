"""Schemas of requests and answers. Those of tasks are derived from MODALITIES and TASKS."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from polymodal.app.serving.search import SEARCH, SearchResult
from polymodal.app.serving.similarity import SIMILARITY, Ranking, SimilarityOptions
from polymodal.app.settings import Settings
from polymodal.model import (
    EVEN,
    MODALITIES,
    Description,
    InputSpec,
    Modality,
    Schema,
    SearchIndex,
    Space,
    Task,
    TaskOptions,
    tasks_of,
)


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


def _in_json(name: str, modality: Modality) -> Any:  # noqa: ANN401 — the type and default of a field for `create_model`
    if modality.textual:
        return str | None, Field(None, description=f"The {name}; {_BLANK}")
    spelling = "in the standard or the URL-safe alphabet, with or without padding; or as a data: URI."
    return str | None, Field(None, description=f"The {name} file as base64, {spelling}")


def _in_form(name: str, modality: Modality) -> Any:  # noqa: ANN401
    if modality.textual:
        text = f"The {name}, in UTF-8 or the charset that its part declares; {_BLANK}"
        return str | None, Field(None, description=text)
    file = f"The {name} file; its format is determined from its bytes, not its name or declared type."
    return bytes | None, Field(None, description=file, json_schema_extra={"format": "binary"})


def inputs_of_operation(operation: object) -> Mapping[str, Modality]:
    """Return what a request of an operation may hold, by name."""
    inputs: Mapping[str, Modality] = getattr(operation, "inputs", MODALITIES)
    return inputs


def _schemas_of_inputs(prefix: str, inputs: Mapping[str, Modality]) -> tuple[type[Schema], type[Schema], type[Schema]]:
    """Derive the schemas of an example in JSON, of the item of a batch, and of a form that may hold these inputs."""
    example = _derived(
        f"{prefix}Example",
        about="One example. Any of its inputs may be missing.",
        **{name: _in_json(name, modality) for name, modality in inputs.items()},
    )
    id_ = (Annotated[str, Field(max_length=128)] | None, Field(None, description="Returned with the item's answer."))
    item = _derived(f"{prefix}BatchItem", example, about="One item of a batch.", id=id_)
    form = {name: _in_form(name, modality) for name, modality in inputs.items()}
    return example, item, _derived(f"_{prefix}Form", **form)


Example, BatchItem, _Form = _schemas_of_inputs("", MODALITIES)


# --- bodies and answers of a task ---


class Operation(Hashable, Protocol):
    """A task, or a workflow with options of its own."""

    @property
    def name(self) -> str:
        """Return the name, from which those of its schemas are derived."""

    Options: ClassVar[type[TaskOptions]]


def _bases_of(operation: Operation) -> tuple[type[Schema], ...]:
    """Return an operation's options with the choice of a model; an index has its own model."""
    return (operation.Options,) if "index" in operation.Options.model_fields else (ModelChoice, operation.Options)


@cache
def choice_of(operation: Operation) -> type[Schema]:
    """Derive the schema of an operation's options with the choice of a model."""
    return _derived(f"{operation.name.capitalize()}Choice", *_bases_of(operation))


@cache
def form_of(operation: Operation, about: str) -> type[Schema]:
    """Derive the schema of an operation's form."""
    about = f"The multipart form of POST /v1/{operation.name}{about}. Numbers are written as in JSON."
    return _derived(f"{operation.name.capitalize()}Form", *_bases_of(operation), _inputs_of(operation)[2], about=about)


@cache
def _inputs_of(operation: Operation) -> tuple[type[Schema], type[Schema], type[Schema]]:
    """Return the schemas of the inputs of an operation."""
    inputs = inputs_of_operation(operation)
    return (
        (Example, BatchItem, _Form) if inputs is MODALITIES else _schemas_of_inputs(operation.name.capitalize(), inputs)
    )


@dataclass(frozen=True, slots=True)
class TaskSchemas:
    """The schemas of one task; their names are those in OpenAPI."""

    choice: type[Schema]
    """The options and the choice of a model."""
    form: type[Schema]
    body: type[Schema]
    batch_body: type[Schema]
    batch_item: type[Schema]
    batch_answer: type[Schema]
    batch_answers: type[Schema]


@cache
def schemas_of(task: Task) -> TaskSchemas:
    """Derive the schemas of a task."""
    name, options, path = task.name.capitalize(), task.Options, f"POST /v1/{task.name}"
    example, item, _ = _inputs_of(task)
    items: Any = Annotated[list[item], Field(min_length=1)]  # type: ignore[valid-type]  # derived above
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
        choice=choice_of(task),
        form=form_of(task, ""),
        body=_derived(f"{name}Body", ModelChoice, options, example, about=f"The JSON body of {path}."),
        batch_body=_derived(
            f"{task.batch_name}Body",
            ModelChoice,
            options,
            about=f"The JSON body of {path}/batch.",
            items=(items, Field(description="The items. Each is answered independently of the others.")),
        ),
        batch_item=item,
        batch_answer=answer,
        batch_answers=_derived(
            f"{task.batch_name}Answers",
            about="The answers for all items, in their order.",
            items=(list[answer], ...),  # type: ignore[valid-type]
        ),
    )


# --- similarity ---


SimilarityForm = form_of(SIMILARITY, ", which has exactly two inputs: a query and a candidate")
SimilarityBody = _derived(
    "SimilarityBody",
    ModelChoice,
    SIMILARITY.Options,
    about="The JSON body of POST /v1/similarity.",
    query=(Example, Field(description="What the candidates are compared with.")),
    candidates=(
        Annotated[list[BatchItem], Field(min_length=1)],  # type: ignore[valid-type]  # derived above
        Field(description="Any inputs each. Every `id` occurs once."),
    ),
)


class SimilarityPair(Schema):
    """The query and one candidate."""

    index: int
    """Position of the candidate in the request, from 0."""
    id: str | None = None
    """The candidate's id, if it has one."""
    cosine: float
    """Cosine similarity of the two vectors, from -1 to 1. It is no probability, and only comparable between pairs of the same
    modalities."""
    match: float | None = None
    """Probability that the two belong together, at the prior; missing where these modalities were not calibrated."""
    threshold: float | None = None
    """Lowest match at which a pair of these modalities is selected."""
    selected: bool | None = None
    """Whether the match reaches the threshold."""
    modalities: list[str]
    """The inputs of the candidate that were used."""


class FailedCandidate(Schema):
    """A candidate that could not be compared."""

    index: int
    """Position of the candidate in the request, from 0."""
    id: str | None = None
    """The candidate's id, if it has one."""
    status: int
    """The status that a request for this candidate alone would have."""
    problem: "Problem"


class Similarity(Schema):
    """The comparison of a query with candidates."""

    model: str
    """Name of the model."""
    digest: str
    """The model's version: the SHA-256 of its files."""
    modalities: list[str]
    """The inputs of the query that were used."""
    prior: float
    """Share of the pairs that belong together, which each match assumes."""
    pairs: list[SimilarityPair]
    """Best first: by match, then those without a match by cosine. Limited by top_k."""
    failed: list[FailedCandidate]
    """The candidates with a problem, which are not among the pairs."""

    @classmethod
    def of(
        cls,
        ranking: Ranking,
        options: SimilarityOptions,
        ids: Sequence[str | None] = (None,),
        failed: Sequence["FailedCandidate"] = (),
    ) -> Self:
        """Return the answer for a ranking; `ids` are those of the candidates."""
        return cls(
            model=ranking.query.model,
            digest=ranking.query.digest,
            modalities=ranking.query.modalities,
            prior=options.prior or EVEN,
            pairs=[
                SimilarityPair(
                    index=pair.index,
                    id=ids[pair.index],
                    cosine=pair.cosine,
                    match=pair.match,
                    threshold=pair.threshold,
                    selected=pair.selected,
                    modalities=list(pair.modalities),
                )
                for pair in ranking.pairs[: options.top_k]
            ],
            failed=list(failed),
        )


# --- search ---


SearchForm = form_of(SEARCH, ", with the inputs of the query; `filter` is JSON")
SearchBody = _derived(
    "SearchBody",
    SEARCH.Options,
    about="The JSON body of POST /v1/search.",
    query=(Example, Field(description="What is searched for.")),
)


class SearchHit(Schema):
    """An item of an index that is similar to the query."""

    id: str
    cosine: float
    """Cosine similarity of the two vectors, from -1 to 1. It is no probability, and only comparable between items of the same
    modalities."""
    match: float | None = None
    """Probability that item and query belong together, at the prior; missing where these modalities were not calibrated."""
    modalities: list[str]
    """The inputs that the item's vector was computed from."""
    metadata: dict[str, str | int | float | bool]
    """As the index has it."""


class SearchAnswer(Schema):
    """The items of an index that are most similar to a query."""

    index: str
    """Name of the index."""
    model: str
    """Name of the model."""
    digest: str
    """The model's version: the SHA-256 of its files."""
    modalities: list[str]
    """The inputs of the query that were used."""
    prior: float
    """Share of the items that belong to the query, which each match assumes."""
    hits: list[SearchHit]
    """Best first: by match, then those without a match by cosine. Limited by top_k, filter and min_match."""

    @classmethod
    def of(cls, result: SearchResult) -> Self:
        """Return the answer for a result."""
        query = result.query
        hits = [
            SearchHit.model_construct(
                id=hit.id,
                cosine=hit.cosine,
                match=hit.match,
                modalities=list(hit.modalities),
                metadata=dict(hit.metadata),
            )
            for hit in result.hits
        ]
        return cls.model_construct(
            index=result.index,
            model=query.model,
            digest=query.digest,
            modalities=query.modalities,
            prior=result.prior,
            hits=hits,
        )


class IndexSummary(Schema):
    """One index that can be searched."""

    name: str
    items: int
    dimensions: int
    """Numbers of a vector."""
    modalities: dict[str, int]
    """Number of items by their inputs, for example image+text."""
    filters: list[str]
    """Keys that `filter` may have."""
    digest: str
    """Version of the model that the index was built with."""
    model: str
    """Name of that model: as it is served, or as it was when the index was built."""
    usable: bool
    """Whether that version is served; otherwise a search returns the problem index_of_another_model."""

    @classmethod
    def of(cls, name: str, index: SearchIndex, model: str | None) -> Self:
        """Return the summary of an index; `model`: name of the served model of its version."""
        return cls(
            name=name,
            items=len(index),
            dimensions=index.width,
            modalities=dict(index.counts),
            filters=list(index.columns),
            digest=index.digest,
            model=model or index.model,
            usable=model is not None,
        )


class IndexList(Schema):
    """All indexes."""

    indexes: list[IndexSummary]
    """In the order of the settings; the first is searched when a request names none."""


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

    def document(self) -> dict[str, Any]:
        """Return the members in JSON."""
        return self.model_dump(exclude_none=True)


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
    languages: list[str] | None = None
    """Codes of the languages that the model transcribes; only models with the task transcribe have them."""
    runtime: str
    """What executes the model, for example onnx or torch."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return the summary of a model."""
        return cls(**_summary(description, settings))


class BundleDetail(ModelSummary):
    """A model with its card and its measured quality, served or not."""

    card: str
    """The model card, in Markdown."""
    report: dict[str, Any]
    """Metrics by label and by set of modalities, and how they were measured."""

    @classmethod
    def of(cls, description: Description, settings: Settings) -> Self:
        """Return all details of a model."""
        return cls(**_summary(description, settings), card=description.card, report=dict(description.report))


class ModelObject(Schema):
    """A served model as the clients of OpenAI's API read it."""

    id: str
    """The name of the model."""
    object: Literal["model"] = "model"
    created: int
    """When the service loaded this version, in seconds since 1970."""
    owned_by: str = "polymodal"


class ModelDetail(BundleDetail, ModelObject):
    """One served model with its card and its measured quality."""

    @classmethod
    def served(cls, description: Description, settings: Settings, created: int) -> Self:
        """Return all details of a served model."""
        return cls(**dict(BundleDetail.of(description, settings)), id=description.name, created=created)


class Models(Schema):
    """All served models."""

    default: str
    """The model that is used when a request names none."""
    models: list[ModelSummary]
    object: Literal["list"] = "list"
    data: list[ModelObject]
    """The same models as the clients of OpenAI's API read them."""


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
        "languages": list(description.languages) or None,
        "runtime": description.runtime,
    }
