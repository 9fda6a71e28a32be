"""The model kind `network`: prepares inputs of an item as a Sample, and computes embeddings, scores and Predictions of Samples.

B examples, M modalities, D embedding width, A width of an aligned vector (0 without alignment heads), K labels.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polymodal.model.bundle import Bundle
from polymodal.model.capabilities import Capability, Space
from polymodal.model.config import BundleConfig, subset_key
from polymodal.model.kinds.encoders import Encoders, described, golden_inputs, load
from polymodal.model.runtimes import Runtime
from polymodal.model.stages import FUSE, Stages
from polymodal.model.targets import TARGETS
from polymodal.model.types import Array, FloatArray, Prediction, Sample


class Network(Encoders):
    """Encoders with fusion and head.

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
        self._width = network.width
        self.target = TARGETS[network.target].scoring.of(bundle.config)
        self.scale = network.scale
        """Scale of a regression's numbers; None for labels."""
        spaces = {Space.ALIGNED.value: network.alignment.width} if network.alignment else {}
        spaces[Space.CLASSIFIER.value] = network.width
        description = described(
            bundle,
            runtime,
            name,
            target=network.target,
            labels=network.labels,
            thresholds=bundle.config.thresholds,
            capabilities=frozenset({Capability.EMBEDS, Capability.SCORES}),
            spaces=spaces,
            scale=network.scale,
        )
        super().__init__(bundle, runtime, description, network.encoded, fallback)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Return the predictions of a batch in its order; rows don't influence each other."""
        if not samples:
            return []
        return self.fuse(self.embed(samples), [sample.present for sample in samples])

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

    def predict_golden(self, golden: Mapping[str, Any]) -> Prediction:
        """Return the prediction for an entry of golden.json."""
        (prediction,) = self.predict([self.prepare(golden_inputs(golden))])
        return prediction

    def compute(self, samples: Sequence[Sample]) -> object:
        """Run every graph that these samples need."""
        return self.predict(samples)

    def deviation(self, golden: Mapping[str, Any]) -> float:
        """Return how far the prediction for an entry of golden.json is from the recorded one."""
        return self.target.deviation(self.predict_golden(golden), golden.get(self._runtime.name, golden))


def load_network(
    directory: Path, name: str | None = None, runtime: str = "auto", threads: int | None = None
) -> Network:
    """Open the bundle of a network; see `model.kinds.load_bundle`."""
    return load(Network, BundleConfig, directory, name, runtime, threads)
