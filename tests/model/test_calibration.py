"""What is fitted on the validation part keeps what it promises on data it has not seen."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from model.calibration import TEMPERATURES, best_threshold, conformal_half_width, fit_temperature


def log_sigmoid(logits, targets):
    return -np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)


def test_the_temperature_that_spoilt_scores_is_found_again():
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(4000, 3)) * 2
    targets = generator.random((4000, 3)) < 1 / (1 + np.exp(-honest))
    assert fit_temperature((3 * honest).astype(np.float32), targets, log_sigmoid) == pytest.approx(3, rel=0.1)


def test_without_rows_a_temperature_changes_nothing():
    assert fit_temperature(np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3)), log_sigmoid) == 1.0
    assert min(TEMPERATURES) < 1 < max(TEMPERATURES)


def threshold(scores, truth):
    return best_threshold(np.asarray(scores, dtype=np.float32), np.asarray(truth, dtype=np.bool_), decimals=6)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        pytest.param([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], 0.4, id="half-way-between-both-sides"),
        pytest.param([0.02, 0.03, 0.2, 0.3], [0, 0, 1, 1], 0.115, id="a-rare-label-scores-low"),
        pytest.param([0.7, 0.8, 0.9, 0.95], [0, 0, 1, 1], 0.85, id="a-frequent-label-scores-high"),
        pytest.param([0.4, 0.4, 0.9], [1, 1, 1], 0.5, id="every-row-has-it"),
        pytest.param([0.4, 0.4, 0.9], [0, 0, 0], 0.5, id="no-row-has-it"),
        pytest.param([], [], 0.5, id="no-rows"),
        # F1 0.8 by selecting all three, or the two best; 2/3 by selecting one: between 0.3 and 0.6, not below 0.3.
        pytest.param([0.3, 0.6, 0.8, 0.2], [0, 1, 1, 0], 0.45, id="nearest-to-one-half"),
        pytest.param([0.5, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.3, id="equal-scores-stay-together"),
        pytest.param([0.2, 0.4], [1, 0], 0.1, id="the-wrong-way-round-everything-is-selected"),
    ],
)
def test_thresholds_by_hand(scores, truth, expected):
    assert threshold(scores, truth) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_no_other_threshold_has_a_better_f1(seed):
    generator = np.random.default_rng(seed)
    truth = generator.random(60) < 0.3
    scores = np.clip(0.3 * truth + generator.random(60) * 0.6, 0, 1).round(2)
    best = f1_score(truth, scores >= threshold(scores, truth))
    assert best == pytest.approx(
        max(f1_score(truth, scores >= each, zero_division=0) for each in np.linspace(0.005, 0.895, 90))
    )


@pytest.mark.parametrize(
    ("items", "rank"),
    [
        pytest.param(9, 9, id="nine-are-just-enough"),
        pytest.param(19, 18, id="nineteen"),
        pytest.param(29, 27, id="where-floating-point-would-say-28"),
        pytest.param(100, 91, id="hundred"),
    ],
)
def test_a_half_width_is_a_residual_of_that_rank(items, rank):
    residuals = np.random.default_rng(0).permutation(items) + 1.0
    assert conformal_half_width(residuals, 0.9) == rank


@pytest.mark.parametrize("items", [0, 1, 8])
def test_too_few_residuals_tell_no_half_width(items):
    assert conformal_half_width(np.ones(items), 0.9) is None


def test_intervals_hold_as_often_as_they_promise_whatever_the_noise():
    """Over many calibrations the coverage is between 0.9 and 0.9 + 1 / (n + 1), for any distribution of the noise."""
    generator = np.random.default_rng(0)
    for noise in (generator.standard_normal, generator.standard_cauchy, generator.standard_exponential):
        held = []
        for _ in range(400):
            half = conformal_half_width(np.abs(noise(40)), 0.9)
            held.append((np.abs(noise(100)) <= half).mean())
        assert 0.9 - 0.01 < np.mean(held) < 0.9 + 1 / 41 + 0.01
