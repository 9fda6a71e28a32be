"""Parsed requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from polymodal.app.api.schemas import Operation
from polymodal.model import Inputs, Schema, TaskOptions


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
