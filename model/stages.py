"""Stages of computing a batch: their names, starts and durations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

DECODE: Final = "decode"
FUSE: Final = "fuse"


def encoding(modality: str) -> str:
    """Return the name of the stage that computes the embeddings of a modality."""
    return f"encode_{modality}"


class Took(NamedTuple):
    """Start of a stage, in seconds after that of its batch, and its duration."""

    after_s: float
    seconds: float


class Stages:
    """Stage times of one batch, which starts now."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.took: dict[str, Took] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure when the block starts and how long it takes."""
        started = time.perf_counter()
        yield
        self.took[stage] = self.since(started)

    def since(self, started: float) -> Took:
        """Return start and duration of something that ends now; `started` is a value of perf_counter."""
        return Took(round(started - self._started, 6), round(time.perf_counter() - started, 6))
