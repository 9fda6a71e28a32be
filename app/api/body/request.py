"""Parsed requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from polymodal.app.api.schemas import ModelChoice
from polymodal.model import Inputs, Schema, Task, TaskOptions


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed request for one item."""

    inputs: Inputs
    options: TaskOptions
    model: str | None
    """The name of the model; None for the default one."""


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A parsed request for many items; an item is unpacked only before it is queued."""

    ids: list[str | None]
    unpack: list[Callable[[], Inputs]]
    options: TaskOptions
    model: str | None
    """The name of the model; None for the default one."""


def parsed(task: Task, inputs: Inputs, values: Schema) -> ParsedRequest:
    """Return a request with these inputs, and with the options and the model in `values`, which are validated."""
    options = {name: getattr(values, name) for name in task.Options.model_fields}
    return ParsedRequest(inputs, task.Options.model_construct(**options), cast(ModelChoice, values).model)
