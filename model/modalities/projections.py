"""From an encoder's features to an embedding, where one linear layer is not enough."""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

MOMENTUM: Final = 0.05  # of the running statistics: they settle within a hundred batches


class Standardise(nn.BatchNorm1d):
    """Each feature to mean 0 and variance 1, without weights of its own; a batch of one is measured by the running statistics.

    Features of a trained encoder lie around large means that say nothing, beside which what differs between examples is small.
    Layer normalisation would keep these means.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, momentum=MOMENTUM, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        """From (B, F) to (B, F)."""
        if self.training and len(input) == 1:
            return functional.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(input)


def perceptron(features: int, hidden: int, width: int) -> nn.Sequential:
    """Standardise, then two layers with much dropout: for features that stay as they were trained, and few examples."""
    return nn.Sequential(
        Standardise(features),
        nn.Dropout(0.2),
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.Dropout(0.4),
        nn.Linear(hidden, width),
    )
