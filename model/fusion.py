"""Fusions, which combine the embeddings of the present modalities into one.

B examples, M modalities, D embedding width. A fusion is built with `order` (the modalities' names) and `width` (D). It
takes `embeddings` (B, D) by name and `present` bool (B, M) in that order, and returns (B, D). The embedding of an absent
modality never changes the result, even if it is NaN. At least one modality of each row is present; `Network.prepare`
rejects examples without any.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional


class Fusion(nn.Module):
    """Base of fusions; subclasses combine the stacked embeddings."""

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__()
        self.order = tuple(order)
        self.width = width

    def forward(self, embeddings: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Combine the present embeddings: (B, D) for each modality to one (B, D)."""
        stacked = torch.stack([embeddings[name] for name in self.order], dim=1)  # (B, M, D)
        present = present[..., None]  # (B, M, 1)
        return self.combine(stacked.masked_fill(~present, 0.0), present)

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Combine embeddings (B, M, D), zero where absent, with their presence (B, M, 1), to (B, D)."""
        raise NotImplementedError


class SumFusion(Fusion):
    """Sum of the present embeddings."""

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Sum over modalities."""
        return stacked.sum(dim=1)


class ProductFusion(Fusion):
    """Elementwise product of the present embeddings."""

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Multiply over modalities; an absent one counts as 1."""
        return torch.where(present, stacked, 1.0).prod(dim=1)


class ConcatFusion(Fusion):
    """Concatenation, with a learned vector in place of each absent modality, projected to D."""

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.absent = nn.Parameter(torch.zeros(len(self.order), width))
        self.project = nn.Linear(len(self.order) * width, width)

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Concatenate (B, M · D), project to (B, D)."""
        return self.project(torch.where(present, stacked, self.absent).flatten(1))


class GatedFusion(Fusion):
    """Weighted mean with weights per channel that are computed from the embeddings.

    After Arevalo et al., "Gated Multimodal Units" (arXiv:1702.01992), with a softmax over the present modalities.
    """

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.gate = nn.Linear(len(self.order) * width, len(self.order) * width)

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Weight by gates (B, M, D) from all present embeddings, −∞ for absent ones."""
        gates = self.gate(stacked.flatten(1)).reshape(-1, len(self.order), self.width)
        return (gates.masked_fill(~present, -torch.inf).softmax(dim=1) * stacked).sum(dim=1)


class LowRankBilinearFusion(Fusion):
    """Product of the present embeddings in a learned space of rank D, projected: every channel interacts with every other.

    P (tanh(U x) ∘ tanh(V y)): Kim et al., "Hadamard Product for Low-rank Bilinear Pooling" (arXiv:1610.04325), for any
    number of modalities; an absent one counts as 1.
    """

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.factors = nn.ModuleList(nn.Linear(width, width) for _ in self.order)
        self.project = nn.Linear(width, width)

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Multiply factors (B, M, D), 1 for absent ones, and project to (B, D)."""
        factors = torch.stack([factor(stacked[:, m]).tanh() for m, factor in enumerate(self.factors)], dim=1)
        return self.project(torch.where(present, factors, 1.0).prod(dim=1))


class CrossAttentionFusion(Fusion):
    """Mean of T tokens per present modality, unfolded from its embedding, after attention among all of them.

    One pre-norm transformer layer (Vaswani et al., arXiv:1706.03762) over the tokens of several modalities, as in Tsai et
    al., "Multimodal Transformer" (arXiv:1906.00295), but from embeddings, so that these can be cached.
    """

    TOKENS: Final = 4  # T
    HEADS: Final = 4  # at most; fewer where they don't divide D

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.heads = math.gcd(width, self.HEADS)
        self.unfold = nn.ModuleList(nn.Linear(width, self.TOKENS * width) for _ in self.order)
        self.attention_norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def combine(self, stacked: Tensor, present: Tensor) -> Tensor:
        """Attend over the tokens (B, M · T, D) of present modalities and average them to (B, D)."""
        tokens = torch.cat([unfold(stacked[:, m]) for m, unfold in enumerate(self.unfold)], dim=1)
        states = tokens.reshape(len(tokens), -1, self.width)  # (B, M · T, D)
        valid = present.expand(-1, -1, self.TOKENS).flatten(1)  # (B, M · T)
        states = states + self.output(self._attention(self.attention_norm(states), valid))
        states = states + self.narrow(functional.gelu(self.widen(self.norm(states))))
        return states.masked_fill(~valid[..., None], 0.0).sum(dim=1) / valid.sum(dim=1, keepdim=True)

    def _attention(self, states: Tensor, valid: Tensor) -> Tensor:
        batch, length, width = states.shape
        query, key, value = (
            chunk.reshape(batch, length, self.heads, -1).transpose(1, 2)
            for chunk in self.attend(states).chunk(3, dim=2)
        )  # (B, A, M · T, D / A) with A heads
        blocked = torch.where(valid, 0.0, -torch.inf)[:, None, None, :]
        attended = functional.scaled_dot_product_attention(query, key, value, blocked)
        return attended.transpose(1, 2).reshape(batch, length, width)


FUSIONS: Final[Mapping[str, type[Fusion]]] = {
    "sum": SumFusion,
    "product": ProductFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "low-rank-bilinear": LowRankBilinearFusion,
    "cross-attention": CrossAttentionFusion,
}
