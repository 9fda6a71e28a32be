"""All ways to combine the embeddings of the present modalities into one, behind one contract.

B examples, M modalities, D embedding width. A fusion is built with `order` (the modalities' names) and `width` (D); it
takes `embeddings` (B, D) by name and `present` bool (B, M) in that order, and gives (B, D). What stands in an absent
modality's embedding never moves the result, not even NaN. At least one modality of each row is present:
the predictor's door saw to it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """The contract; subclasses combine the stacked embeddings."""

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__()
        self.order = tuple(order)
        self.width = width

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Combine what is present: (B, D) for each modality to one (B, D)."""
        stacked = torch.stack([embeddings[name] for name in self.order], dim=1)  # (B, M, D)
        here = present[..., None]  # (B, M, 1)
        return self.combine(stacked.masked_fill(~here, 0.0), here)

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """From embeddings (B, M, D), zero where absent, and their presence (B, M, 1) to (B, D)."""
        raise NotImplementedError


class SumFusion(Fusion):
    """The sum of what is present."""

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Sum over modalities."""
        return stacked.sum(dim=1)


class ProductFusion(Fusion):
    """The elementwise product of what is present."""

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Product over modalities; an absent one counts as 1."""
        return torch.where(here, stacked, 1.0).prod(dim=1)


class ConcatFusion(Fusion):
    """Side by side, zeros where absent, with a learned offset for each absent modality; then projected to D."""

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.absent = nn.Parameter(torch.zeros(len(self.order), width))
        self.project = nn.Linear(len(self.order) * width, width)

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Concatenate (B, M · D), project to (B, D)."""
        return self.project(torch.where(here, stacked, self.absent).flatten(1))


class GatedFusion(Fusion):
    """A weighted mean whose weights the embeddings themselves decide, channel by channel.

    After Arevalo et al., "Gated Multimodal Units" (arXiv:1702.01992), with a softmax over the present modalities.
    """

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.gate = nn.Linear(len(self.order) * width, len(self.order) * width)

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Gates (B, M, D) from everything present, −∞ for the absent."""
        gates = self.gate(stacked.flatten(1)).reshape(-1, len(self.order), self.width)
        return (gates.masked_fill(~here, -torch.inf).softmax(dim=1) * stacked).sum(dim=1)


FUSIONS: Final[Mapping[str, type[Fusion]]] = {
    "sum": SumFusion,
    "product": ProductFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
}
