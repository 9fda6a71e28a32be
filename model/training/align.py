"""Alignment heads: a space that all modalities share, fitted to pairs while the encoders stay as they are.

The heads are the linear maps whose outputs correlate most between the modalities: canonical correlation analysis (Hotelling 1936)
with a ridge (Vinod 1976); for more than two modalities, with the sum over all pairs (Kettenring 1971). From there they are trained
contrastively, with InfoNCE (arXiv:1807.03748) and with SigLIP's sigmoid (arXiv:2303.15343). The validation split chooses.

N rows, F width of features, A width of an aligned vector.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import combinations, combinations_with_replacement, pairwise, permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from polymodal.model.alignment import match_of, pair_key
from polymodal.model.bundle import check_replaceable, compress_weights, decompress_weights, read_bundle, write_bundle
from polymodal.model.calibration import best_threshold
from polymodal.model.capabilities import Space
from polymodal.model.config import AlignmentConfig, BundleConfig, MatchConfig
from polymodal.model.errors import ModelError
from polymodal.model.evaluation.retrieval import DRAWN, matching, negative_pairs, one_per_group, ranks, retrieval
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import read_inputs
from polymodal.model.network import build_network
from polymodal.model.progress import console, track, warn
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.tasks.embed import normalised
from polymodal.model.training.card import SIMILARITY, similarity, with_section
from polymodal.model.training.examples import CHUNK
from polymodal.model.training.fit import use_available_cores
from polymodal.model.training.pairs import Pairs, read_pairs
from polymodal.model.training.repack import export_network, trained_examples
from polymodal.model.training.train import load_verified
from polymodal.model.types import Array, FloatArray

WIDTH: Final = 256
RIDGES: Final = (0.1, 0.3, 1.0, 3.0)
"""Candidates for the ridge, as a multiple of the mean variance of a feature."""
FEWEST_GROUPS: Final = 20
"""Fewest groups of the validation split with a calibration of `match`, and for choosing heads at all."""
EPOCHS: Final = 8
BATCH: Final = 1024
LEARNING_RATE: Final = 1e-4
DROPOUT: Final = 0.3
"""Share of the features that are replaced by their mean in contrastive training."""
SCALE, BIAS = 20.0, -10.0
"""Initial factor of cosines and, for the sigmoid, initial bias of the logit."""
DECIMALS: Final = 4

Heads = Mapping[str, tuple[FloatArray, FloatArray]]
"""Weights (A, F) and biases (A,) by modality."""
Means = dict[str, npt.NDArray[np.float64]]
Covariances = dict[tuple[str, str], npt.NDArray[np.float64]]
Vectors = Mapping[str, FloatArray]
"""Aligned vectors (N, A) of length 1 by modality; those of absent modalities mean nothing."""
Rows = npt.NDArray[np.int64]


def fit_heads(pairs: Pairs, seed: int = 0) -> tuple[Heads, dict[str, float]]:
    """Fit heads to the train split, and return the best ones on the validation split.

    Returns them with the mean reciprocal rank of every attempt there, by its name, best first. Raises ModelError when a split has
    too few pairs.
    """
    _check(pairs)
    covariances, means = _covariances(pairs)
    fitted: dict[str, Heads] = {}
    tried: dict[str, float] = {}

    def attempt(name: str, heads: Heads) -> None:
        fitted[name], tried[name] = heads, _score(embed(heads, pairs), pairs)

    for ridge in track(RIDGES, "aligning", len(RIDGES), "ridges"):
        attempt(f"canonical correlation, ridge {ridge}", _canonical(covariances, means, ridge))
    first = max(tried, key=tried.__getitem__)
    for loss in _LOSSES:
        attempt(f"{first}, then {loss}", _contrastive(fitted[first], means, pairs, loss, seed))
    best_first = sorted(tried, key=tried.__getitem__, reverse=True)
    console.print(
        f"alignment: {best_first[0]}; mean reciprocal rank on the validation split {tried[best_first[0]]:.3f}"
    )
    return fitted[best_first[0]], {name: tried[name] for name in best_first}


def _check(pairs: Pairs) -> None:
    for split in ("train", "validation"):
        for names in combinations(pairs.features, 2):
            count = len(set(pairs.groups(pairs.having(split, *names))))
            if count < FEWEST_GROUPS:
                both = " and ".join(names)
                raise ModelError(
                    f"alignment: {count} groups of the {split} split have {both}; allowed: at least {FEWEST_GROUPS}"
                )


def _covariances(pairs: Pairs) -> tuple[Covariances, Means]:
    """Return the covariances (F, F) of features within and between modalities, and their means (F,).

    Every group counts as one, however many rows it has.
    """

    def weighted(*names: str) -> tuple[Rows, npt.NDArray[np.float64]]:
        rows = pairs.having("train", *names)
        groups = pairs.groups(rows)
        sizes = Counter(groups)
        weights = np.asarray([1 / sizes[group] for group in groups])
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


def _canonical(covariances: Covariances, means: Means, ridge: float) -> Heads:
    """Return the maps of canonical correlation analysis, scaled by the correlations."""
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
    heads = {}
    for name, mean in means.items():
        directions = vectors[starts[name] : starts[name] + len(mean)]
        weights = (whitening[name] @ directions * np.maximum(values, 0.0)).T  # (A, F)
        weights /= np.sqrt(np.einsum("af,fg,ag->", weights, covariances[name, name], weights))  # mean squared length 1
        heads[name] = weights.astype(np.float32), (-weights @ mean).astype(np.float32)
    return heads


def _contrastive(heads: Heads, means: Means, pairs: Pairs, loss: str, seed: int) -> Heads:
    """Return heads that were trained further with a contrastive loss; rows of one group are no negatives of each other."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    layers = nn.ModuleDict({name: nn.Linear(*reversed(weights.shape)) for name, (weights, _) in heads.items()})
    for name, (weights, biases) in heads.items():
        layers[name].load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.from_numpy(biases)})
    scale, bias = nn.Parameter(torch.tensor(math.log(SCALE))), nn.Parameter(torch.tensor(BIAS))
    groups = {name: number for number, name in enumerate({row.group for row in pairs.rows})}
    numbers = np.asarray([groups[row.group] for row in pairs.rows])
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
            own = torch.from_numpy(numbers[batch])
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


