"""Similarity of aligned vectors: their cosine, and `match`, the probability that two things belong together.

A cosine is not a probability: how high it is for a matching pair depends on the model and on the modalities. `match` is fitted to
pairs of the validation split, half of which belong together, separately for each pair of sets of modalities.

P pairs, V width of a vector.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from polymodal.model.config import MatchConfig
from polymodal.model.types import FloatArray

EVEN: Final = 0.5
"""Prior at which `match` is fitted: as many pairs belong together as not."""
SEPARATOR: Final = "~"


def pair_key(one: Iterable[str], other: Iterable[str]) -> str:
    """Return a pair of sets of modalities as files name it: "image~text", "image~image+text"; the order of the two is free."""
    return SEPARATOR.join(sorted(("+".join(sorted(one)), "+".join(sorted(other)))))


def cosines(query: FloatArray, vectors: FloatArray) -> FloatArray:
    """Return the cosine similarity (P,) of a query (V,) with vectors (P, V), all of length 1.

    Row by row, unlike a product of matrices: a cosine does not depend on the other rows, and BLAS starts no threads.
    """
    return np.clip(np.vecdot(vectors, query), -1.0, 1.0)


def match_of(cosine: float, calibration: MatchConfig, prior: float = EVEN) -> float:
    """Return the probability that two things with this cosine belong together.

    `prior`, between 0 and 1, is the share of pairs that belong together among those that are compared. By Bayes' rule it shifts the
    logit by log(prior ÷ (1 − prior)).
    """
    logit = calibration.slope * cosine + calibration.intercept + math.log(prior / (1 - prior))
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def calibration_of(matches: Mapping[str, MatchConfig], one: Iterable[str], other: Iterable[str]) -> MatchConfig | None:
    """Return the calibration of a pair of sets of modalities; None for one that was not measured."""
    return matches.get(pair_key(one, other))
