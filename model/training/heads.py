"""Alignment heads: linear maps from the features of frozen encoders to a space that all modalities share.

The first heads are the linear maps whose outputs correlate most between the modalities: canonical correlation analysis (Hotelling
1936) with a ridge (Vinod 1976); for more than two modalities, with the sum over all pairs (Kettenring 1971). From there they are
trained contrastively, with InfoNCE (arXiv:1807.03748) and with SigLIP's sigmoid (arXiv:2303.15343). The validation split chooses.

N rows, F width of features, A width of an aligned vector, B rows of a batch.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations, combinations_with_replacement
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional

from polymodal.model.evaluation.retrieval import one_per_group, ranks
from polymodal.model.progress import console, track
from polymodal.model.tasks.embed import normalised
from polymodal.model.training.pairs import Pairs, Rows
from polymodal.model.types import FloatArray

WIDTH: Final = 256
RIDGES: Final = (0.1, 0.3, 1.0, 3.0)
"""Candidates for the ridge, as a multiple of the mean variance of a feature."""
POWERS: Final = (1.0, 0.5)
"""Candidates for the power of its correlation by which a direction is scaled: the lower, the more weak correlations count."""
EPOCHS: Final = 8
BATCH: Final = 1024
LEARNING_RATE: Final = 1e-4
DROPOUT: Final = 0.3
"""Share of the features that are replaced by their mean in contrastive training."""
SCALE, BIAS = 20.0, -10.0
"""Initial factor of cosines and, for the sigmoid, initial bias of the logit."""

Heads = Mapping[str, tuple[FloatArray, FloatArray]]
"""Weights (A, F) and biases (A,) by modality."""
Means = dict[str, npt.NDArray[np.float64]]
Covariances = dict[tuple[str, str], npt.NDArray[np.float64]]
Vectors = Mapping[str, FloatArray]
"""Aligned vectors (N, A) of length 1 by modality; those of absent modalities mean nothing."""


def fit_heads(pairs: Pairs, seed: int = 0) -> tuple[Heads, dict[str, float]]:
    """Fit heads to the train split, and return the best ones on the validation split.

    Returns them with the mean reciprocal rank of every attempt there, by its name, best first.
    """
    covariances, means = _covariances(pairs)
    fitted: dict[str, Heads] = {}
    tried: dict[str, float] = {}

    def attempt(name: str, heads: Heads) -> None:
        fitted[name], tried[name] = heads, _score(embed(heads, pairs), pairs)

    for ridge in track(RIDGES, "aligning", len(RIDGES), "ridges"):
        for power, heads in zip(POWERS, _canonical(covariances, means, ridge), strict=True):
            attempt(f"canonical correlation, ridge {ridge}, power {power}", heads)
    first = max(tried, key=tried.__getitem__)
    for loss in _LOSSES:
        attempt(f"{first}, then {loss}", _contrastive(fitted[first], means, pairs, loss, seed))
    best_first = sorted(tried, key=tried.__getitem__, reverse=True)
    console.print(
        f"alignment: {best_first[0]}; mean reciprocal rank on the validation split {tried[best_first[0]]:.3f}"
    )
    return fitted[best_first[0]], {name: tried[name] for name in best_first}


def _covariances(pairs: Pairs) -> tuple[Covariances, Means]:
    """Return the covariances (F, F) of features within and between modalities, and their means (F,).

    Every group counts as one, however many rows it has.
    """

    def weighted(*names: str) -> tuple[Rows, npt.NDArray[np.float64]]:
        rows = pairs.having("train", *names)
        _, groups, sizes = np.unique(pairs.groups[rows], return_inverse=True, return_counts=True)
        weights = 1 / sizes[groups]
        return rows, weights / weights.sum()

    means, covariances = {}, {}
    for name, features in pairs.features.items():
        rows, weights = weighted(name)
        means[name] = weights @ features[rows].astype(np.float64)
    for one, other in combinations_with_replacement(pairs.features, 2):
        rows, weights = weighted(one, other)
        left = (pairs.features[one][rows] - means[one]) * weights[:, None]
        covariances[one, other] = left.T @ (pairs.features[other][rows] - means[other])
    return covariances, means


def _canonical(covariances: Covariances, means: Means, ridge: float) -> list[Heads]:
    """Return the maps of canonical correlation analysis, scaled by the correlations to each of POWERS."""
    whitening = {}
    for name in means:
        values, vectors = np.linalg.eigh(covariances[name, name])
        values = np.maximum(values, 0.0) + ridge * values.clip(min=0.0).mean()
        whitening[name] = (vectors / np.sqrt(values)) @ vectors.T
    starts = dict(zip(means, np.cumsum([0, *(len(mean) for mean in means.values())]).tolist(), strict=False))
    size = sum(len(mean) for mean in means.values())
    correlations = np.zeros((size, size))  # the lower triangle, which `eigh` reads
    for one, other in combinations(means, 2):
        block = whitening[other] @ covariances[one, other].T @ whitening[one]
        down, across = starts[other], starts[one]
        correlations[down : down + len(block), across : across + block.shape[1]] = block
    width = min(WIDTH, *(len(mean) for mean in means.values()))
    values, vectors = eigh(correlations, subset_by_index=[size - width, size - 1])
    scaled: list[dict[str, tuple[FloatArray, FloatArray]]] = [{} for _ in POWERS]
    for name, mean in means.items():
        directions = whitening[name] @ vectors[starts[name] : starts[name] + len(mean)]
        for power, heads in zip(POWERS, scaled, strict=True):
            weights = (directions * np.maximum(values, 0.0) ** power).T  # (A, F)
            weights /= np.sqrt(np.einsum("af,fg,ag->", weights, covariances[name, name], weights, optimize=True))
            heads[name] = weights.astype(np.float32), (-weights @ mean).astype(np.float32)  # mean squared length 1
    return list(scaled)


def _contrastive(heads: Heads, means: Means, pairs: Pairs, loss: str, seed: int) -> Heads:
    """Return heads that were trained further with a contrastive loss; rows of one group are no negatives of each other."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    layers = nn.ModuleDict({name: nn.Linear(*reversed(weights.shape)) for name, (weights, _) in heads.items()})
    for name, (weights, biases) in heads.items():
        layers[name].load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.from_numpy(biases)})
    scale, bias = nn.Parameter(torch.tensor(math.log(SCALE))), nn.Parameter(torch.tensor(BIAS))
    centres = {name: torch.from_numpy(mean.astype(np.float32)) for name, mean in means.items()}
    rows = {names: pairs.having("train", *names) for names in combinations(heads, 2)}
    steps = [(names, having) for names, having in rows.items() for _ in range(math.ceil(len(having) / BATCH))]
    parameters = [{"params": layers.parameters(), "lr": LEARNING_RATE}, {"params": [scale, bias], "lr": 1e-2}]
    optimizer = torch.optim.Adam(parameters)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(steps))
    for _ in track(range(EPOCHS), loss, EPOCHS, "epochs"):
        for names, having in (steps[number] for number in generator.permutation(len(steps))):
            batch = generator.choice(having, min(BATCH, len(having)), replace=False)
            vectors = []
            for name in names:
                features = torch.from_numpy(pairs.features[name][batch]) - centres[name]
                vectors.append(
                    functional.normalize(layers[name](functional.dropout(features, DROPOUT) + centres[name]))
                )
            own = torch.from_numpy(pairs.groups[batch])
            logits = vectors[0] @ vectors[1].T * scale.exp()
            value = _LOSSES[loss](logits, bias, own[:, None] == own[None])
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return {
        name: (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear)
    }


