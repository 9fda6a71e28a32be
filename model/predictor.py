"""The whole interface that serving needs: from one example's parts to a Sample, from Samples to Predictions.

B examples, M modalities, D embedding width, K labels.
"""

import base64
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from model.bundle import Bundle, read_bundle
from model.config import subset_key
from model.errors import BundleError, InputError, NothingGiven, UnknownModality
from model.modalities import prepare
from model.runtimes import Runtime, start_runtime, suitable
from model.tasks import TASKS
from model.types import Array, Description, FloatArray, Parts, Prediction, Probe, Sample

# How far a replayed golden score, or a number in standard deviations, may be from the recorded one. Runtimes differ by about
# 1e-5; decoders and resizing of different Pillow releases by a little more; a wrong weight, vocabulary or label order by far more.
GOLDEN_TOLERANCE: Final = 0.02

log = logging.getLogger(__name__)


class Predictor:
    """A bundle with the runtime that executes it.

    `prepare` is pure, and both it and `predict` are thread-safe.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        name: str | None = None,
        fallback: Callable[[], Runtime] | None = None,
    ) -> None:
        network = bundle.config.network
        self._fallback = fallback
        self._bundle = bundle
        self._runtime = runtime
        self._inputs = bundle.inputs
        self._order = network.order
        self._width = network.width
        self.task = TASKS[network.task].of(bundle.config)
        self.scale = network.scale
        """Of a regression's numbers; None for labels."""
        self.description = Description(
            name=name or bundle.config.name,
            digest=bundle.digest,
            task=network.task,
            labels=network.labels,
            inputs=tuple(each.describe() for each in self._inputs.values()),
            runtime=runtime.name,
            card=bundle.card,
            report=bundle.report,
            thresholds=bundle.config.thresholds,
        )

    def prepare(self, parts: Parts, embeddings: Mapping[str, bytes] | None = None) -> Sample:
        """Decode and preprocess the parts of one example, by modality; a blank text counts as absent.

        Of modalities that were embedded before, `embeddings` holds the result instead, float32 (D,) as bytes.
        Raises InputError naming the modality, what was found and what is allowed.
        """
        known = ", ".join(self._order)
        kept = {name: np.frombuffer(each, dtype=np.float32) for name, each in (embeddings or {}).items()}
        if unknown := sorted(set(parts) - set(self._order)):
            raise UnknownModality(unknown[0], "not an input of this model", known)
        arrays = prepare(self._inputs, parts)
        if not arrays and not kept:
            if len(self._order) == 1:
                raise NothingGiven("request", f"no {known}, or a blank one", known)
            raise NothingGiven("request", "neither of the inputs, or only blank ones", f"at least one of {known}")
        return Sample(arrays, kept)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Classify a batch; the result has the batch's order, and no row influences another."""
        if not samples:
            return []
        return self.fuse(self.embed(samples), [sample.present for sample in samples])

    def embed(self, samples: Sequence[Sample]) -> dict[str, FloatArray]:
        """The embeddings (B, D) of every modality."""
        return {name: self.encode(name, samples) for name in self._order}

    def encode(self, modality: str, samples: Sequence[Sample]) -> FloatArray:
        """One modality's embeddings (B, D); rows without it are zero, and they cost nothing, nor do those that were kept."""
        rows = [row for row, sample in enumerate(samples) if modality in sample.arrays]
        embeddings = np.zeros((len(samples), self._width), dtype=np.float32)
        if rows:
            batch = self._inputs[modality].collate([samples[row].arrays[modality] for row in rows])
            embeddings[rows] = self._runtime.encode(modality, batch)
        for row, sample in enumerate(samples):
            if modality in sample.embeddings:
                embeddings[row] = sample.embeddings[modality]
        return embeddings

    def fuse(self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]]) -> list[Prediction]:
        """Embeddings (B, D) of every modality, and which of them each row really has, to predictions."""
        return [
            Prediction(used=modalities, bundle=self.description.digest, **self.task.claims(row))
            for row, modalities in zip(self.scores(embeddings, used), used, strict=True)
        ]

    def scores(self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]]) -> Array:
        """What `fuse` says as numbers, before they are rounded: the task's `scores`, a row for each of B."""
        keys = [subset_key(modalities, self._order) for modalities in used]
        return self.task.scores(self.logits(embeddings, used), keys)

    def logits(self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]]) -> FloatArray:
        """What `fuse` scores, before calibration: (B, K)."""
        present = np.asarray([[name in modalities for name in self._order] for modalities in used], dtype=np.bool_)
        return self._runtime.fuse(embeddings, present)

    def probes(self) -> dict[str, Sequence[Probe]]:
        """What shows how long each modality takes, in each of its kinds of workload."""
        return {name: each.probes() for name, each in self._inputs.items()}

    def warm_up(self) -> None:
        """Run every graph once and replay the bundle's golden inputs.

        Where the bundle suits another runtime too, that one takes over from one that disagrees: arithmetic in 8 bits overflows on
        some processors. Raises BundleError when no runtime agrees.
        """
        try:
            self._replay()
        except BundleError as problem:
            if self._fallback is None:
                raise
            self._runtime, self._fallback = self._fallback(), None
            log.warning("runtime %s is not used: %s", self.description.runtime, problem)
            self.description = replace(self.description, runtime=self._runtime.name)
            self._replay()

    def ask_golden(self, golden: Mapping[str, Any]) -> Prediction:
        """What is said of one entry of golden.json: its texts as they are, other modalities as base64."""
        parts: Mapping[str, str] = golden["parts"]
        decoded = {name: part if name == "text" else base64.b64decode(part) for name, part in parts.items()}
        (prediction,) = self.predict([self.prepare(decoded)])
        return prediction

    def _replay(self) -> None:
        blanks = {name: each.blank() for name, each in self._inputs.items()}
        alone = [Sample({name: array}) for name, array in blanks.items()]
        self.predict([*alone, Sample(blanks)])
        for number, golden in enumerate(self._bundle.golden, start=1):
            try:
                prediction = self.ask_golden(golden)
                gap = self.task.gap(prediction, golden.get(self._runtime.name, golden))
            except (InputError, AttributeError, LookupError, TypeError, ValueError) as problem:
                found = f"golden input {number} cannot be replayed: {problem}"
                raise BundleError(f"{self._bundle.directory}: {found}") from problem
            if not gap <= GOLDEN_TOLERANCE:  # written so that NaN fails too
                raise BundleError(
                    f"{self._bundle.directory}: golden input {number} scores {gap:.3f} away from what the bundle recorded; "
                    f"allowed: {GOLDEN_TOLERANCE} (runtime {self.description.runtime})"
                )


def load_bundle(
    directory: Path,
    *,
    name: str | None = None,
    runtime: str = "auto",
    threads: int | None = None,
) -> Predictor:
    """Open a bundle and start its runtime; call `warm_up` before serving from it.

    `name` replaces the bundle's own; `threads` is how many one forward pass may use (default: the cores this process may
    use). Raises BundleError when a file is missing, altered, or of an unknown version.
    """
    bundle, threads = read_bundle(directory), threads or _cores()
    first, *others = suitable(bundle) if runtime == "auto" else (runtime,)
    fallback = partial(start_runtime, others[0], bundle, threads) if others else None
    return Predictor(bundle, start_runtime(first, bundle, threads), name, fallback)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
