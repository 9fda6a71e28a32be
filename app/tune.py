"""`polymodal tune`: a few plans for a bundle, measured on this machine as the service would carry them out, but without HTTP."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.cpus import Plan
from app.engine import Item
from app.settings import BundleSource, Settings
from app.workers import Processes, ProcessWorker
from model import Parts, Predictor

EXAMPLES: Final = 16
ROUNDS: Final = 2
"""Everything is measured so often, by turns: no machine is equally quick all the time."""
NEAR: Final = 0.97
"""Of plans that are nearly as quick as the quickest, that with the fewest workers and then the smallest batches is the best."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan, and what it does."""

    plan: Plan
    items_per_s: float


def examples(predictor: Predictor) -> list[Parts]:
    """What is asked: every modality, small and large by turns."""
    probes = predictor.probes()
    small, large = ({name: getattr(probe, size) for name, (probe, *_) in probes.items()} for size in ("small", "large"))
    return [small, large] * (EXAMPLES // 2)


def measure(
    source: BundleSource,
    runtime: str,
    plans: Sequence[Plan],
    asked: Sequence[Parts],
    seconds: float,
    on_measured: Callable[[Measured], None] = lambda measured: None,
) -> list[Measured]:
    """How many items a second each plan computes, at its best of several rounds. Raises model.BundleError."""
    found = dict.fromkeys(plans, 0.0)
    for number in range(1, ROUNDS + 1):
        for plan in plans:
            settings = Settings.model_validate(
                {"bundles": (source,), "runtime": runtime, "workers": plan.workers, "inference_threads": plan.threads}
            )
            items_per_s = asyncio.run(_measure(settings, source.name, plan.batch_items, asked, seconds))
            found[plan] = max(found[plan], items_per_s)
            if number == ROUNDS:
                on_measured(Measured(plan, found[plan]))
    return [Measured(plan, items_per_s) for plan, items_per_s in found.items()]


async def _measure(settings: Settings, model: str, batch_items: int, asked: Sequence[Parts], seconds: float) -> float:
    workforce = Processes(settings)
    batch = [Item(asked[number % len(asked)]) for number in range(batch_items)]

    async def keep_busy(worker: ProcessWorker, until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            done += len(await worker.compute(model, batch, math.inf))
        return done

    async with workforce.working():
        workers = [await workforce.pool.take() for _ in range(settings.workers)]
        await asyncio.gather(*(worker.compute(model, batch, math.inf) for worker in workers))
        started = time.perf_counter()
        # Two batches for each, as the service does when much waits.
        done = await asyncio.gather(
            *(keep_busy(worker, started + seconds) for worker in workers for _ in range(worker.depth))
        )
        return sum(done) / (time.perf_counter() - started)


def best(measured: Sequence[Measured]) -> Measured:
    """The quickest, or what is as good and leaner."""
    enough = NEAR * max(each.items_per_s for each in measured)
    return min(
        (each for each in measured if each.items_per_s >= enough),
        key=lambda each: (each.plan.workers, each.plan.batch_items, -each.items_per_s),
    )


def write_plan(path: Path, chosen: Measured, measured: Sequence[Measured], *, bundle: str, runtime: str) -> None:
    """What `POLYMODAL_PLAN` reads, with all that was measured."""
    document = {
        "plan": asdict(chosen.plan),
        "bundle": bundle,
        "runtime": runtime,
        "measured": [{**asdict(each.plan), "items_per_s": round(each.items_per_s, 1)} for each in measured],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
