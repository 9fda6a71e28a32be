"""The model kind `network`: prepares inputs of an item as a Sample, and computes embeddings, scores and Predictions of Samples.

B examples, M modalities, D embedding width, A width of an aligned vector (0 without alignment heads), K labels.
"""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from polymodal.cores import available_cpus
from polymodal.model.bundle import Bundle, read_bundle
from polymodal.model.capabilities import Capability, Space
from polymodal.model.config import subset_key
from polymodal.model.errors import BundleError, InputError, NothingGiven, UnknownModality
from polymodal.model.modalities import MODALITIES, prepare
from polymodal.model.runtimes import Runtime, start_runtime, suitable
from polymodal.model.stages import FUSE, Stages, encoding
from polymodal.model.targets import TARGETS
from polymodal.model.types import Array, Description, FloatArray, Inputs, Prediction, Probe, Sample

# Largest deviation of a replayed golden score, or of a number in standard deviations. Runtimes differ by about 1e-5; decoders and
# resizing of different Pillow releases by a little more; a wrong weight, vocabulary or label order by far more.
GOLDEN_TOLERANCE: Final = 0.02

log = logging.getLogger(__name__)


class Network:
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
        self._width, self._encoded = network.width, network.encoded
        self.target = TARGETS[network.target].scoring.of(bundle.config)
        self.scale = network.scale
        """Scale of a regression's numbers; None for labels."""
        spaces = {Space.ALIGNED.value: network.alignment.width} if network.alignment else {}
        spaces[Space.CLASSIFIER.value] = network.width
        self.description = Description(
            name=name or bundle.config.name,
            digest=bundle.digest,
            target=network.target,
            labels=network.labels,
            inputs=tuple(entry.describe() for entry in self._inputs.values()),
            runtime=runtime.name,
            card=bundle.card,
            report=bundle.report,
            thresholds=bundle.config.thresholds,
            kind=bundle.config.kind,
            capabilities=frozenset({Capability.EMBEDS, Capability.SCORES}),
            spaces=spaces,
            matches=bundle.config.matches or {},
            scale=network.scale,
        )

    def prepare(self, inputs: Inputs, kept: Mapping[str, bytes] | None = None) -> Sample:
        """Decode and preprocess the inputs of one item, by modality; a blank text counts as absent.

        `kept` has cached embeddings by modality, float32 (D + A,) as bytes, in place of inputs. Raises InputError.
        """
        known = ", ".join(self._order)
        embeddings = {name: np.frombuffer(vector, dtype=np.float32) for name, vector in (kept or {}).items()}
        if unknown := sorted(set(inputs) - set(self._order)):
            raise UnknownModality(unknown[0], "not an input of this model", known)
        arrays = prepare(self._inputs, inputs)
        if not arrays and not embeddings:
            if len(self._order) == 1:
                raise NothingGiven("request", f"no {known}, or a blank one", known)
            raise NothingGiven("request", "neither of the inputs, or only blank ones", f"at least one of {known}")
        return Sample(arrays, embeddings)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Return the predictions of a batch in its order; rows don't influence each other."""
        if not samples:
            return []
        return self.fuse(self.embed(samples), [sample.present for sample in samples])

    def embed(self, samples: Sequence[Sample], stages: Stages | None = None) -> dict[str, FloatArray]:
        """Return embeddings (B, D + A) of every modality; rows of samples without the modality are zero."""
        stages, embeddings = stages or Stages(), {}
        for name in self._order:
            with stages.measure(encoding(name)):
                embeddings[name] = self.encode(name, samples)
        return embeddings

    def encode(self, modality: str, samples: Sequence[Sample]) -> FloatArray:
        """Return one modality's embeddings (B, D + A): computed, or cached, or zero for rows without the modality.

        Arrays of one shape are computed together, so that no text is padded: an input has the same numbers in every batch.
        """
        embeddings = np.zeros((len(samples), self._encoded), dtype=np.float32)
        rows_by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, sample in enumerate(samples):
            if modality in sample.arrays:
                rows_by_shape.setdefault(sample.arrays[modality].shape, []).append(row)
        for rows in rows_by_shape.values():
            batch = self._inputs[modality].collate([samples[row].arrays[modality] for row in rows])
            embeddings[rows] = self._runtime.encode(modality, batch)
        for row, sample in enumerate(samples):
            if modality in sample.embeddings:
                embeddings[row] = sample.embeddings[modality]
        return embeddings

    def vectors(self, embeddings: Mapping[str, FloatArray], space: str) -> dict[str, FloatArray]:
        """Return the vectors of one space, (B, D) or (B, A), that embeddings (B, D + A) have, by modality."""
        columns = slice(self._width, None) if space == Space.ALIGNED else slice(self._width)
        return {name: np.ascontiguousarray(rows[:, columns]) for name, rows in embeddings.items()}

    def fuse(self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]]) -> list[Prediction]:
        """Return predictions of embeddings (B, D + A) of every modality; `used` has the modalities of each row."""
        return [
            Prediction(used=modalities, bundle=self.description.digest, **self.target.decode(row))
            for row, modalities in zip(self.scores(embeddings, used), used, strict=True)
        ]

    def scores(
        self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]], stages: Stages | None = None
    ) -> Array:
        """Return calibrated scores before rounding, one row per item; `used` has the modalities of each row."""
        keys = [subset_key(modalities, self._order) for modalities in used]
        with (stages or Stages()).measure(FUSE):
            return self.target.scores(self.logits(embeddings, used), keys)

    def logits(self, embeddings: Mapping[str, FloatArray], used: Sequence[frozenset[str]]) -> FloatArray:
        """Return logits (B, K), before calibration."""
        present = np.asarray([[name in modalities for name in self._order] for modalities in used], dtype=np.bool_)
        return self._runtime.fuse(self.vectors(embeddings, Space.CLASSIFIER), present)

    def probes(self, task: str = "") -> dict[str, Sequence[Probe]]:
        """Return inputs for measuring each modality's kinds of workload; the same for every task."""
        return self._probes

    @cached_property
    def _probes(self) -> dict[str, Sequence[Probe]]:
        return {name: entry.probes() for name, entry in self._inputs.items()}

    def warm_up(self) -> None:
        """Run every graph once and replay the bundle's golden inputs.

        If the runtime fails the golden inputs and the bundle suits another one, switch to that: arithmetic in 8 bits overflows
        on some processors. Raises BundleError when no runtime passes.
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

    def predict_golden(self, golden: Mapping[str, Any]) -> Prediction:
        """Return the prediction for an entry of golden.json, which has texts as they are and other inputs in base64."""
        encoded: Mapping[str, str] = golden["parts"]
        inputs = {name: text if MODALITIES[name].textual else base64.b64decode(text) for name, text in encoded.items()}
        (prediction,) = self.predict([self.prepare(inputs)])
        return prediction

    def _replay(self) -> None:
        blanks = {name: entry.blank() for name, entry in self._inputs.items()}
        alone = [Sample({name: array}) for name, array in blanks.items()]
        self.predict([*alone, Sample(blanks)])
        for number, golden in enumerate(self._bundle.golden, start=1):
            try:
                prediction = self.predict_golden(golden)
                deviation = self.target.deviation(prediction, golden.get(self._runtime.name, golden))
            except (InputError, AttributeError, LookupError, TypeError, ValueError) as problem:
                raise BundleError(
                    f"{self._bundle.directory}: golden input {number} cannot be replayed: {problem}"
                ) from problem
            if not deviation <= GOLDEN_TOLERANCE:  # written so that NaN fails too
                raise BundleError(
                    f"{self._bundle.directory}: golden input {number} scores {deviation:.3f} away from what the bundle recorded; "
                    f"allowed: {GOLDEN_TOLERANCE} (runtime {self.description.runtime})"
                )


def load_network(
    directory: Path, name: str | None = None, runtime: str = "auto", threads: int | None = None
) -> Network:
    """Open the bundle of a network; see `model.kinds.load_bundle`."""
    bundle, threads = read_bundle(directory), threads or available_cpus()
    first, *others = suitable(bundle) if runtime == "auto" else (runtime,)
    fallback = partial(start_runtime, others[0], bundle, threads) if others else None
    return Network(bundle, start_runtime(first, bundle, threads), name, fallback)
