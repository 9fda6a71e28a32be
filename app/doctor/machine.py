"""The machine: processor, available cores, threads, memory, open files."""

import os
import platform
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from polymodal.app.api.connections import OTHER_DESCRIPTORS
from polymodal.app.doctor.result import CheckResult, ok, warn
from polymodal.app.settings import Settings
from polymodal.cores import available_cpus, control_groups
from polymodal.model import Processor, processor

MIB: Final = 2**20
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def check(settings: Settings, environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check cores, processor, threads and open files: what does not depend on a model."""
    cores, all_cores = available_cpus(), os.cpu_count() or 1
    limited = f" of {all_cores}, as the container or the affinity mask allows" if cores < all_cores else ""
    yield ok("machine", "cores", f"{cores}{limited}")
    yield _processor(processor())
    yield _threads(settings, cores)
    if odd := [f"{name}={environ[name]}" for name in _THREADS if environ.get(name, "1") not in ("1", str(cores))]:
        advice = "unset it: POLYMODAL_INFERENCE_THREADS sets the number of threads"
        yield warn("machine", "libraries", ", ".join(odd), advice)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < settings.max_connections + OTHER_DESCRIPTORS:
        advice = "raise the limit (ulimit -Hn, LimitNOFILE=), or lower POLYMODAL_MAX_CONNECTIONS"
        yield warn("machine", "open files", f"{hard:,} at most, for {settings.max_connections:,} connections", advice)
    else:
        limit = "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard:,}"
        yield ok("machine", "open files", f"{limit}, enough for {settings.max_connections:,} connections")


def _processor(cpu: Processor) -> CheckResult:
    if not cpu.flags:
        return ok("machine", "processor", f"{cpu.name}; its instructions are known on Linux only")
    if cpu.dot_products:
        return ok("machine", "processor", f"{cpu.name}, with {' and '.join(cpu.dot_products)} for 8 bits")
    advice = "nothing is wrong; one with VNNI (AMD since Zen 4, Intel since Ice Lake) computes images faster"
    return warn("machine", "processor", f"{cpu.name}, without VNNI: 8 bits save it little time", advice)


def _threads(settings: Settings, cores: int) -> CheckResult:
    threads = max(1, settings.workers) * settings.inference_threads
    summary = f"{settings.workers} workers with {settings.inference_threads} threads each for {cores} cores"
    if threads > cores:
        advice = f"lower POLYMODAL_WORKERS or POLYMODAL_INFERENCE_THREADS: their product should be at most {cores}"
        return warn("machine", "workers", summary, advice)
    if settings.plan and settings.plan.cores != cores:
        advice = "polymodal tune, on this machine"
        return warn("machine", "workers", f"a plan that was measured for {settings.plan.cores} cores", advice)
    return ok("machine", "workers", summary)


def memory(settings: Settings, used_bytes: int) -> CheckResult:
    """Check that memory suffices for the models in every worker. `used_bytes`: of this process, which has loaded them."""
    needed = used_bytes * (max(1, settings.workers) + 1)
    free = available_memory()
    demand = f"about {needed // MIB:,} MiB for {settings.workers} workers and the service"
    if needed > free:
        advice = "lower POLYMODAL_WORKERS, or give the container more memory"
        return warn("machine", "memory", f"{demand}, {free // MIB:,} MiB are free", advice)
    return ok("machine", "memory", f"{demand}, of {free // MIB:,} MiB that are free")


def available_memory() -> int:
    """Return the free bytes of the machine, or of a smaller container's limit."""
    free: list[int] = [psutil.virtual_memory().available]
    for group in control_groups("memory"):
        limit, current = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and current is not None:
            free.append(max(0, limit - current))
    return min(free)


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max": no limit


def resident_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
