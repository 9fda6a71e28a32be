"""Presets: named recipes of inputs, encoders, fusion and hyper-parameters.

Choices for a modality are in its module `presets`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from polymodal.model.config import ModalityConfig, NetworkConfig
from polymodal.model.errors import ModelError
from polymodal.model.manifest import Manifest
from polymodal.model.modalities import MODALITIES, Input
from polymodal.model.modalities.branch import Branch, BranchOptions, PresetBranch, Presets
from polymodal.model.modalities.hub import is_address
from polymodal.model.progress import console
from polymodal.model.training.usable import learned_modalities
from polymodal.model.types import Array

PROJECT: Final = re.compile(r"encoders\.\w+\.project\.")  # from an encoder's features to an embedding of width D


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Hyper-parameters of the training loop, as in the bundle's report."""

    epochs: int = 30
    """Most epochs; early stopping usually ends sooner."""
    patience: int = 6
    """Epochs without a better validation score before training stops."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Peak for parameters from scratch; AdamW with linear warm-up and cosine decay."""
    encoder_learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Peak for encoders with trained weights, by modality; others use `learning_rate`."""
    warm_up: float = 0.1
    """Share of all steps during which the rates rise."""
    weight_decay: float = 0.01
    modality_dropout: float = 0.5
    """Probability that an example loses some of its modalities; see `Objective`."""
    smoothing: float = 0.05
    """Label smoothing: the probability mass taken from the right label."""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of each label in the loss; empty: 1 for all."""
    frozen: tuple[str, ...] = ()
    """Prefixes of the names of frozen weights; an encoder's `project` always learns."""
    averaging: float = 0.0
    """Decay per step of the moving average of weights, which is validated and kept. 0: the last weights."""
    retained: float = 0.0
    """Share of the trained initial weights, from 0 to 1, in the encoders that are validated and kept."""
    augment: tuple[str, ...] = tuple(MODALITIES)
    """Modalities whose training examples are augmented."""
    align: bool = False
    """Whether the bundle gets alignment heads after the training; rows without a label serve for these too."""
    precision: str = "fp32"
    """Precision of matrix products: fp32, or bf16 or fp16 where the device can. Weights and metrics stay float32."""
    seed: int = 0

    def freezes(self, name: str) -> bool:
        """Return whether the weight, or the module, of this name is frozen."""
        return name.startswith(self.frozen) and not PROJECT.match(name)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a training needs in addition to the data."""

    network: NetworkConfig
    inputs: Mapping[str, Input]
    training: TrainingConfig
    weights: Mapping[str, Array] = field(default_factory=dict)
    """Trained initial weights, by their names in the network."""
    origins: tuple[str, ...] = ()
    """Origins and licences of those weights, for the model card."""


def cnn_rnn(manifest: Manifest, cache: Path, encoders: Mapping[str, str]) -> Recipe:
    """Return a recipe with small encoders from scratch (a CNN, a bidirectional LSTM), concatenation and a linear head."""
    branches = _branches("cnn-rnn", manifest, cache, encoders, trained=False)
    network = _network(manifest, branches, width=128, fusion="concat", dropout=0.2)
    return _recipe("cnn-rnn", network, branches, TrainingConfig(learning_rate=2e-3))


def pretrained_encoders(manifest: Manifest, cache: Path, encoders: Mapping[str, str]) -> Recipe:
    """Return a recipe with trained encoders (EfficientNet-lite0, partly fine-tuned; MiniLM, frozen), their sum, a linear head."""
    branches = _branches("pretrained", manifest, cache, encoders, trained=True)
    network = _network(manifest, branches, width=256, fusion="sum", dropout=0.2)
    training = TrainingConfig(
        epochs=6,
        patience=6,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        smoothing=0.0,
        averaging=0.995,
        retained=0.1,
    )
    return _recipe("pretrained", network, branches, training)


def aligned_encoders(manifest: Manifest, cache: Path, encoders: Mapping[str, str]) -> Recipe:
    """Return the recipe `pretrained`, whose bundle gets alignment heads."""
    recipe = pretrained_encoders(manifest, cache, encoders)
    return replace(recipe, training=replace(recipe.training, align=True))


PRESETS: Final[Mapping[str, Callable[[Manifest, Path, Mapping[str, str]], Recipe]]] = {
    "cnn-rnn": cnn_rnn,
    "pretrained": pretrained_encoders,
    "align": aligned_encoders,
}
"""Arguments: the data, the folder for downloads, and the encoders that replace the preset's, by modality."""


