"""Number of cores that this process may use, from which all numbers of threads are derived.

It is in neither `app` nor `model`: both need it, and the command line imports it without numpy, which `polymodal.model` loads.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of cores in this process' affinity mask, or a smaller cgroup quota (a container's limit).

    A quota of 1.5 cores counts as 2.
    """
    cores = _affinity()
    quotas = [quota for group in control_groups("cpu", cgroups, membership) if (quota := _quota(group)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere there is no mask to read
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def control_groups(controller: str, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Yield the folders of this process' groups and of their parents, for cgroup v2 and v1; `controller`: cpu or memory."""
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
    """Return the cores that one group may use; None when it sets no limit or cannot be read."""
    try:
        if (v2 := group / "cpu.max").exists():
            allowed, period = v2.read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
        return None
