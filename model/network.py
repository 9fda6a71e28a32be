"""The network of a classifier: encoders → fusion → head.

B examples, M modalities, D embedding width, A width of an aligned vector (0 without alignment heads), K labels.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from torch import Tensor, nn

from polymodal.model.config import AlignmentConfig, NetworkConfig
from polymodal.model.fusion import FUSIONS, Fusion
from polymodal.model.modalities import MODALITIES
from polymodal.model.modalities.projections import Fork, feature_width
from polymodal.model.targets import TARGETS
from polymodal.model.targets.heads import Head


class MultimodalClassifier(nn.Module):
    """One encoder per modality, one fusion, one head."""

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: Fusion, head: Head) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.head = head

    def encode(self, modality: str, batch: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings (B, D + A) of one modality's collated batch."""
        embeddings: Tensor = self.encoders[modality](**batch)
        return embeddings

    def fuse(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Return logits (B, K) of embeddings (B, D) by modality and their presence (B, M)."""
        logits: Tensor = self.head(self.fusion(embeddings, present))
        return logits

    def forward(self, batches: Mapping[str, Mapping[str, Tensor]], present: Tensor) -> Tensor:
        """Return logits (B, K) of collated batches by modality."""
        width = self.fusion.width
        return self.fuse({name: self.encode(name, batch)[:, :width] for name, batch in batches.items()}, present)

    def align(self, config: AlignmentConfig) -> None:
        """Add alignment heads with fresh weights to the encoders, next to their projections."""
        for encoder in self.encoders.values():
            project = cast(nn.Module, encoder.project)
            encoder.project = Fork(project, nn.Linear(feature_width(project), config.width))


def build_network(config: NetworkConfig) -> MultimodalClassifier:
    """Build the network that `config` describes, with fresh weights."""
    encoders = {
        name: encoders_of(name)[modality.encoder.name](config.width, **modality.encoder.options)
        for name, modality in config.modalities.items()
    }
    fusion = FUSIONS[config.fusion](config.order, config.width)
    head = head_type(config.target)(config.width, len(config.labels), config.dropout)
    network = MultimodalClassifier(encoders, fusion, head)
    if config.alignment:
        network.align(config.alignment)
    return network


def encoders_of(modality: str) -> Mapping[str, Callable[..., nn.Module]]:
    """Import a modality's encoders by name."""
    encoders: Mapping[str, Callable[..., nn.Module]] = MODALITIES[modality].module("encoders").ENCODERS
    return encoders


def head_type(target: str) -> type[Head]:
    """Import the class of a target's head."""
    module, _, name = TARGETS[target].head.partition(":")
    head: type[Head] = getattr(import_module(module), name)
    return head
