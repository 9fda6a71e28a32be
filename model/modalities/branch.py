"""Branches of a network at the start of a training: the input and the encoder of one modality."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from polymodal.model.config import EncoderConfig
from polymodal.model.modalities import Input
from polymodal.model.types import Array


@dataclass(frozen=True, slots=True)
class Branch:
    """An input with its encoder and initial weights."""

    input: Input
    encoder: EncoderConfig
    weights: Mapping[str, Array] = field(default_factory=dict)
    """Trained initial weights, by their names in the encoder."""
    origin: str | None = None
    """Origin and licence of those weights, for the model card."""
    frozen: tuple[str, ...] = ()
    """Prefixes of the names of weights that are frozen by default."""


@dataclass(frozen=True, slots=True)
class BranchOptions:
    """Arguments for making a branch."""

    texts: tuple[str, ...]
    """Texts of its modality in the train split, for vocabularies; none for a modality of files."""
    cache: Path
    """Folder for downloaded weights."""
    trained: bool
    """Whether to start from trained weights, where there are any."""


@dataclass(frozen=True, slots=True)
class PresetBranch:
    """A preset's choices for a modality."""

    encoder: str
    """A name in the modality's table BRANCHES."""
    learning_rate: float | None = None
    """Peak learning rate of an encoder with trained weights; None: that of parameters trained from scratch."""
    augmented: bool = True
    """Whether its training examples are augmented."""


class Presets(Protocol):
    """Interface of a modality's module `presets`."""

    BRANCHES: Mapping[str, Callable[[BranchOptions], Branch]]
    """By name in the modality's table ENCODERS; encoders of other libraries have addresses instead."""
    PRESETS: Mapping[str, PresetBranch]
    """By name of the preset; a preset that is missing has no encoder for this modality."""

    def read_model(self, address: str, options: BranchOptions) -> Branch:
        """Return the branch of a model folder, on this machine or from the hub. Raises ModelError."""

    def lenient_input(self) -> Input:
        """Return an input that rejects what every preset rejects, without the vocabulary that a preset would need."""
