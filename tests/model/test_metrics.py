"""Metrics, compared with numbers worked out by hand and with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from polymodal.model.metrics import (
    accuracy_at_coverage,
    average_precision,
    average_precisions,
    calibration_error,
    confusion_matrix,
    macro,
    r_squared,
    ratios,
    reliability,
    selection_counts,
    wilson,
)


def test_scores_that_equal_the_accuracy_have_no_calibration_error():
    confidence = np.repeat(np.asarray([0.25, 0.5, 0.75, 1.0], dtype=np.float32), 300)
    turn = np.arange(300)
    correct = np.concatenate([turn % 4 < quarters for quarters in (1, 2, 3, 4)])
    assert calibration_error(confidence, correct) < 0.01


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [
        pytest.param(0.9, 0.5, 0.4, id="overconfident"),
        pytest.param(0.5, 1.0, 0.5, id="underconfident"),
        pytest.param(1.0, 0.0, 1.0, id="always-wrong"),
    ],
)
def test_calibration_error_by_hand(confidence, right, error):
    scores = np.full(300, confidence, dtype=np.float32)
    correct = np.arange(300) % 2 < 2 * right
    assert calibration_error(scores, correct) == pytest.approx(error, abs=1e-6)


def test_calibration_error_of_fewer_items_than_bins():
    assert calibration_error(np.asarray([0.7], dtype=np.float32), np.asarray([True])) == pytest.approx(0.3)


def test_average_precision_by_hand():
    # Best first: right, wrong, right; precision 1 at recall 1/2, 2/3 at recall 1.
    scores, truth = np.asarray([0.2, 0.9, 0.5]), np.asarray([True, True, False])
    assert average_precision(scores, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_label_that_does_not_occur_has_no_average_precision():
    assert average_precision(np.asarray([0.2, 0.9]), np.asarray([False, False])) == 0.0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_that_of_scikit_learn_also_with_equal_scores(rows):
    scores, truth = (np.asarray(column) for column in zip(*rows, strict=True))
    if truth.any():
        assert average_precision(scores, truth) == pytest.approx(reference.average_precision_score(truth, scores))


def test_f1_and_its_means_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth, selected = generator.random((200, 4)) < [0.5, 0.2, 0.05, 0.9], generator.random((200, 4)) < 0.4
    counts = selection_counts(selected, truth)
    precision, recall, f1 = ratios(*counts)
    expected = reference.precision_recall_fscore_support(truth, selected, zero_division=0)
    assert np.stack([precision, recall, f1, counts[2]]) == pytest.approx(np.stack(expected), abs=1e-6)
    assert macro(f1, counts[2]) == pytest.approx(reference.f1_score(truth, selected, average="macro"), abs=1e-6)
    scores = generator.random((200, 4))
    assert average_precisions(scores, truth).mean() == pytest.approx(
        reference.average_precision_score(truth, scores, average="macro"), abs=1e-6
    )


def test_a_mean_over_no_labels_is_0():
    assert macro(np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.int64)) == 0.0


@pytest.mark.parametrize(
    ("values", "targets"),
    [
        pytest.param([1.0, 2.0, 4.0], [1.0, 3.0, 5.0], id="nearly"),
        pytest.param([9.0, -9.0, 0.0], [1.0, 3.0, 5.0], id="worse-than-the-mean"),
        pytest.param([2.0, 2.0], [2.0, 2.0], id="nothing-to-explain-and-all-right"),
        pytest.param([1.0, 2.0], [2.0, 2.0], id="nothing-to-explain-and-one-wrong"),
    ],
)
def test_r_squared_is_that_of_scikit_learn(values, targets):
    assert r_squared(np.asarray(values), np.asarray(targets)) == pytest.approx(reference.r2_score(targets, values))


def test_accuracy_at_90_percent_coverage_is_that_of_the_surest_items():
    confidence = np.linspace(0.1, 1.0, 10, dtype=np.float32)
    assert accuracy_at_coverage(confidence, np.arange(10) != 0) == 1  # wrong when least sure
    assert accuracy_at_coverage(confidence, np.arange(10) != 9) == pytest.approx(8 / 9)  # wrong when surest


@pytest.mark.parametrize(("items", "kept"), [(1, 1), (2, 2), (9, 9), (10, 9), (11, 10), (100, 90)])
def test_the_number_of_covered_items_is_rounded_up(items, kept):
    """The `kept` surest items are right, and no others."""
    correct = np.arange(items) < kept
    sure = -np.arange(items, dtype=np.float32)
    assert accuracy_at_coverage(sure, correct) == 1
    correct[kept - 1] = False
    assert accuracy_at_coverage(sure, correct) == pytest.approx(1 - 1 / kept)


def test_bins_of_reliability_have_equal_numbers_of_items():
    confidence = np.linspace(0, 1, 30, dtype=np.float32) ** 3
    items, sure, right = reliability(confidence, np.arange(30) >= 15)
    assert items.tolist() == [2] * 15
    assert sure == pytest.approx(confidence.reshape(15, 2).mean(axis=1))
    assert right.tolist() == [0] * 7 + [0.5] + [1] * 7


def test_a_confusion_matrix_is_that_of_scikit_learn():
    chance = np.random.default_rng(0)
    chosen, right = chance.integers(4, size=(2, 50))
    assert confusion_matrix(chosen, right, 4).tolist() == reference.confusion_matrix(right, chosen).tolist()


@pytest.mark.parametrize(
    ("share", "items", "interval"),
    [
        # Known values of the score interval, e.g. R: prop.test(8, 10, correct = FALSE)
        pytest.param(0.8, 10, (0.4902, 0.9433), id="eight-of-ten"),
        pytest.param(0.0, 10, (0.0, 0.2775), id="none-of-ten"),
        pytest.param(0.5, 100, (0.4038, 0.5962), id="half-of-a-hundred"),
    ],
)
def test_the_interval_of_a_proportion_has_known_values(share, items, interval):
    low, high = wilson(np.asarray([share]), np.asarray([items]))
    assert (low[0], high[0]) == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_interval_of_0_or_1_has_a_width_and_holds_the_proportion(share):
    low, high = wilson(np.asarray(share), np.asarray(2.0))
    assert 0 <= low <= share <= high <= 1
    assert high - low == pytest.approx(0.6576, abs=1e-4)
