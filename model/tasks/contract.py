"""Interface of tasks: options of clients, computation in a worker, answer of the service. The table TASKS has its implementations.

B items of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from polymodal.model.capabilities import Capability, Embeds, Model, Scores
from polymodal.model.modalities import MODALITIES, Modality
from polymodal.model.stages import Stages
from polymodal.model.types import Array, Arrays, Description, FloatArray, Inputs, Observed, Sample, TensorSpec

EXAMPLE_DIGEST: Final = "9f2c41d7a0b35e88c6f1d2047b9ae3515dd0c7e6f84a2b913c605e7f18d4ab20"
"""Version of the models in examples of answers."""


def _integral(value: object) -> object:
    """Return an integer for a number that JSON Schema counts as one: 3.0 and 3e0 are 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_integral)]
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
SHARE: Final = "a number between 0 and 1, as JSON writes numbers"
"""The values of a Share, for error messages."""


class Schema(BaseModel):
    """Base of schemas: frozen, without extra fields, described by the docstrings of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TaskOptions(Schema):
    """Options of a task that a client may set in addition to the model."""

    allowed: ClassVar[Mapping[str, str]] = {}
    """Allowed values by field, for error messages."""


class TaskAnswer(Schema):
    """Fields of every task's answer about one item."""

    model: str
    """Name of the model."""
    digest: str
    """The model's version: the SHA-256 of its files."""
    modalities: list[str]
    """The inputs that were used."""


@dataclass(slots=True)
class Batch:
    """Samples that a worker computes together, their options, and the model."""

    model: Model
    samples: Sequence[Sample]
    options: Sequence[Mapping[str, Any]]
    """Result of `Task.worker_options` for each sample."""
    stages: Stages = field(default_factory=Stages)
    stopped: Callable[[], bool] = lambda: False
    """Returns whether the batch is abandoned: a task may then return incomplete results."""
    embeddings: Mapping[str, FloatArray] = field(default_factory=dict)
    """(B, D) by modality, once `embed` has run; the service may cache them."""

    def embed(self) -> Mapping[str, FloatArray]:
        """Compute embeddings (B, D) of every modality of a model that embeds."""
        self.embeddings = cast(Embeds, self.model).embed(self.samples, self.stages)
        return self.embeddings

    def scores(self) -> Array:
        """Compute calibrated scores of a model that scores, one row per sample."""
        present = [sample.present for sample in self.samples]
        return cast(Scores, self.model).scores(self.embed(), present, self.stages)


class Task(ABC):
    """An operation that clients request. It has no state, because one object serves all models."""

    name: ClassVar[str]
    """Used in the path /v1/NAME, in scopes of keys, in metrics."""
    about: ClassVar[str]
    """Purpose of the task, in one sentence."""
    summary: ClassVar[str]
    """One line for OpenAPI."""
    details: ClassVar[str]
    """Description for OpenAPI."""
    batch_summary: ClassVar[str]
    """One line about /v1/NAME/batch."""
    answers: ClassVar[str]
    """Meaning of the status 200, for OpenAPI."""
    answer_names: ClassVar[tuple[str, ...]]
    """Names of the examples in the schema of `Answer`, for OpenAPI."""
    result: ClassVar[str]
    """Name of the answer in an item of a batch."""
    batch_name: ClassVar[str]
    """Prefix of the names of its batch schemas in OpenAPI."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Options in the example of a request."""
    needs: ClassVar[Capability]
    inputs: ClassVar[Mapping[str, Modality]] = MODALITIES
    """What a request may hold, by name."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Names of the stages that `run` measures in addition to those of the model."""
    Options: ClassVar[type[TaskOptions]]
    Answer: ClassVar[type["TaskAnswer"]]
    """Schema of the answer about one item."""

    def check(self, options: Any, description: Description) -> None:  # noqa: ANN401, B027 — own Options; most reject none
        """Raise InvalidParameter for options that this model does not support."""

    def computed_by(self, options: Any) -> str:  # noqa: ANN401
        """Return the name of the task that workers compute for these options: this one, or another that the service builds on."""
        return self.name

    def worker_options(self, options: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return the options that a worker needs, JSON-ready."""
        return {}

    @abstractmethod
    def outputs(self, description: Description) -> tuple[TensorSpec, ...]:
        """Return names, types and shapes of the arrays of an item that has all inputs."""

    @abstractmethod
    def run(self, batch: Batch) -> list[Arrays]:
        """Compute a batch, in a worker, and return the named arrays of each item."""

    @abstractmethod
    def answer(self, arrays: Arrays, used: frozenset[str], options: Any, description: Description) -> TaskAnswer:  # noqa: ANN401
        """Build the answer about one item, in the service; `used` has its modalities."""

    def observed(self, arrays: Arrays, description: Description) -> Observed | None:
        """Return the values that metrics count for one item; None if there are none."""
        return None


def answer_one(model: Model, task: Task, inputs: Inputs, options: TaskOptions) -> TaskAnswer:
    """Answer about one item without a service. Raises InputError."""
    task.check(options, model.description)
    sample = model.prepare(inputs)
    (arrays,) = task.run(Batch(model, [sample], [task.worker_options(options)]))
    return task.answer(arrays, sample.present, options, model.description)
