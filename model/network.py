"""Encoders → fusion → head, and nothing else: where the rooms of the model package meet.

B examples, M modalities, D embedding width, K labels.
"""

from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor, nn

from model.config import NetworkConfig
from model.fusion import FUSIONS, Fusion
from model.heads import HEADS, Head
from model.modalities.image.encoders import ENCODERS as IMAGE_ENCODERS
from model.modalities.text.encoders import ENCODERS as TEXT_ENCODERS

ENCODERS: Final[Mapping[str, Mapping[str, Callable[..., nn.Module]]]] = {"image": IMAGE_ENCODERS, "text": TEXT_ENCODERS}


class MultimodalClassifier(nn.Module):
    """One encoder per modality, one fusion, one head."""

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: Fusion, head: Head) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.head = head

    def encode(self, modality: str, batch: Mapping[str, Tensor]) -> Tensor:
        """One modality's collated batch to embeddings (B, D)."""
        embeddings: Tensor = self.encoders[modality](**batch)
        return embeddings

    def fuse(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Embeddings (B, D) by modality and their presence (B, M) to logits (B, K)."""
        logits: Tensor = self.head(self.fusion(embeddings, present))
        return logits

    def forward(self, batches: Mapping[str, Mapping[str, Tensor]], present: Tensor) -> Tensor:
        """Collated batches by modality to logits (B, K)."""
        return self.fuse({name: self.encode(name, batch) for name, batch in batches.items()}, present)


def build_network(config: NetworkConfig) -> MultimodalClassifier:
    """The network that `config` describes, with fresh weights."""
    encoders = {
        name: ENCODERS[name][modality.encoder.name](config.width, **modality.encoder.options)
        for name, modality in config.modalities.items()
    }
    fusion = FUSIONS[config.fusion](config.order, config.width)
    head = HEADS[config.task](config.width, len(config.labels), config.dropout)
    return MultimodalClassifier(encoders, fusion, head)
