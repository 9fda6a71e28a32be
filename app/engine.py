"""The loaded models of one worker, and how it computes a batch; the same in a process of its own and in the serving one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, ParamSpec, Self, TypeVar

from app.latency import LatencyModel
from app.settings import Settings
from app.timeline import DECODE, FUSE, Timeline, Took, encoding
from model import Description, InputError, Parts, Prediction, Predictor, Probe, Sample, load_bundle

Given = ParamSpec("Given")
Value = TypeVar("Value")

WARM_ITEMS: Final = 16
"""Of the largest batch that is computed at start-up: more would take seconds."""


@dataclass(frozen=True, slots=True)
class Item:
    """One example of a batch."""

    parts: Parts
    embeddings: Mapping[str, bytes] = field(default_factory=dict)
    """Of modalities that were embedded before, instead of their parts."""
    units: Mapping[str, float] = field(default_factory=dict)
    """What `model.workload` says of the parts."""
    timeline: Timeline = field(default_factory=Timeline)
    """Of the request that asks for it; stays in the serving process."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item."""

    outcome: Prediction | InputError
    stages: Mapping[str, Took]
    """Encoding and fusing are those of the whole batch that the item was in, as far as they were for the item."""
    embeddings: Mapping[str, bytes]
    """Of modalities that were embedded now; only when they are to be kept."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the service knows of a model that others compute."""

    description: Description
    latency: LatencyModel


class Engine:
    """Computes batches of the served models."""

    def __init__(
        self, predictors: Mapping[str, Predictor], *, keep_embeddings: bool = False, largest_batch: int = 1
    ) -> None:
        self._predictors = predictors
        self._keep = keep_embeddings
        self._largest = min(largest_batch, WARM_ITEMS)

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Every bundle of the settings, in their order; takes a second or two. Raises model.BundleError."""
        predictors = {
            source.name: load_bundle(
                source.path, name=source.name, runtime=settings.runtime, threads=settings.inference_threads
            )
            for source in settings.bundles
        }
        return cls(
            predictors,
            keep_embeddings=settings.embedding_cache_bytes > 0,
            largest_batch=settings.max_batch_items,
        )

    def warm_up(self) -> dict[str, Model]:
        """Replay the golden inputs of all models, and measure how long things take. Raises model.BundleError."""
        models = {}
        for name, predictor in self._predictors.items():
            predictor.warm_up()
            probes = predictor.probes()
            whole = Item({name: each.small if each.embeds_alike else each.large for name, (each, *_) in probes.items()})
            self.compute(name, [whole] * self._largest)  # takes the memory now that it would take at some time later
            models[name] = Model(predictor.description, self._latency(name, probes))
        return models

    def _latency(self, model: str, probes: Mapping[str, Sequence[Probe]]) -> LatencyModel:
        def compute(batch: Sequence[Parts]) -> None:
            self.compute(model, [Item(parts) for parts in batch])

        return LatencyModel.measured(compute, self._predictors[model].prepare, probes)

    def compute(self, model: str, items: Sequence[Item]) -> list[Answer]:
        """Decode and classify a batch; an item whose parts can't be used gets its InputError and disturbs no other."""
        predictor, watch = self._predictors[model], _Stopwatch()
        prepared = [watch.time(_prepared, predictor, item) for item in items]
        samples = [sample for sample, _ in prepared if isinstance(sample, Sample)]
        if not samples:
            return [
                Answer(problem, {DECODE: took}, {}) for problem, took in prepared if isinstance(problem, InputError)
            ]
        present = [sample.present for sample in samples]
        encoded = {name: watch.time(predictor.encode, name, samples) for name in _modalities(predictor)}
        embeddings = {name: rows for name, (rows, _) in encoded.items()}
        predictions, fusing = watch.time(predictor.fuse, embeddings, present)
        answers, row = [], 0
        for sample, decoding in prepared:
            if isinstance(sample, InputError):
                answers.append(Answer(sample, {DECODE: decoding}, {}))
                continue
            stages = {encoding(name): took for name, (_, took) in encoded.items() if name in sample.arrays}
            new = {name: embeddings[name][row].tobytes() for name in sample.arrays} if self._keep else {}
            answers.append(Answer(predictions[row], {DECODE: decoding, **stages, FUSE: fusing}, new))
            row += 1
        return answers


class _Stopwatch:
    """Of one batch."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def time(self, work: Callable[Given, Value], *given: Given.args, **named: Given.kwargs) -> tuple[Value, Took]:
        """Do it, and tell when and how long."""
        started = time.perf_counter()
        value = work(*given, **named)
        ended = time.perf_counter()
        return value, Took(round(started - self._began, 6), round(ended - started, 6))


def _modalities(predictor: Predictor) -> list[str]:
    return [each.name for each in predictor.description.inputs]


def _prepared(predictor: Predictor, item: Item) -> Sample | InputError:
    try:
        return predictor.prepare(item.parts, item.embeddings)
    except InputError as problem:
        return problem
