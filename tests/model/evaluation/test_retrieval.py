"""Retrieval: ranks, recalls, galleries, and the quality of `match`."""

import numpy as np
import pytest

from polymodal.model.evaluation.retrieval import (
    area_under_roc,
    matching,
    negative_pairs,
    one_per_group,
    ranks,
    retrieval,
)


def test_a_rank_counts_the_items_that_are_at_least_as_similar():
    gallery = np.eye(3, dtype=np.float32)
    queries = np.asarray([[1, 0, 0], [0.9, 0.5, 0.1], [0, 0, 0]], dtype=np.float32)
    assert ranks(queries, gallery).tolist() == [1, 2, 3]  # a query without a direction finds its item last


def test_recalls_have_the_gallery_size_and_the_chance_level():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    figures = retrieval(vectors, vectors)
    assert (figures["recall_at_1"], figures["median_rank"], figures["mean_reciprocal_rank"]) == (1.0, 1.0, 1.0)
    assert (figures["gallery"], figures["chance"]["recall_at_10"]) == (40, 0.25)
    random = retrieval(generator.normal(size=(40, 8)).astype(np.float32), vectors)
    low, high = random["intervals"]["recall_at_10"]
    assert low <= random["recall_at_10"] <= high < 0.6


def test_a_gallery_has_one_row_of_each_group_and_always_the_same():
    groups = ["a", "b", "a", "c", "b", "d"]
    rows = one_per_group(groups)
    assert sorted(groups[row] for row in rows) == ["a", "b", "c", "d"]
    assert rows.tolist() == one_per_group(groups).tolist()
    assert len(one_per_group(groups, largest=2)) == 2


def test_negative_pairs_are_of_different_groups():
    groups = [str(number // 3) for number in range(30)]
    one, other = negative_pairs(groups, groups, 200)
    assert len(one) == 200
    assert all(groups[left] != groups[right] for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("positive", "negative", "area"),
    [
        pytest.param([0.9, 0.8], [0.1, 0.2], 1.0, id="apart"),
        pytest.param([0.5], [0.5], 0.5, id="equal"),
        pytest.param([0.1, 0.9], [0.5, 0.5], 0.5, id="mixed"),
    ],
)
def test_the_area_under_the_curve_is_the_share_of_ordered_pairs(positive, negative, area):
    assert area_under_roc(np.asarray(positive), np.asarray(negative)) == area


def test_matches_that_are_probabilities_have_a_small_calibration_error():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=40_000) * 2
    truth = generator.random(40_000) < 1 / (1 + np.exp(-logits))
    values = 1 / (1 + np.exp(-logits))
    calibrated = matching(values[truth], values[~truth])
    sure = matching(values[truth] ** 0.2, values[~truth] ** 0.2)
    assert calibrated["calibration_error"] < 0.02 < 0.1 < sure["calibration_error"]
    assert calibrated["auroc"] == pytest.approx(sure["auroc"])