def aligns(preset: str, align: bool | None) -> bool:
    """Return whether a training fits alignment heads: as `align` has it, or as the preset does."""
    return preset == "align" if align is None else align


def presets_of(modality: str) -> Presets:
    """Import a modality's module `presets`."""
    return cast(Presets, MODALITIES[modality].module("presets"))


def make_branch(modality: str, encoder: str, options: BranchOptions) -> Branch:
    """Return a branch with the encoder of that name, or with the model at that address. Raises ModelError."""
    presets = presets_of(modality)
    if is_address(encoder):
        return presets.read_model(encoder, options)
    if encoder not in presets.BRANCHES:
        known = f"{', '.join(presets.BRANCHES)}, a model's folder as ./folder, or hf://owner/name"
        raise ModelError(f"{modality} encoder {encoder!r} is not known; known are {known}")
    branch = presets.BRANCHES[encoder](options)
    if options.trained and not branch.weights:
        console.print(f"{encoder}: no trained weights are known, it starts from scratch")
    return branch


def _branches(
    preset: str, manifest: Manifest, cache: Path, encoders: Mapping[str, str], *, trained: bool
) -> dict[str, Branch]:
    """Return the branch of each modality that any training row has. Raises ModelError."""
    rows = manifest.by_split("train")
    branches = {}
    for name in learned_modalities(rows):
        default = presets_of(name).PRESETS.get(preset)
        encoder = encoders.get(name) or (default.encoder if default else None)
        if encoder is None:
            raise ModelError(f"preset {preset!r} has no {name} encoder; choose one with --{name}-encoder")
        values = (row.inputs.get(name) for row in rows)
        texts = tuple(value for value in values if isinstance(value, str))
        branches[name] = make_branch(name, encoder, BranchOptions(texts, cache, trained))
    return branches


def _network(
    manifest: Manifest, branches: Mapping[str, Branch], *, width: int, fusion: str, dropout: float
) -> NetworkConfig:
    return NetworkConfig(
        modalities={
            name: ModalityConfig(input=branch.input.settings(), encoder=branch.encoder)
            for name, branch in branches.items()
        },
        width=width,
        fusion=fusion,
        target=manifest.target,
        labels=manifest.labels,
        scale=manifest.scale,
        dropout=dropout,
    )


def _recipe(preset: str, network: NetworkConfig, branches: Mapping[str, Branch], training: TrainingConfig) -> Recipe:
    """Return the recipe; an encoder with initial weights for its embeddings alone learns at the full rate."""
    weights = {
        f"encoders.{name}.{key}": array for name, branch in branches.items() for key, array in branch.weights.items()
    }
    frozen = tuple(f"encoders.{name}.{prefix}" for name, branch in branches.items() for prefix in branch.frozen)
    tuned = {name for name, branch in branches.items() if any(not key.startswith("embed.") for key in branch.weights)}
    defaults = {name: presets_of(name).PRESETS.get(preset, PresetBranch("")) for name in branches}
    rates = {name: entry.learning_rate for name, entry in defaults.items() if name in tuned and entry.learning_rate}
    augment = tuple(name for name, entry in defaults.items() if entry.augmented)
    return Recipe(
        network=network,
        inputs={name: branch.input for name, branch in branches.items()},
        training=replace(training, encoder_learning_rates=rates, frozen=frozen, augment=augment),
        weights=weights,
        origins=tuple(branch.origin for branch in branches.values() if branch.origin),
    )