# --- bundles ---


def align(
    directory: Path,
    source: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    work: Path,
    seed: int = 0,
    split_seed: int = 0,
    measure_test: bool = True,
    workers: int = 2,
    roots: Sequence[Path] = (),
) -> Network:
    """Write the bundle at `directory` to `out` with alignment heads, fitted to the pairs of the manifest `source`.

    Everything else stays as it is: the classifier's scores do not change. Heads that the bundle has are replaced. 8-bit encoders
    need `manifest`, the manifest that the bundle was trained on; prepared rows of it are kept in `work`. `match` is calibrated and
    retrieval is measured in 8 bits, or without them with torch. Raises ModelError, and ManifestError.
    """
    check_replaceable(out)
    use_available_cores()
    bundle = read_bundle(directory)
    plain, stored = _without_heads(bundle.config, bundle.read_stored())
    network = build_network(plain.network)
    network.load_state_dict(_tensors(decompress_weights(stored)))
    pairs = read_pairs(source, network, bundle.inputs, roots=roots, split_seed=split_seed, workers=workers)
    warn((*pairs.warnings, *pairs.faults))
    heads, tried = fit_heads(pairs, seed)
    config, stored = _with_heads(plain, stored, heads)
    network = build_network(config.network)
    network.load_state_dict(_tensors(decompress_weights(stored)))
    console.print("exporting …")
    examples = trained_examples(bundle, manifest, work, split_seed, workers, roots) if manifest else None
    bundle = replace(bundle, config=config)
    exported = export_network(bundle, network, stored, examples, measure_test)
    console.print("calibrating and measuring …")
    measured = ("validation", *(("test", "unseen") if measure_test else ()))
    runtime = exported.runtime or TorchRuntime(network, torch.device("cpu"))
    vectors = _served(Network(bundle, runtime), pairs, measured)
    config = config.model_copy(update={"matches": calibrate(vectors, pairs)})
    exported.report["alignment"] = {
        "width": config.network.encoded - config.network.width,
        "heads": next(iter(tried)),
        "mean_reciprocal_rank": tried,
        "data": pairs.describe(),
        "left_out": len(pairs.faults),
        "runtime": runtime.name,
        "metrics": {
            split: measure(vectors, config.matches or {}, pairs, split)
            for split in measured
            if any(row.split == split for row in pairs.rows)
        },
    }
    write_bundle(
        out,
        config=config,
        inputs=bundle.inputs,
        weights=stored,
        graphs=exported.graphs,
        report=exported.report,
        golden=exported.golden,
        card=with_section(exported.card, SIMILARITY, similarity(exported.report)),
        verify=load_verified,
    )
    return load_verified(out)


