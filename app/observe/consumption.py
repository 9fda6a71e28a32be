"""Processor time and memory of processes, read whenever the metrics are scraped; complete on Linux only."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROCESSES: Final = Path("/proc")
_STAT_USER_TICKS: Final = (
    11  # proc(5): utime, the 14th field of stat, counted after the program's name; stime is the next one
)
_STATM_RESIDENT: Final = 1


def own_processor_seconds() -> float:
    """Return the processor seconds of this process."""
    return _seconds(resource.RUSAGE_SELF)


def processor_seconds_of(pids: Iterable[int]) -> float:
    """Return the processor seconds of these children, and of all children that have ended."""
    return _seconds(resource.RUSAGE_CHILDREN) + sum(map(_processor_seconds, pids))


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes; shared memory is counted for each of them."""
    return sum(map(_resident_bytes, pids))


def _seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _processor_seconds(pid: int) -> float:
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return sum(map(int, fields[_STAT_USER_TICKS : _STAT_USER_TICKS + 2])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):  # it has ended in between, or this is no Linux
        return 0.0


def _resident_bytes(pid: int) -> int:
    try:
        return int((_PROCESSES / str(pid) / "statm").read_text().split()[_STATM_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
