"""The loaded models of one worker, and the computation of a batch; the same in a worker process and in a thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from polymodal.app.observe.timeline import Timeline
from polymodal.app.settings import BundleSource, Settings
from polymodal.app.workers.latency import LatencyModel
from polymodal.model import (
    DECODE,
    TASKS,
    Arrays,
    Batch,
    Description,
    InputError,
    Inputs,
    Model,
    Probe,
    Sample,
    Stages,
    Took,
    encoding,
    load_bundle,
    tasks_of,
)

WARM_ITEMS: Final = 16
"""Items of the largest batch that is computed while a model is loaded: more would take seconds."""


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a batch."""

    inputs: Inputs
    kept: Mapping[str, bytes] = field(default_factory=dict)
    """Cached embeddings, which replace the inputs of their modalities."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The result of `Task.worker_options`."""
    units: Mapping[str, float] = field(default_factory=dict)
    """The workload of the inputs by its kind, as `model.workload` estimates it."""
    timeline: Timeline = field(default_factory=Timeline)
    """Of the item's request; stays in the serving process."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result for one item: arrays, or the error of its inputs."""

    arrays: Arrays = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    """The modalities that the item had."""
    stages: Mapping[str, Took] = field(default_factory=dict)
    """Decoding of this item, and the stages of its batch that concern its modalities."""
    embeddings: Arrays = field(default_factory=dict)
    """New embeddings (D,) by modality; only when they are to be cached."""
    error: InputError | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Description and latency of a model that workers have loaded."""

    description: Description
    latency: Mapping[str, LatencyModel]
    """By task."""


class Engine:
    """Loads models and computes batches of them. A model is addressed by the reference that it was loaded under."""

    def __init__(self, settings: Settings, preloaded: Mapping[str, Model] | None = None) -> None:
        """`preloaded`: models by the name of their source, which are not loaded from its folder."""
        self._settings = settings
        self._preloaded = preloaded or {}
        self._keep = settings.embedding_cache_bytes > 0
        self._models: dict[str, Model] = {}

    def load(self, ref: str, source: BundleSource) -> Loaded:
        """Load a bundle, replay its golden inputs, and measure how long its tasks take. Raises BundleError."""
        settings = self._settings
        model = self._preloaded.get(source.name) or load_bundle(
            source.path, name=source.name, runtime=settings.runtime, threads=settings.inference_threads
        )
        model.warm_up()
        self._models[ref] = model
        try:
            return Loaded(model.description, self._latencies(ref, model))
        except BaseException:
            self.unload(ref)
            raise

    def unload(self, ref: str) -> None:
        """Forget a model."""
        self._models.pop(ref, None)

    def _latencies(self, ref: str, model: Model) -> dict[str, LatencyModel]:
        """Measure the latency of each task; tasks with equal probes share one measurement, as it takes seconds."""
        measured: list[tuple[Mapping[str, Sequence[Probe]], LatencyModel]] = []
        latencies: dict[str, LatencyModel] = {}
        for task in tasks_of(model.description):
            probes = model.probes(task)
            latency = next((latency for known, latency in measured if known == probes), None)
            if latency is None:
                self._fill_memory(ref, task, probes)
                latency = self._latency(ref, task, model, probes)
                measured.append((probes, latency))
            latencies[task] = latency
        return latencies

    def _fill_memory(self, ref: str, task: str, probes: Mapping[str, Sequence[Probe]]) -> None:
        """Compute a large batch, so that its memory is allocated before serving; not of items that are computed alone."""
        if any(probe.alone for kinds in probes.values() for probe in kinds):
            return
        inputs = {name: first.small if first.embeds_alike else first.large for name, (first, *_) in probes.items()}
        self.compute(ref, task, [Item(inputs)] * min(self._settings.max_batch_items, WARM_ITEMS))

    def _latency(self, ref: str, task: str, model: Model, probes: Mapping[str, Sequence[Probe]]) -> LatencyModel:
        def compute(batch: Sequence[Inputs]) -> None:
            self.compute(ref, task, [Item(inputs) for inputs in batch])

        return LatencyModel.measured(compute, model.prepare, probes)

    def compute(
        self, ref: str, task: str, items: Sequence[Item], stopped: Callable[[], bool] = lambda: False
    ) -> list[ItemResult]:
        """Decode and compute a batch; an item with unusable inputs gets an InputError and does not affect the others.

        Once `stopped` returns true, the batch is abandoned, and its results may be incomplete.
        """
        model, stages = self._models[ref], Stages()
        prepared = [_prepared(model, item, stages) for item in items]
        usable = [number for number, (sample, _) in enumerate(prepared) if isinstance(sample, Sample)]
        samples = [sample for sample, _ in prepared if isinstance(sample, Sample)]
        results = [
            ItemResult(stages={DECODE: took}, error=error) if isinstance(error, InputError) else ItemResult()
            for error, took in prepared
        ]
        if not samples:
            return results
        batch = Batch(model, samples, [items[number].options for number in usable], stages, stopped)
        for row, (number, sample, arrays) in enumerate(zip(usable, samples, TASKS[task].run(batch), strict=True)):
            others = {encoding(name) for name in batch.embeddings if name not in sample.arrays}
            took = {stage: ran for stage, ran in stages.took.items() if stage not in others}
            new = {name: batch.embeddings[name][row] for name in sample.arrays if name in batch.embeddings}
            results[number] = ItemResult(
                arrays, sample.present, {DECODE: prepared[number][1], **took}, new if self._keep else {}
            )
        return results


def _prepared(model: Model, item: Item, stages: Stages) -> tuple[Sample | InputError, Took]:
    """Return the sample of an item, or its InputError, and the time of decoding."""
    started = time.perf_counter()
    try:
        sample: Sample | InputError = model.prepare(item.inputs, item.kept)
    except InputError as error:
        sample = error
    return sample, stages.since(started)
