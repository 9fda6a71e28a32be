"""When the stages of one request ran, noted on the way: what fails in the middle tells how far it came."""

from typing import Final, NamedTuple

READ: Final = "read"
QUEUE: Final = "queue"
DECODE: Final = "decode"
FUSE: Final = "fuse"
WRITE: Final = "write"


def encoding(modality: str) -> str:
    """The stage in which a modality is encoded."""
    return f"encode_{modality}"


class Took(NamedTuple):
    """A stage of a batch, as its worker tells it: the two processes' clocks need not agree."""

    after_s: float
    """From the batch's begin to the stage's."""
    seconds: float


class Step(NamedTuple):
    """A stage that is over."""

    stage: str
    began: float
    """On perf_counter."""
    seconds: float
    item: int | None
    """Of a request with many, which one."""


class Timeline:
    """Of one request, with all of its items."""

    __slots__ = ("span", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.span: object | None = None
        """What app.tracing records this request as, when it does."""

    def note(self, stage: str, began: float, seconds: float, item: int | None = None) -> None:
        """A stage is over."""
        self.steps.append(Step(stage, began, seconds, item))

    def longest(self) -> dict[str, float]:
        """Seconds of each stage; of a request with many items, those of the item that took longest."""
        seconds: dict[str, float] = {}
        for step in self.steps:
            if step.seconds > seconds.get(step.stage, -1.0):
                seconds[step.stage] = step.seconds
        return seconds
