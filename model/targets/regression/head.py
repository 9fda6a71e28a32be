"""Head of the regression target: smooth L1 loss. B examples, D embedding width."""

from torch import Tensor
from torch.nn import functional

from polymodal.model.targets.heads import Head, linear


class RegressionHead(Head):
    """One linear layer to a number in standard deviations from the train split's mean."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__(width, labels, dropout)
        self.estimate = linear(width, 1, dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """Return logits (B, 1) of fused embeddings (B, D)."""
        return self.estimate(fused)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Return the smooth L1 loss (B,) of (B, 1) against (B,) (Girshick, arXiv:1504.08083), without smoothing and weights."""
        return functional.smooth_l1_loss(logits[:, 0], targets, reduction="none")
