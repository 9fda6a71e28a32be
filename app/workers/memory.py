"""Freed memory of a worker process, which glibc keeps for later allocations until malloc_trim is called.

Batches of different sizes leave holes of many megabytes between small blocks, so without this a worker holds the memory of its
largest batches for as long as it lives. https://man7.org/linux/man-pages/man3/malloc_trim.3.html
"""

import ctypes
import time
from collections.abc import Callable
from typing import Final

TRIM_S: Final = 10.0
"""Shortest time between two trims: one takes about 5 ms, and the next batch has to allocate its pages again."""


class Trimmer:
    """Returns freed memory to the system, at most once in `every_s` seconds. Does nothing where the C library can't."""

    def __init__(self, every_s: float = TRIM_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._trimmed = clock()
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def trim(self) -> None:
        """Return freed memory to the system unless that was done a short time ago."""
        if self._malloc_trim is not None and self._clock() - self._trimmed >= self._every_s:
            self._malloc_trim(0)
            self._trimmed = self._clock()
