"""Named recipes: which inputs, encoders, fusion and hyper-parameters a training begins with."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from model.config import ModalityConfig, NetworkConfig
from model.manifest import Manifest
from model.modalities import Input
from model.training.parts import Part, Wanted, make_part
from model.training.usable import learned_modalities
from model.types import Array

PROJECT: Final = re.compile(r"encoders\.\w+\.project\.")  # what makes an encoder's features an embedding of our width


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Hyper-parameters of the loop; they are saved in the bundle's report."""

    epochs: int = 30
    """At most; early stopping usually ends sooner."""
    patience: int = 6
    """Epochs without a better validation score after which training stops."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Peak, for what starts from scratch; AdamW with linear warm-up and cosine decay."""
    encoder_learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Peak for the encoders that start from trained weights, by modality; the others take `learning_rate`."""
    warm_up: float = 0.1
    """Part of all steps during which the rates rise."""
    weight_decay: float = 0.01
    modality_dropout: float = 0.5
    """Probability that an example loses some of its modalities. Its expectation is computed, not sampled."""
    smoothing: float = 0.05
    """Label smoothing: the probability mass taken from the right label."""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    """What each label counts in the loss; empty: all the same."""
    frozen: tuple[str, ...] = ()
    """Weights whose names begin so stay as they were, and parts of the network too; an encoder's `project` always learns."""
    averaging: float = 0.0
    """Decay of the moving average of the weights, for each step; the average is what is validated and kept. 0: the last weights."""
    retained: float = 0.0
    """How far an encoder that began with trained weights is drawn back to them, from 0 to 1, when it is validated and kept."""
    augment: tuple[str, ...] = ("image", "text")
    """Modalities whose training examples are changed by chance."""
    precision: str = "fp32"
    """fp32, or bf16 or fp16 where the device can: what matrices are multiplied in. Weights and measurements stay float32."""
    seed: int = 0

    def freezes(self, name: str) -> bool:
        """Whether the weight of this name, or the part whose weights' names begin with it, stays as it was."""
        return name.startswith(self.frozen) and not PROJECT.match(name)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a training needs beside the data."""

    network: NetworkConfig
    inputs: Mapping[str, Input]
    training: TrainingConfig
    weights: Mapping[str, Array] = field(default_factory=dict)
    """Trained weights to begin with, by their name in the network."""
    origins: tuple[str, ...] = ()
    """Where those weights come from and under which licence, for the card."""


def cnn_rnn(manifest: Manifest, cache: Path, encoders: Mapping[str, str]) -> Recipe:
    """A small CNN for the image, a bidirectional LSTM for the text, concatenation, a linear head; all from scratch."""
    parts = _parts(manifest, cache, {"image": "cnn", "text": "lstm", **encoders}, trained=False)
    network = _network(manifest, parts, width=128, fusion="concat", dropout=0.2)
    return _recipe(network, parts, TrainingConfig(learning_rate=2e-3))


def pretrained_encoders(manifest: Manifest, cache: Path, encoders: Mapping[str, str]) -> Recipe:
    """EfficientNet-lite0, its upper part fine-tuned, and MiniLM, frozen, each with a perceptron; their sum; a linear head."""
    parts = _parts(manifest, cache, {"image": "efficientnet-lite0", "text": "transformer", **encoders}, trained=True)
    network = _network(manifest, parts, width=256, fusion="sum", dropout=0.2)
    training = TrainingConfig(
        epochs=6,
        patience=6,
        batch_size=32,
        learning_rate=1e-3,
        encoder_learning_rates={"image": 3e-4, "text": 3e-5},
        weight_decay=0.05,
        smoothing=0.0,
        averaging=0.995,
        # Few words, frozen: leaving some out only takes away what there is to read (validation, texts alone, two epochs: 0.746
        # without, 0.70 to 0.71 with it).
        augment=("image",),
        retained=0.1,
    )
    return _recipe(network, parts, training)


PRESETS: Final[Mapping[str, Callable[[Manifest, Path, Mapping[str, str]], Recipe]]] = {
    "cnn-rnn": cnn_rnn,
    "pretrained": pretrained_encoders,
}
"""From the data, the folder for downloads, and by modality the encoders that replace the preset's, to a recipe."""


def _parts(manifest: Manifest, cache: Path, encoders: Mapping[str, str], *, trained: bool) -> dict[str, Part]:
    """The part of each modality that any training row has; what none has can't be learned."""
    rows = manifest.by_split("train")
    wanted = Wanted(tuple(row.text for row in rows if row.text), cache, trained)
    return {name: make_part(name, encoders[name], wanted) for name in learned_modalities(rows)}


def _network(
    manifest: Manifest, parts: Mapping[str, Part], *, width: int, fusion: str, dropout: float
) -> NetworkConfig:
    return NetworkConfig(
        modalities={
            name: ModalityConfig(input=part.input.settings(), encoder=part.encoder) for name, part in parts.items()
        },
        width=width,
        fusion=fusion,
        task=manifest.task,
        labels=manifest.labels,
        scale=manifest.scale,
        dropout=dropout,
    )


def _recipe(network: NetworkConfig, parts: Mapping[str, Part], training: TrainingConfig) -> Recipe:
    """Everything together; an encoder of which only the embeddings were trained before learns at the full rate."""
    weights = {f"encoders.{name}.{key}": array for name, part in parts.items() for key, array in part.weights.items()}
    frozen = tuple(f"encoders.{name}.{prefix}" for name, part in parts.items() for prefix in part.frozen)
    tuned = {name for name, part in parts.items() if any(not key.startswith("embed.") for key in part.weights)}
    rates = {name: rate for name, rate in training.encoder_learning_rates.items() if name in tuned}
    return Recipe(
        network=network,
        inputs={name: part.input for name, part in parts.items()},
        training=replace(training, encoder_learning_rates=rates, frozen=frozen),
        weights=weights,
        origins=tuple(part.origin for part in parts.values() if part.origin),
    )
