"""How many cores this process may really use: the one place that thread counts come from."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

MOST_WORKERS: Final = 4  # by default: each takes the memory of its models
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """The cores of this process' affinity mask, or fewer where a cgroup quota (a container's limit) says so.

    A quota of 1.5 cores counts as 2: a thread too many idles half of the time, one too few never helps.
    """
    cores = _affinity()
    quotas = [quota for group in _groups(cgroups, membership) if (quota := _quota(group)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs at the same time; more threads than cores, as decoding, computing and answering take turns."""

    workers: int
    """Processes; the rest is for each of them."""
    streams: int
    """Batches that are computed at once."""
    threads: int
    """Of each of them."""
    decoders: int
    """Pictures that are decoded at once."""


def default_plan(cores: int, workers: int | None = None) -> Plan:
    """As many streams as cores, spread over a few processes: each has an interpreter of its own, and a copy of the models.

    One thread for each stream: a batch on several threads waits for the slowest of them in every layer of its network.
    """
    workers = workers or min(cores, MOST_WORKERS)
    each = math.ceil(cores / workers)
    return Plan(workers=workers, streams=each, threads=1, decoders=each)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere there is no mask to read
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process' groups and of all their parents, for cgroup v2 and v1."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # v2 has one hierarchy, without controllers in its name
            root = cgroups
        elif "cpu" in controllers.split(","):
            root = cgroups / "cpu"
        else:
            continue
        inside = PurePosixPath(group.lstrip("/"))
        yield from (root / parent for parent in (inside, *inside.parents))


def _quota(group: Path) -> float | None:
    """The cores that one group may use; None when it sets no limit or cannot be read."""
    try:
        if (v2 := group / "cpu.max").exists():
            allowed, period = v2.read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
        return None
