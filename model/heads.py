"""From the fused embedding to logits, and what training minimises: the trainable half of a task.

B examples, D embedding width, K labels. It stands apart from tasks.py so that scoring needs no torch.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional


class SingleLabelHead(nn.Module):
    """Normalise, then one linear layer to a logit for each label."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.classify = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, labels))

    def forward(self, fused: Tensor) -> Tensor:
        """From (B, D) to logits (B, K)."""
        return self.classify(fused)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Cross-entropy of logits (B, K) against label indices (B,), each example by itself: (B,)."""
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")


HEADS: Final[Mapping[str, type[SingleLabelHead]]] = {"single-label": SingleLabelHead}
