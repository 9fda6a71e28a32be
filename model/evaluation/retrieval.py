"""Metrics of retrieval in an aligned space, and of `match`.

Q queries, G items of a gallery, V width of a vector, P pairs.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from polymodal.model.evaluation.measures import FEWEST_GROUPS, RESAMPLES, TAILS
from polymodal.model.metrics import calibration_error
from polymodal.model.types import Array, FloatArray

Groups: TypeAlias = Sequence[str] | npt.NDArray[np.int64]
"""Names or numbers of the groups of rows."""

LARGEST_GALLERY: Final = 500
"""Most items of a gallery: a recall depends on the gallery's size, and figures of different splits should be comparable."""
CUTS: Final = (1, 5, 10)
DRAWN: Final = 20
"""Negative pairs that are drawn for each positive one."""


def one_per_group(groups: Groups, largest: int = LARGEST_GALLERY, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return row numbers of at most `largest` rows, no two of one group, drawn at random but always the same."""
    order = np.random.default_rng(seed).permutation(len(groups))
    first: dict[str | int, int] = {}
    for row in order.tolist():
        first.setdefault(groups[row], row)
    return np.asarray(list(first.values())[:largest], dtype=np.int64)


def ranks(queries: FloatArray, gallery: FloatArray) -> npt.NDArray[np.int64]:
    """Return the rank (Q,), from 1, of item i of the gallery (Q, V) for query i (Q, V); of equal cosines the worst rank counts."""
    similarities = queries @ gallery.T
    own = np.diag(similarities)[:, None]
    return np.asarray((similarities >= own).sum(axis=1), dtype=np.int64)


def retrieval(queries: FloatArray, gallery: FloatArray) -> dict[str, Any]:
    """Return recall at 1, 5 and 10 with 95 % intervals, median rank, mean reciprocal rank, gallery size and chance level.

    Item i of the gallery (Q, V) is the only right one for query i (Q, V); the queries are of different groups, so the bootstrap
    draws queries.
    """
    placed = ranks(queries, gallery)
    figures: dict[str, Any] = {
        "gallery": len(gallery),
        **{f"recall_at_{cut}": float((placed <= cut).mean()) for cut in CUTS},
        "median_rank": float(np.median(placed)),
        "mean_reciprocal_rank": float((1 / placed).mean()),
        "chance": {f"recall_at_{cut}": min(1.0, cut / len(gallery)) for cut in CUTS},
    }
    if len(placed) >= FEWEST_GROUPS:
        drawn = placed[np.random.default_rng(0).integers(len(placed), size=(RESAMPLES, len(placed)))]
        figures["intervals"] = {
            f"recall_at_{cut}": np.percentile((drawn <= cut).mean(axis=1), TAILS).tolist() for cut in CUTS
        }
    return figures


def area_under_roc(positive: Array, negative: Array) -> float:
    """Return the probability that a positive pair has a higher cosine than a negative one; equal ones count half."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left") + np.searchsorted(order, positive, side="right")
    return float(below.mean() / (2 * len(order)))


def matching(positive: Array, negative: Array) -> dict[str, Any]:
    """Return the AUROC and the calibration error of matches of positive and negative pairs at a prior of 1:1.

    Negative pairs are more numerous, so positive ones are repeated.
    """
    repeated = np.tile(positive, max(1, len(negative) // len(positive)))
    values = np.concatenate([repeated, negative[: len(repeated)]])
    truth = np.arange(len(values)) < len(repeated)
    confidence = np.where(values >= 0.5, values, 1 - values)
    return {
        "pairs": len(positive),
        "auroc": area_under_roc(positive, negative),
        "calibration_error": calibration_error(confidence.astype(np.float32), (values >= 0.5) == truth),
    }


def negative_pairs(
    groups: Groups, others: Groups, count: int, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw `count` pairs of row numbers whose groups differ, a row of `groups` with a row of `others`."""
    generator = np.random.default_rng(seed)
    one, other = np.asarray(groups), np.asarray(others)
    rows, columns = (generator.integers(len(names), size=4 * count) for names in (one, other))
    different = np.flatnonzero(one[rows] != other[columns])[:count]
    return rows[different], columns[different]
