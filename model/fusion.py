"""All ways to combine the embeddings of the present modalities into one, behind one contract.

B examples, M modalities, D embedding width. A fusion is built with `order` (the modalities' names) and `width` (D); it
takes `embeddings` (B, D) by name and `present` bool (B, M) in that order, and gives (B, D). What stands in an absent
modality's embedding never moves the result, not even NaN. At least one modality of each row is present:
the predictor's door saw to it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class LowRankBilinearFusion(Fusion):
    """A product of what is present in a learned space of rank D, projected: every channel of one meets every one of the other.

    P (tanh(U x) ∘ tanh(V y)): Kim et al., "Hadamard Product for Low-rank Bilinear Pooling" (arXiv:1610.04325), for any
    number of modalities; an absent one counts as 1.
    """

    def __init__(self, order: Sequence[str], width: int) -> None:
        super().__init__(order, width)
        self.factors = nn.ModuleList(nn.Linear(width, width) for _ in self.order)
        self.project = nn.Linear(width, width)

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Factors (B, M, D), 1 for the absent, multiplied and projected to (B, D)."""
        factors = torch.stack([factor(stacked[:, m]).tanh() for m, factor in enumerate(self.factors)], dim=1)
        return self.project(torch.where(here, factors, 1.0).prod(dim=1))


class CrossAttentionFusion(Fusion):
    """Each embedding is unfolded into T tokens, and the tokens of all present modalities attend to each other; then their mean.

    One pre-norm transformer layer (Vaswani et al., arXiv:1706.03762) over the tokens of several modalities, as in Tsai et
    al., "Multimodal Transformer" (arXiv:1906.00295), but from embeddings, so that they can still be kept and reused.
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

    def combine(self, stacked: Tensor, here: Tensor) -> Tensor:
        """Tokens (B, M · T, D) attend to those of present modalities, and these are averaged to (B, D)."""
        tokens = torch.cat([unfold(stacked[:, m]) for m, unfold in enumerate(self.unfold)], dim=1)
        states = tokens.reshape(len(tokens), -1, self.width)  # (B, M · T, D)
        known = here.expand(-1, -1, self.TOKENS).flatten(1)  # (B, M · T)
        states = states + self.output(self._attention(self.attention_norm(states), known))
        states = states + self.narrow(functional.gelu(self.widen(self.norm(states))))
        return states.masked_fill(~known[..., None], 0.0).sum(dim=1) / known.sum(dim=1, keepdim=True)

    def _attention(self, states: Tensor, known: Tensor) -> Tensor:
        batch, length, width = states.shape
        query, key, value = (
            each.reshape(batch, length, self.heads, -1).transpose(1, 2) for each in self.attend(states).chunk(3, dim=2)
        )  # (B, A, M · T, D / A) with A heads
        blocked = torch.where(known, 0.0, -torch.inf)[:, None, None, :]
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