def _tensors(weights: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


_CLASSIFY: Final = re.compile(r"(encoders\.\w+\.project\.)classify\.")
_PROJECT: Final = re.compile(r"(encoders\.\w+\.project\.)")
_ALIGN: Final = re.compile(r"encoders\.\w+\.project\.align\.")


def _without_heads(config: BundleConfig, stored: Mapping[str, Array]) -> tuple[BundleConfig, dict[str, Array]]:
    """Return config and stored weights of the same bundle without alignment heads."""
    if config.network.alignment is None:
        return config, dict(stored)
    plain = config.network.model_copy(update={"alignment": None})
    weights = {_CLASSIFY.sub(r"\1", name): array for name, array in stored.items() if not _ALIGN.match(name)}
    return config.model_copy(update={"network": plain, "matches": None}), weights


def _with_heads(
    config: BundleConfig, stored: Mapping[str, Array], heads: Heads
) -> tuple[BundleConfig, dict[str, Array]]:
    """Return config and stored weights with alignment heads; the other weights keep their numbers."""
    alignment = AlignmentConfig(width=len(next(iter(heads.values()))[1]))
    added: dict[str, Array] = {}
    for name, (weights, biases) in heads.items():
        added |= {
            f"encoders.{name}.project.align.{key}": value for key, value in (("weight", weights), ("bias", biases))
        }
    renamed = {_PROJECT.sub(r"\1classify.", name): array for name, array in stored.items()}
    network = config.network.model_copy(update={"alignment": alignment})
    return config.model_copy(update={"network": network}), renamed | compress_weights(added)


def _served(model: Network, pairs: Pairs, splits: Sequence[str]) -> Vectors:
    """Return the vectors that a model serves for the rows of these splits, and zeros for other rows."""
    width = model.description.spaces[Space.ALIGNED]
    vectors = {name: np.zeros((len(pairs.rows), width), dtype=np.float32) for name in pairs.features}
    numbers = [number for number, row in enumerate(pairs.rows) if row.split in splits]
    for start in track(range(0, len(numbers), CHUNK), "measuring", math.ceil(len(numbers) / CHUNK), "batches"):
        chunk = numbers[start : start + CHUNK]
        samples = [model.prepare(read_inputs(pairs.rows[number], pairs.features)) for number in chunk]
        for name, rows in model.vectors(model.embed(samples), Space.ALIGNED).items():
            vectors[name][chunk] = normalised(rows)
    return vectors


# --- measuring ---


def embed(heads: Heads, pairs: Pairs) -> Vectors:
    """Return the aligned vectors of all rows."""
    return {name: normalised(pairs.features[name] @ weights.T + biases) for name, (weights, biases) in heads.items()}


def _fused(vectors: Vectors, rows: Rows, names: Iterable[str]) -> FloatArray:
    return normalised(np.mean([vectors[name][rows] for name in names], axis=0))


def _score(vectors: Vectors, pairs: Pairs) -> float:
    """Return the mean reciprocal rank on the validation split, over pairs of modalities and both directions."""
    values = []
    for one, other in combinations(vectors, 2):
        rows = _gallery(pairs, pairs.having("validation", one, other))
        both = [vectors[name][rows] for name in (one, other)]
        values += [float((1 / ranks(*order)).mean()) for order in (both, both[::-1])]
    return float(np.mean(values))


def _gallery(pairs: Pairs, rows: Rows) -> Rows:
    return rows[one_per_group(pairs.groups(rows))]


def _sets(vectors: Vectors) -> list[tuple[str, ...]]:
    """Return each modality alone, and all together."""
    return [*((name,) for name in vectors), *((tuple(vectors),) if len(vectors) > 1 else ())]


def calibrate(vectors: Vectors, pairs: Pairs) -> dict[str, MatchConfig]:
    """Fit `match` for every pair of sets of modalities of which the validation split has enough pairs (Platt, 1999)."""
    matches = {}
    for one, other in combinations_with_replacement(_sets(vectors), 2):
        positive, negative, groups = _cosines(vectors, pairs, "validation", one, other)
        if groups < FEWEST_GROUPS:
            continue
        values = np.concatenate([positive, negative])
        truth = np.arange(len(values)) < len(positive)
        fitted = LogisticRegression(C=1e6, class_weight="balanced").fit(values[:, None], truth)
        slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        if slope <= 0:  # such pairs are not more similar than others
            continue
        unselected = MatchConfig(slope=slope, intercept=intercept, threshold=1.0)
        scores = np.asarray([match_of(float(value), unselected) for value in _even(positive, negative)], np.float32)
        threshold = best_threshold(scores, np.arange(len(scores)) < len(scores) // 2, DECIMALS)
        matches[pair_key(one, other)] = MatchConfig(slope=slope, intercept=intercept, threshold=threshold)
    return matches


def _even(positive: FloatArray, negative: FloatArray) -> FloatArray:
    """Return as many positive values as negative ones: first the positive ones, repeated."""
    return np.concatenate([np.resize(positive, len(negative)), negative])


def _cosines(
    vectors: Vectors, pairs: Pairs, split: str, one: tuple[str, ...], other: tuple[str, ...]
) -> tuple[FloatArray, FloatArray, int]:
    """Return the cosines of pairs that belong together and of random ones, and the number of groups of the former.

    Sets without a common modality are compared within a row, others between rows of one group whose common inputs differ.
    """
    if set(one).isdisjoint(other):
        rows = pairs.having(split, *one, *other)
        left, right = rows, rows
    else:
        left, right = _within_groups(pairs, pairs.having(split, *{*one, *other}), set(one) & set(other))
    if not len(left):
        return np.empty(0, np.float32), np.empty(0, np.float32), 0
    first, second = _fused(vectors, left, one), _fused(vectors, right, other)
    rows, columns = negative_pairs(pairs.groups(left), pairs.groups(right), DRAWN * len(left))
    groups = len(set(pairs.groups(left)))
    return (first * second).sum(axis=1), (first[rows] * second[columns]).sum(axis=1), groups


def _within_groups(pairs: Pairs, rows: Rows, common: Set[str]) -> tuple[Rows, Rows]:
    """Return pairs of neighbouring rows of a group whose inputs of the common modalities differ."""
    members: dict[str, list[int]] = {}
    for row in rows.tolist():
        members.setdefault(pairs.rows[row].group, []).append(row)
    neighbours = [
        (row, following)
        for group in members.values()
        for row, following in pairwise(group)
        if all(pairs.rows[row].inputs[name] != pairs.rows[following].inputs[name] for name in common)
    ]
    left, right = np.asarray(neighbours, dtype=np.int64).reshape(-1, 2).T
    return left, right


def measure(vectors: Vectors, matches: Mapping[str, MatchConfig], pairs: Pairs, split: str) -> dict[str, Any]:
    """Return retrieval between modalities, in all and by source, and the quality of `match`, on one split."""
    report: dict[str, Any] = {"retrieval": {}, "match": {}}
    for one, other in permutations(vectors, 2):
        rows = pairs.having(split, one, other)
        sources = np.asarray([pairs.rows[row].source for row in rows])
        figures = _retrieval(vectors, pairs, rows, one, other)
        figures["sources"] = {
            source: _retrieval(vectors, pairs, rows[sources == source], one, other)
            for source in sorted(set(sources.tolist()))
            if source
        }
        report["retrieval"][f"{one} → {other}"] = figures
    for left, right in combinations_with_replacement(_sets(vectors), 2):
        key = pair_key(left, right)
        if calibration := matches.get(key):
            positive, negative, _ = _cosines(vectors, pairs, split, left, right)
            if len(positive):
                values = [
                    np.asarray([match_of(float(v), calibration) for v in cosines]) for cosines in (positive, negative)
                ]
                report["match"][key] = matching(*values)
    return report


def _retrieval(vectors: Vectors, pairs: Pairs, rows: Rows, one: str, other: str) -> dict[str, Any]:
    rows = _gallery(pairs, rows)
    if not len(rows):
        return {"gallery": 0}
    return retrieval(vectors[one][rows], vectors[other][rows])
