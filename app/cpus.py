"""How many cores this process may really use: the one place that thread counts come from."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

MOST_WORKERS: Final = 8  # by default: each takes the memory of its models
MOST_ITEMS: Final = 16  # of a batch, by default
TRIED_ITEMS: Final = (1, 4, 8, 16)
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """The cores of this process' affinity mask, or fewer where a cgroup quota (a container's limit) says so.

    A quota of 1.5 cores counts as 2: a thread too many idles half of the time, one too few never helps.
    """
    cores = _affinity()
    quotas = [quota for group in control_groups("cpu", cgroups, membership) if (quota := _quota(group)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def throttled_seconds(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """How long a cgroup quota has kept these processes from running; None where none is told (cgroup v2 tells it)."""
    return max(
        (told for group in control_groups("cpu", cgroups, membership) if (told := _throttled(group)) is not None),
        default=None,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What computes at the same time. The service itself is one process more, which gets a core whenever it wants one."""

    workers: int
    """Processes, each with one batch at a time; 0 for a thread of the service itself."""
    threads: int
    """Of each batch."""
    batch_items: int = MOST_ITEMS
    """Examples of a batch, at most."""
    cores: int | None = None
    """For which it was measured; None when it was not."""


def default_plan(cores: int, workers: int | None = None) -> Plan:
    """A worker for each core, as far as memory allows: a batch on several threads waits for the slowest of them in every layer
    of its network."""
    workers = min(cores, MOST_WORKERS) if workers is None else workers
    return Plan(workers, threads_for(cores, workers))


def threads_for(cores: int, workers: int) -> int:
    """As many for each batch as there are cores, divided between the workers."""
    return max(1, cores // max(1, workers))


def plans(cores: int) -> list[Plan]:
    """Worth measuring: from one worker with all cores to one worker for each core, with several sizes of batches."""
    workers = sorted({max(1, min(MOST_WORKERS, cores // share)) for share in (1, 2, 4)} | {1}, reverse=True)
    return [Plan(each, threads_for(cores, each), items, cores) for each in workers for items in TRIED_ITEMS]


def read_plan(path: Path) -> Plan:
    """What `polymodal tune` wrote. Raises ValueError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))["plan"]
        plan = Plan(**{name: int(document[name]) for name in ("workers", "threads", "batch_items", "cores")})
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror}") from problem
    except (LookupError, TypeError, ValueError, OverflowError) as problem:
        raise ValueError(f"{path} is no plan; allowed: a file written by `polymodal tune`") from problem
    if min(plan.threads, plan.batch_items) < 1 or plan.workers < 0:
        raise ValueError(f"{path} plans {plan}; allowed: at least one of each")
    return plan


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere there is no mask to read
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def control_groups(controller: str, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> Iterator[Path]:
    """The folders of this process' groups and of all their parents, for cgroup v2 and v1; `controller`: cpu or memory."""
    try:
        lines = membership.read_text(errors="surrogateescape").splitlines()  # as a path is read
    except OSError:
        return
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not group:
            continue
        if not controllers:  # v2 has one hierarchy, without controllers in its name
            root = cgroups
        elif controller in controllers.split(","):
            root = cgroups / controller
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


def _throttled(group: Path) -> float | None:
    try:
        lines = (group / "cpu.stat").read_text().splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("throttled_usec "))
    except (OSError, ValueError, IndexError, StopIteration):  # a group without a limit counts nothing
        return None
