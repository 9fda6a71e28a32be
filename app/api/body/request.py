"""Parsed requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from polymodal.app.api.schemas import Operation
from polymodal.model import MODALITIES, Inputs, InvalidParameter, Schema, TaskOptions


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed request for one item."""

    inputs: Inputs
    options: TaskOptions
    model: str | None
    """The name of the model; None for the default one."""

    @classmethod
    def of(cls, task: Operation, inputs: Inputs, values: Schema) -> Self:
        """Return the request with these inputs, and with the options and the model of `values`, which is validated."""
        options = {name: getattr(values, name) for name in task.Options.model_fields}
        return cls(inputs, task.Options.model_construct(**options), getattr(values, "model", None))


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A parsed request for many items, each of which is unpacked just before it is queued."""

    ids: list[str | None]
    unpack: list[Callable[[], Inputs]]
    """Each returns the inputs of an item, or raises RequestError."""
    options: TaskOptions
    model: str | None
    """The name of the model; None for the default one."""


@dataclass(frozen=True, slots=True)
class ParsedComparison(ParsedBatch):
    """A parsed request for similarity: a batch of candidates, and the query."""

    query: Callable[[], Inputs]
    """Returns the inputs of the query."""
    one_pair: bool = False
    """Whether a form had both, so that the candidate's problem is that of the request."""

    @classmethod
    def of_pair(cls, form: ParsedRequest) -> Self:
        """Return the request of a form: the first of its two inputs, in the order of MODALITIES, is the query."""
        names = [name for name in MODALITIES if name in form.inputs]
        if len(names) != 2:
            allowed = f"two of {', '.join(MODALITIES)}: a query and what it is compared with"
            raise InvalidParameter("form", f"the inputs {', '.join(names)}" if names else "no inputs", allowed)
        query, candidate = ({name: form.inputs[name]} for name in names)
        return cls([None], [lambda: candidate], form.options, form.model, query=lambda: query, one_pair=True)
