"""From the fused embedding to logits, and what training minimises: the trainable half of a task.

B examples, D embedding width, K labels. It stands apart from tasks.py so that scoring needs no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module, ABC):
    """What a task adds to the network."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """What training minimises, each example by itself: (B,). `weights` has one for each label: (K,)."""


class SingleLabelHead(Head):
    """One linear layer to a logit for each label."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__(width, labels, dropout)
        self.classify = _linear(width, labels, dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """From (B, D) to logits (B, K)."""
        return self.classify(fused)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy of logits (B, K) against label indices (B,), times the weight of the right label: (B,)."""
        losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses if weights is None else losses * weights[targets]


class MultiLabelHead(SingleLabelHead):
    """The same network, but every label is a question of its own."""

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Mean over the labels of the binary cross-entropy of logits (B, K) against 0 or 1 (B, K): (B,).

        A weight multiplies the part of a label that is present (`pos_weight` of torch); smoothing moves targets towards 1/2.
        """
        smooth = targets * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
        return losses.mean(dim=1)


class RegressionHead(Head):
    """One linear layer to one number, in standard deviations from the training part's mean."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__(width, labels, dropout)
        self.estimate = _linear(width, 1, dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """From (B, D) to (B, 1)."""
        return self.estimate(fused)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Smooth L1 loss (Girshick, arXiv:1504.08083) of (B, 1) against (B,): (B,). There are no labels to smooth or weight."""
        return functional.smooth_l1_loss(logits[:, 0], targets, reduction="none")


def _linear(width: int, outputs: int, dropout: float) -> nn.Sequential:
    # No normalisation before it: that would make every embedding equally long, and no temperature could then tell the sure
    # answers from the unsure ones (docs/decisions/0007).
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))


HEADS: Final[Mapping[str, type[Head]]] = {
    "single-label": SingleLabelHead,
    "multi-label": MultiLabelHead,
    "regression": RegressionHead,
}
