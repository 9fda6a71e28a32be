"""Calibration that is fitted on the validation split holds on other data."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from polymodal.model.calibration import (
    FEWEST_ROWS,
    TEMPERATURES,
    Nearest,
    best_threshold,
    calibration_sources,
    conformal_half_width,
    fit_temperature,
    fit_temperatures,
    nearest_set,
)
from polymodal.model.config import BundleConfig


def log_sigmoid(logits, targets):
    return -np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(axis=1)


def test_the_temperature_of_scaled_logits_is_recovered():
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(4000, 3)) * 2
    targets = generator.random((4000, 3)) < 1 / (1 + np.exp(-honest))
    assert fit_temperature((3 * honest).astype(np.float32), targets, log_sigmoid) == pytest.approx(3, rel=0.1)


def test_without_rows_the_temperature_is_1():
    assert fit_temperature(np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3)), log_sigmoid) == 1.0
    assert min(TEMPERATURES) < 1 < max(TEMPERATURES)


@pytest.mark.parametrize(
    ("key", "measured", "expected"),
    [
        pytest.param("text", ["image", "text"], "text", id="itself"),
        pytest.param("text", ["image+text", "image"], "image+text", id="one-more-is-nearer-than-another"),
        pytest.param("image+text", ["image", "text", "audio"], "image", id="first-of-equally-near-ones"),
        pytest.param("image+text", ["audio+image+text", "text"], "text", id="smallest-of-equally-near-ones"),
        pytest.param("audio", ["image", "image+text"], "image", id="nothing-in-common"),
        pytest.param("image", [], "", id="none-measured"),
    ],
)
def test_a_set_without_calibration_has_that_of_the_nearest_measured_set(key, measured, expected):
    assert nearest_set(key, measured) == expected
    values = Nearest({other: float(number) for number, other in enumerate(measured)})
    assert values.get(key) == (measured.index(expected) if expected else None)


def answers(rows, wrong):
    """Return logits that favour label 0, and targets of which every `wrong`-th is label 1."""
    return np.tile(np.asarray([[4.0, 0.0]], dtype=np.float32), (rows, 1)), np.arange(rows) % wrong == wrong - 1


def log_softmax(logits, targets):
    return logits[np.arange(len(targets)), targets.astype(int)] - np.logaddexp.reduce(logits, axis=1)


@pytest.mark.parametrize(
    ("rows", "fitted"),
    [
        pytest.param((FEWEST_ROWS, FEWEST_ROWS), {"image", "text"}, id="enough"),
        pytest.param((FEWEST_ROWS, FEWEST_ROWS - 1), {"image"}, id="too-few-of-one"),
        pytest.param((FEWEST_ROWS - 1, 2), {"image", "text"}, id="too-few-of-all"),
    ],
)
def test_a_set_with_too_few_rows_has_no_temperature_of_its_own(rows, fitted):
    answered = {key: answers(count, 4) for key, count in zip(("image", "text"), rows, strict=True)}
    assert set(fit_temperatures(answered, log_softmax)) == fitted


def config(**calibration):
    modality = {"input": {}, "encoder": {"name": "none"}}
    network = {
        "modalities": dict.fromkeys(("image", "text", "audio"), modality),
        "width": 2,
        "fusion": "sum",
        "target": "single-label",
        "labels": ("sea", "tomato"),
    }
    return BundleConfig.model_validate({"name": "x", "network": network, **calibration})


def test_every_set_has_the_set_that_it_is_calibrated_by():
    sources = calibration_sources(config(temperatures={"image+text": 2.0, "image": 1.0}), ["image+text", "text"])
    assert sources == {
        "image+text+audio": "image+text",
        "image+text": "image+text",
        "audio": "image",
        "image": "image",
        "text": "image+text",
    }


def test_a_set_without_calibration_and_fallback_has_no_source():
    assert set(calibration_sources(config(half_widths={}), []).values()) == {None}
    alone = calibration_sources(config(half_widths={"image": 1.0}, fallback="none"), [])
    assert (alone["image"], alone["text"]) == ("image", None)


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
    best = max(f1_score(truth, scores >= other, zero_division=0) for other in np.linspace(0.005, 0.895, 90))
    assert f1_score(truth, scores >= threshold(scores, truth)) == pytest.approx(best)


@pytest.mark.parametrize(
    ("items", "rank"),
    [
        pytest.param(9, 9, id="nine-are-just-enough"),
        pytest.param(19, 18, id="nineteen"),
        pytest.param(29, 27, id="where-floating-point-gives-28"),
        pytest.param(100, 91, id="hundred"),
    ],
)
def test_a_half_width_is_the_residual_of_this_rank(items, rank):
    residuals = np.random.default_rng(0).permutation(items) + 1.0
    assert conformal_half_width(residuals, 0.9) == rank


@pytest.mark.parametrize("items", [0, 1, 8])
def test_too_few_residuals_have_no_half_width(items):
    assert conformal_half_width(np.ones(items), 0.9) is None


def test_intervals_have_their_coverage_for_any_noise():
    """The mean coverage over many calibrations is between 0.9 and 0.9 + 1 / (n + 1)."""
    generator = np.random.default_rng(0)
    for noise in (generator.standard_normal, generator.standard_cauchy, generator.standard_exponential):
        held = []
        for _ in range(400):
            half = conformal_half_width(np.abs(noise(40)), 0.9)
            held.append((np.abs(noise(100)) <= half).mean())
        assert 0.9 - 0.01 < np.mean(held) < 0.9 + 1 / 41 + 0.01
