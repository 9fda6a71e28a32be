"""Times of the stages of one request, recorded as they end, so that a failed request has those that it reached."""

from typing import Final, NamedTuple

READ: Final = "read"
QUEUE: Final = "queue"
WRITE: Final = "write"


class Step(NamedTuple):
    """A finished stage."""

    stage: str
    began: float
    """On perf_counter."""
    seconds: float
    item: int | None
    """Index of the item in a batch request."""


class Timeline:
    """The stages of one request, with all of its items."""

    __slots__ = ("span", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.span: object | None = None
        """Set by `app.observe.tracing` when it records this request."""

    def note(self, stage: str, began: float, seconds: float, item: int | None = None) -> None:
        """Record a finished stage; `began` is on perf_counter."""
        self.steps.append(Step(stage, began, seconds, item))

    def longest(self) -> dict[str, float]:
        """Return the seconds of each stage; of a batch request, those of the slowest item."""
        seconds: dict[str, float] = {}
        for step in self.steps:
            if step.seconds > seconds.get(step.stage, -1.0):
                seconds[step.stage] = step.seconds
        return seconds
