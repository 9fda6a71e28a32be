"""Plans: numbers of workers, threads and items of a batch; and the time that a quota has throttled them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polymodal.cores import CGROUPS, MEMBERSHIP, control_groups

MOST_WORKERS: Final = 8
"""Most workers by default, because each has its own copy of the models."""
MOST_ITEMS: Final = 16
"""Most items of a batch by default."""
TRIED_ITEMS: Final = (1, 4, 8, 16)
"""Items of a batch in the plans that are measured."""


def throttled_seconds(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Return the seconds that a cgroup quota has throttled these processes; None unless cgroup v2 reports them."""
    seconds = map(_throttled, control_groups("cpu", cgroups, membership))
    return max((throttled_s for throttled_s in seconds if throttled_s is not None), default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of workers, threads and items. The service is one more process, with precedence over its workers."""

    workers: int
    """Number of worker processes, which compute one batch at a time; 0 for a thread of the service."""
    threads: int
    """Threads of one batch."""
    batch_items: int = MOST_ITEMS
    """Items of a batch, at most."""
    cores: int | None = None
    """Number of cores for which the plan was measured; None when it was not measured."""


def default_plan(cores: int, workers: int | None = None) -> Plan:
    """Return a plan of one worker for each core, at most MOST_WORKERS.

    Several threads for a batch are less efficient, as they wait for the slowest of them in every layer of the network.
    """
    workers = min(cores, MOST_WORKERS) if workers is None else workers
    return Plan(workers, threads_for(cores, workers))


def threads_for(cores: int, workers: int) -> int:
    """Return the threads of one batch: the cores divided between the workers."""
    return max(1, cores // max(1, workers))


def plans(cores: int) -> list[Plan]:
    """Return the plans to measure: from one worker with all cores to one worker for each core, with several batch sizes."""
    workers = sorted({max(1, min(MOST_WORKERS, cores // share)) for share in (1, 2, 4)} | {1}, reverse=True)
    return [Plan(count, threads_for(cores, count), items, cores) for count in workers for items in TRIED_ITEMS]


def read_plan(path: Path) -> Plan:
    """Read the plan that `polymodal tune` wrote. Raises ValueError."""
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


def _throttled(group: Path) -> float | None:
    try:
        lines = (group / "cpu.stat").read_text().splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("throttled_usec "))
    except (OSError, ValueError, IndexError, StopIteration):  # a group without a limit has no such line
        return None
