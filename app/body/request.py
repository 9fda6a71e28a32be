"""What a body contains."""

from collections.abc import Callable
from dataclasses import dataclass

from app.schemas import Options
from model import Parts


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks about one example."""

    parts: Parts
    options: Options


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """What a client asks about many examples; each is unpacked only when its turn comes."""

    ids: list[str | None]
    unpack: list[Callable[[], Parts]]
    options: Options
