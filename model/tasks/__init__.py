"""Tasks, the operations that clients request. A new task is a module of this package and a line in TASKS."""

from typing import Final

from polymodal.model.tasks.classify import Classify
from polymodal.model.tasks.contract import Task
from polymodal.model.tasks.embed import Embed
from polymodal.model.tasks.transcribe import Transcribe
from polymodal.model.types import Description

TASKS: Final[dict[str, Task]] = {task.name: task for task in (Classify(), Embed(), Transcribe())}
"""By name. Routes, schemas, OpenAPI, scopes, metrics and the client's methods are derived from this table."""


def tasks_of(description: Description) -> tuple[str, ...]:
    """Return the names of the tasks that a model can do."""
    return tuple(name for name, task in TASKS.items() if task.needs in description.capabilities)
