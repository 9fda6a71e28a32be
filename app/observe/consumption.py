"""Processor time and memory of processes, read whenever the metrics are scraped."""

import resource
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil


def own_processor_seconds() -> float:
    """Return the processor seconds of this process."""
    return _seconds(resource.RUSAGE_SELF)


def processor_seconds_of(pids: Iterable[int]) -> float:
    """Return the processor seconds of these children, and of all children that have ended."""
    return _seconds(resource.RUSAGE_CHILDREN) + _total(pids, lambda process: sum(process.cpu_times()[:2]))


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes; shared memory is counted for each of them."""
    return int(_total(pids, lambda process: process.memory_info().rss))


def _seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _total(pids: Iterable[int], measure: Callable[[psutil.Process], float]) -> float:
    """Return the sum over processes; one that has ended counts as zero."""
    total = 0.0
    for pid in pids:
        with suppress(psutil.Error):
            total += measure(psutil.Process(pid))
    return total