def _infonce(logits: Tensor, bias: Tensor, same: Tensor) -> Tensor:
    """Return the mean cross entropy of finding a row's pair in the batch, both ways."""
    own = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(same & ~own, -torch.inf)
    targets = torch.arange(len(logits))
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def _sigmoid(logits: Tensor, bias: Tensor, same: Tensor) -> Tensor:
    """Return the sum over a row of the binary cross entropy of each pair in the batch, averaged over rows."""
    own = torch.eye(len(logits), dtype=torch.bool)
    losses = -functional.logsigmoid(torch.where(own, 1.0, -1.0) * (logits + bias))
    return losses.masked_fill(same & ~own, 0.0).sum() / len(logits)


_LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {"infonce": _infonce, "sigmoid": _sigmoid}


def embed(heads: Heads, pairs: Pairs) -> Vectors:
    """Return the aligned vectors of all rows."""
    return {name: normalised(pairs.features[name] @ weights.T + biases) for name, (weights, biases) in heads.items()}


def _score(vectors: Vectors, pairs: Pairs) -> float:
    """Return the mean reciprocal rank on the validation split, over pairs of modalities and both directions."""
    values = []
    for one, other in combinations(vectors, 2):
        rows = gallery(pairs, pairs.having("validation", one, other))
        both = [vectors[name][rows] for name in (one, other)]
        values += [float((1 / ranks(*order)).mean()) for order in (both, both[::-1])]
    return float(np.mean(values))


def gallery(pairs: Pairs, rows: Rows) -> Rows:
    """Return one row of each group."""
    return rows[one_per_group(pairs.groups[rows])]
