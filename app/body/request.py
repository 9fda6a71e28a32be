"""What a body contains."""

from collections.abc import Callable
from dataclasses import dataclass

from app.schemas import Options
from model import Parts


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed request for one example."""

    parts: Parts
    options: Options


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """A parsed request for many examples; an item is unpacked only before it is queued."""

    ids: list[str | None]
    unpack: list[Callable[[], Parts]]
    options: Options
