"""`polymodal tune`: measure plans for a bundle on this machine, with the workers of the service, without HTTP."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from polymodal.app.cpus import Plan
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.engine import Item
from polymodal.app.workers.pool import Worker
from polymodal.app.workers.supervisor import ProcessSupervisor
from polymodal.model import Inputs, Model, tasks_of

EXAMPLES: Final = 16
ROUNDS: Final = 2
"""Number of measurements of every plan, in turns, because a machine's speed varies."""
NEAR: Final = 0.97
"""The best plan has the fewest workers, then the smallest batches, of those with at least this share of the highest throughput."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan with its throughput."""

    plan: Plan
    items_per_s: float


def examples(model: Model) -> list[Inputs]:
    """Return inputs to measure with, small and large ones in turns, each with every modality."""
    probes = model.probes(tasks_of(model.description)[0])
    small, large = ({name: getattr(probe, size) for name, (probe, *_) in probes.items()} for size in ("small", "large"))
    return [small, large] * (EXAMPLES // 2)


def measure(
    source: BundleSource,
    runtime: str,
    plans: Sequence[Plan],
    inputs: Sequence[Inputs],
    seconds: float,
    on_measured: Callable[[Measured], None] = lambda measured: None,
) -> list[Measured]:
    """Return the items per second of each plan, the best of several rounds. Raises model.BundleError."""
    best_of = dict.fromkeys(plans, 0.0)
    for number in range(1, ROUNDS + 1):
        for plan in plans:
            settings = Settings.model_validate(
                {"bundles": (source,), "runtime": runtime, "workers": plan.workers, "inference_threads": plan.threads}
            )
            items_per_s = asyncio.run(_measure(settings, plan.batch_items, inputs, seconds))
            best_of[plan] = max(best_of[plan], items_per_s)
            if number == ROUNDS:
                on_measured(Measured(plan, best_of[plan]))
    return [Measured(plan, items_per_s) for plan, items_per_s in best_of.items()]


async def _measure(settings: Settings, batch_items: int, inputs: Sequence[Inputs], seconds: float) -> float:
    supervisor = ProcessSupervisor(settings)
    (source,) = settings.bundles
    batch = [Item(inputs[number % len(inputs)]) for number in range(batch_items)]

    async with supervisor.working():
        loaded = await supervisor.load(source.name, source)
        task = tasks_of(loaded.description)[0]

        async def keep_busy(worker: Worker, until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                done += len(await worker.compute(source.name, task, batch, math.inf))
            return done

        workers = [await supervisor.pool.take() for _ in range(settings.workers)]
        await asyncio.gather(*(worker.compute(source.name, task, batch, math.inf) for worker in workers))
        started = time.perf_counter()
        # Two batches for each worker, as they prefetch under load.
        done = await asyncio.gather(
            *(keep_busy(worker, started + seconds) for worker in workers for _ in range(worker.depth))
        )
        return sum(done) / (time.perf_counter() - started)


def best(measured: Sequence[Measured]) -> Measured:
    """Return the smallest plan of those within NEAR of the fastest one."""
    enough = NEAR * max(result.items_per_s for result in measured)
    return min(
        (result for result in measured if result.items_per_s >= enough),
        key=lambda result: (result.plan.workers, result.plan.batch_items, -result.items_per_s),
    )


def document(chosen: Measured, measured: Sequence[Measured], *, bundle: str, runtime: str) -> dict[str, Any]:
    """Return the plan with all measurements, JSON-ready."""
    return {
        "plan": asdict(chosen.plan),
        "bundle": bundle,
        "runtime": runtime,
        "measured": [{**asdict(result.plan), "items_per_s": round(result.items_per_s, 1)} for result in measured],
    }


def write_plan(path: Path, document: Mapping[str, Any]) -> None:
    """Write the file that POLYMODAL_PLAN reads."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
