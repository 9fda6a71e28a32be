"""Text encoders: networks from token ids to an embedding.

B texts, L tokens of the longest, W width inside the encoder, A attention heads, D embedding width. Every encoder is
built with D and the vocabulary's size, and takes `ids` int64 (B, L) and `mask` bool (B, L), true where there is a token, to float32
(B, D); padding never changes the result.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from polymodal.model.modalities import libraries
from polymodal.model.modalities.projections import perceptron


class StaticEncoder(nn.Module):
    """Mean of the tokens' embeddings through a small perceptron: the cheapest encoder, which ignores the order of words.

    After Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods" (ACL 2015).
    """

    def __init__(self, width: int, vocabulary: int, tokens: int = 256, hidden: int = 256, dropout: float = 0.3) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, tokens)
        self.project = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(tokens, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, L) to (B, D)."""
        return self.project(_masked_mean(self.embed(ids), mask))


class RecurrentEncoder(nn.Module):
    """A bidirectional LSTM or GRU over token embeddings; the mean and the maximum over time are projected.

    `cell` is a name in CELLS: "lstm" (Hochreiter & Schmidhuber 1997) or "gru" (Cho et al., arXiv:1406.1078). Both
    directions start at a text's own first or last token: the backward one reads each text reversed within its own length,
    so that padding comes after the text in both and can't reach it.
    """

    CELLS: Final[Mapping[str, type[nn.LSTM | nn.GRU]]] = MappingProxyType({"lstm": nn.LSTM, "gru": nn.GRU})

    def __init__(
        self,
        width: int,
        vocabulary: int,
        cell: str = "lstm",
        hidden: int = 128,
        tokens: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, tokens)
        self.dropout = nn.Dropout(dropout)
        self.forwards = self.CELLS[cell](tokens, hidden, batch_first=True)
        self.backwards = self.CELLS[cell](tokens, hidden, batch_first=True)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * hidden, width))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, L) to (B, D)."""
        embedded = self.dropout(self.embed(ids))  # (B, L, W)
        steps = torch.arange(ids.shape[1], device=ids.device)[None, :]
        mirrored = (mask.sum(dim=1, keepdim=True) - 1 - steps).clamp(min=0)  # (B, L)
        reverse = mirrored[..., None].expand_as(embedded)
        with _whole_precision(embedded.device):
            ahead, _ = self.forwards(embedded)  # (B, L, H)
            behind, _ = self.backwards(embedded.gather(1, reverse))
        states = torch.cat([ahead, behind], dim=2)  # (B, L, 2 H)
        present = mask[..., None]
        mean = _masked_mean(states, mask)
        # Outputs of both cells are in −1 … 1, so −1 is never the maximum over a real token.
        highest = states.masked_fill(~present, -1.0).amax(dim=1)
        return self.project(torch.cat([mean, highest], dim=1))


def _whole_precision(device: torch.device) -> AbstractContextManager[object]:
    """Disable half precision for recurrent cells on a CPU: without AVX-512 torch raises instead of converting."""
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


class TransformerEncoder(nn.Module):
    """A BERT-shaped transformer (post-norm, GELU), mean over tokens: the shape of all-MiniLM-L6-v2.

    `pool` has the numbers of the layers whose means are concatenated for the projection, 0 being the token embeddings; by default
    the last one alone. Lower layers represent words, upper ones sentences. `projection` is the number of hidden units of the
    projection; with 0 it is one linear layer.
    Devlin et al., "BERT" (arXiv:1810.04805); pooling as in Reimers & Gurevych, "Sentence-BERT" (arXiv:1908.10084).
    The defaults are MiniLM's (arXiv:2002.10957); `presets.py` has its weights.
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        hidden: int = 384,
        layers: int = 6,
        heads: int = 12,
        inner: int = 1536,
        positions: int = 64,
        dropout: float = 0.1,
        pool: Sequence[int] = (),
        projection: int = 0,
    ) -> None:
        super().__init__()
        self.pool = tuple(pool) or (layers,)
        self.embed = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(positions, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_TransformerLayer(hidden, heads, inner, dropout) for _ in range(layers))
        features = len(self.pool) * hidden
        self.project = perceptron(features, projection, width) if projection else nn.Linear(features, width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, L) to (B, D)."""
        steps = torch.arange(ids.shape[1], device=ids.device)
        states = self.dropout(self.norm(self.embed(ids) + self.positions(steps)))  # (B, L, W)
        # Added to attention's logits: 0 for a token, almost −∞ for padding.
        blocked = torch.where(mask, 0.0, -1e9)[:, None, None, :]  # (B, 1, 1, L)
        outputs = [states]
        for layer in self.layers:
            outputs.append(layer(outputs[-1], blocked))
        return self.project(self.dropout(torch.cat([_masked_mean(outputs[layer], mask) for layer in self.pool], dim=1)))


class TransformersEncoder(nn.Module):
    """Any text model of Hugging Face transformers, built from its `config` alone; mean over tokens.

    `features` is the width of its states. `vocabulary`, the tokenizer's size, must not be larger than the model's.
    """

    def __init__(
        self, width: int, vocabulary: int, config: Mapping[str, Any], features: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.model = libraries.transformers_model(config)
        if vocabulary > (embedded := config.get("vocab_size", vocabulary)):
            raise ValueError(f"vocabulary of {vocabulary:,} tokens; the model has embeddings for {embedded:,}")
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(features, width)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch: (B, L) to (B, D)."""
        return self.project(self.dropout(self.pool(ids, mask)))

    def pool(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the model's states: (B, L) to (B, `features`)."""
        states = self.model(input_ids=ids, attention_mask=mask.to(torch.int64)).last_hidden_state  # (B, L, W)
        return _masked_mean(states, mask)


class _TransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each added to its input and then normalised."""

    def __init__(self, hidden: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.widen = nn.Linear(hidden, inner)
        self.narrow = nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, blocked: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(states)), self._split(self.key(states)), self._split(self.value(states)), blocked
        )  # (B, A, L, W / A)
        merged = self.output(attended.transpose(1, 2).flatten(2))  # (B, L, W)
        states = self.attention_norm(states + self.dropout(merged))
        return self.norm(states + self.dropout(self.narrow(functional.gelu(self.widen(states)))))

    def _split(self, states: Tensor) -> Tensor:
        batch, length, _ = states.shape
        return states.reshape(batch, length, self.heads, -1).transpose(1, 2)  # (B, A, L, W / A)


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens of each text: (B, L, W) to (B, W).

    A product of matrices, because ONNX Runtime's ReduceSum adds in another order for one text than for several.
    """
    weights = mask.to(states.dtype)[:, None, :]  # (B, 1, L)
    return (weights @ states).squeeze(1) / weights.sum(dim=2)


ENCODERS: Final[Mapping[str, Callable[..., nn.Module]]] = {
    "static": StaticEncoder,
    "lstm": partial(RecurrentEncoder, cell="lstm"),
    "gru": partial(RecurrentEncoder, cell="gru"),
    "transformer": TransformerEncoder,
    "transformers": TransformersEncoder,
}
