"""Give a bundle alignment heads, calibrate `match`, and measure retrieval.

N rows, A width of an aligned vector.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import combinations_with_replacement, pairwise, permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from polymodal.model.alignment import match_of, pair_key
from polymodal.model.bundle import (
    Bundle,
    check_replaceable,
    compress_weights,
    decompress_weights,
    read_bundle,
    write_bundle,
)
from polymodal.model.calibration import best_threshold
from polymodal.model.capabilities import Space
from polymodal.model.config import AlignmentConfig, BundleConfig, MatchConfig
from polymodal.model.evaluation.retrieval import DRAWN, matching, negative_pairs, one_per_group, retrieval
from polymodal.model.kinds.network import Network
from polymodal.model.network import build_network
from polymodal.model.progress import console, track
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.tasks.embed import normalised
from polymodal.model.training.card import SIMILARITY, similarity, with_section
from polymodal.model.training.examples import CHUNK, Examples
from polymodal.model.training.export import load_verified
from polymodal.model.training.fit import use_available_cores
from polymodal.model.training.heads import Heads, Vectors, fit_heads, gallery
from polymodal.model.training.pairs import MIN_GROUPS, Pairs, PreparedPairs, Rows, prepare_pairs
from polymodal.model.training.repack import export_network, trained_examples
from polymodal.model.types import Array, FloatArray, Sample

DECIMALS: Final = 4
"""Decimals of the candidates for a threshold of `match`."""


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
    folder = work / "pairs"
    pairs = prepare_pairs(source, bundle.inputs, folder, roots=roots, split_seed=split_seed, workers=workers)
    examples = trained_examples(bundle, manifest, work, split_seed, workers, roots) if manifest else None
    aligned = add_heads(bundle, pairs, out, examples=examples, seed=seed, measure_test=measure_test)
    shutil.rmtree(folder)
    return aligned


def add_heads(
    bundle: Bundle,
    prepared: PreparedPairs,
    out: Path,
    *,
    examples: Examples | None = None,
    seed: int = 0,
    measure_test: bool = True,
) -> Network:
    """Write a bundle to `out` with alignment heads, fitted to pairs. 8-bit encoders need `examples`, the rows of its training."""
    plain, stored = _without_heads(bundle.config, bundle.read_stored())
    network = build_network(plain.network)
    network.load_state_dict(_tensors(decompress_weights(stored)))
    pairs = prepared.encode(network)
    heads, tried = fit_heads(pairs, seed)
    config, stored = _with_heads(plain, stored, heads)
    network = build_network(config.network)
    network.load_state_dict(_tensors(decompress_weights(stored)))
    console.print("exporting …")
    bundle = replace(bundle, config=config)
    exported = export_network(bundle, network, stored, examples, measure_test)
    console.print("calibrating and measuring …")
    measured = ("validation", *(("test", "unseen") if measure_test else ()))
    runtime = exported.runtime or TorchRuntime(network, torch.device("cpu"))
    vectors = _served(Network(bundle, runtime), prepared, measured)
    config = config.model_copy(update={"matches": calibrate(vectors, pairs)})
    exported.report["alignment"] = {
        "width": config.network.encoded - config.network.width,
        "heads": next(iter(tried)),
        "mean_reciprocal_rank": tried,
        "data": prepared.describe(),
        "left_out": len(prepared.faults),
        "runtime": runtime.name,
        "metrics": {
            split: measure(vectors, config.matches or {}, pairs, split)
            for split in measured
            if prepared.examples.split(split)
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


def _served(model: Network, pairs: PreparedPairs, splits: Sequence[str]) -> Vectors:
    """Return the vectors that a model serves for the rows of these splits, and zeros for other rows."""
    examples = pairs.examples
    width = model.description.spaces[Space.ALIGNED]
    vectors = {name: np.zeros((len(examples.rows), width), dtype=np.float32) for name in examples.inputs}
    numbers = [number for split in splits for number in examples.split(split)]
    starts = range(0, len(numbers), CHUNK)
    for start in track(starts, "measuring", len(starts), "batches"):
        chunk = numbers[start : start + CHUNK]
        samples = [
            Sample({name: store[number] for name, store in examples.stores.items() if store.has(number)})
            for number in chunk
        ]
        for name, rows in model.vectors(model.embed(samples), Space.ALIGNED).items():
            vectors[name][chunk] = normalised(rows)
    return vectors


# --- measuring ---


def _fused(vectors: Vectors, rows: Rows, names: Iterable[str]) -> FloatArray:
    return normalised(np.mean([vectors[name][rows] for name in names], axis=0))


def _sets(vectors: Vectors) -> list[tuple[str, ...]]:
    """Return each modality alone, and all together."""
    return [*((name,) for name in vectors), *((tuple(vectors),) if len(vectors) > 1 else ())]


def calibrate(vectors: Vectors, pairs: Pairs) -> dict[str, MatchConfig]:
    """Fit `match` for every pair of sets of modalities of which the validation split has enough pairs (Platt, 1999)."""
    matches = {}
    for one, other in combinations_with_replacement(_sets(vectors), 2):
        positive, negative, groups = _cosines(vectors, pairs, "validation", one, other)
        if groups < MIN_GROUPS:
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
    rows, columns = negative_pairs(pairs.groups[left], pairs.groups[right], DRAWN * len(left))
    groups = len(np.unique(pairs.groups[left]))
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
    """Return retrieval between modalities (in all and by source) and by fused queries, and the quality of `match`, on one split."""
    report: dict[str, Any] = {"retrieval": {}, "fused_queries": _fused_queries(vectors, pairs, split), "match": {}}
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


def _fused_queries(vectors: Vectors, pairs: Pairs, split: str) -> dict[str, Any]:
    """Return what a query of all modalities finds, and one of each alone, in the same gallery: the worth of fusion.

    An item of the gallery is another row's input of the query's group.
    """
    report = {}
    for name in vectors:
        left, right = _within_groups(pairs, pairs.having(split, *vectors), {name})
        if not len(left):
            continue
        chosen = one_per_group(pairs.groups[left])
        items = vectors[name][right[chosen]]
        report[name] = {
            "+".join(names): retrieval(_fused(vectors, left[chosen], names), items) for names in _sets(vectors)
        }
    return report


def _retrieval(vectors: Vectors, pairs: Pairs, rows: Rows, one: str, other: str) -> dict[str, Any]:
    rows = gallery(pairs, rows)
    if not len(rows):
        return {"gallery": 0}
    return retrieval(vectors[one][rows], vectors[other][rows])
