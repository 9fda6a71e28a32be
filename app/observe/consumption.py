"""Processor time and memory of processes, read whenever the metrics are scraped."""

import resource
from collections.abc import Iterable

import psutil


def own_processor_seconds() -> float:
    """Return the processor seconds of this process."""
    return _seconds(resource.RUSAGE_SELF)


def processor_seconds_of(pids: Iterable[int]) -> float:
    """Return the processor seconds of these children, and of all children that have ended."""
    return _seconds(resource.RUSAGE_CHILDREN) + sum(_usage(pid)[0] for pid in pids)


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes; shared memory is counted for each of them."""
    return sum(_usage(pid)[1] for pid in pids)


def _seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _usage(pid: int) -> tuple[float, int]:
    """Return the processor seconds and the resident bytes of a process; zeros when it has ended."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return 0.0, 0
