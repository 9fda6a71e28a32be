"""The loaded models of one worker, and how it computes a batch; the same in a process of its own and in the serving one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from app.latency import LatencyModel
from app.settings import Settings
from model import Description, InputError, Parts, Prediction, Predictor, Sample, load_bundle

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item."""

    outcome: Prediction | InputError
    decode_s: float
    predict_s: float
    """Of the whole batch that the item was in."""
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
            whole = Item({modality: probe.large for modality, probe in predictor.probes().items()})
            self.compute(name, [whole] * self._largest)  # takes the memory now that it would take at some time later
            models[name] = Model(predictor.description, self._latency(name))
        return models

    def _latency(self, model: str) -> LatencyModel:
        def compute(batch: Sequence[Parts]) -> None:
            self.compute(model, [Item(parts) for parts in batch])

        return LatencyModel.measured(compute, self._predictors[model].probes())

    def compute(self, model: str, items: Sequence[Item]) -> list[Answer]:
        """Decode and classify a batch; an item whose parts can't be used gets its InputError and disturbs no other."""
        predictor = self._predictors[model]
        prepared = [_prepared(predictor, item) for item in items]
        samples = [sample for sample, _ in prepared if isinstance(sample, Sample)]
        started = time.perf_counter()
        embeddings = predictor.embed(samples) if samples else {}
        predictions = iter(predictor.fuse(embeddings, [sample.present for sample in samples]) if samples else ())
        predict_s = time.perf_counter() - started
        answers, row = [], 0
        for sample, decode_s in prepared:
            if isinstance(sample, InputError):
                answers.append(Answer(sample, decode_s, predict_s, {}))
                continue
            new = {name: embeddings[name][row].tobytes() for name in sample.arrays} if self._keep else {}
            answers.append(Answer(next(predictions), decode_s, predict_s, new))
            row += 1
        return answers


def _prepared(predictor: Predictor, item: Item) -> tuple[Sample | InputError, float]:
    """With the seconds that it took."""
    started = time.perf_counter()
    try:
        sample: Sample | InputError = predictor.prepare(item.parts, item.embeddings)
    except InputError as problem:
        sample = problem
    return sample, time.perf_counter() - started
