"""Heads compute logits from the fused embedding, and the loss that training minimises. Torch.

B examples, D embedding width, K labels.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """A target's last layers and loss."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Return the loss (B,) of each example; `weights` (K,) has one weight for each label."""


class LabelHead(Head):
    """One linear layer to a logit for each label; subclasses define the loss."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__(width, labels, dropout)
        self.classify = linear(width, labels, dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """Return logits (B, K) of fused embeddings (B, D)."""
        return self.classify(fused)


def linear(width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Build dropout and one linear layer: (B, D) to (B, outputs)."""
    # Without normalisation, which would make all embeddings equally long, so that no temperature could separate confident
    # predictions from others (docs/decisions/0007).
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))
