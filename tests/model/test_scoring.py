"""Scores, predictions and metrics from logits, compared with numbers worked out by hand and with scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from polymodal.model.config import BundleConfig, Scale
from polymodal.model.evaluation import plots
from polymodal.model.targets import TARGETS, check_config
from polymodal.model.targets.multi_label.scoring import MultiLabel
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.targets.single_label.scoring import CONFUSED, SingleLabel
from polymodal.model.types import Interval, Prediction

LABELS = ("ant", "bee", "cat")


def logits(*rows):
    return np.asarray(rows, dtype=np.float32)


def targets(*labels):
    return np.asarray(labels, dtype=np.int64)


def network(target, **changed):
    modality = {"input": {}, "encoder": {"name": "none"}}
    return {
        "modalities": {"text": modality},
        "width": 2,
        "fusion": "sum",
        "target": target,
        "labels": LABELS,
        **changed,
    }


CONFIGS = {
    "single-label": {"network": network("single-label"), "temperatures": {"text": 2.0}},
    "multi-label": {
        "network": network("multi-label"),
        "temperatures": {"text": 2.0},
        "thresholds": {"cat": 0.75, "ant": 0.25, "bee": 0.5},
    },
    "regression": {
        "network": network("regression", labels=(), scale={"mean": 100, "std": 10}),
        "half_widths": {"text": 5.0},
    },
}


def config_of(name):
    return BundleConfig.model_validate({"name": "x", **CONFIGS[name]})


def scoring_of(name):
    check_config(config_of(name))
    return TARGETS[name].scoring.of(config_of(name))


EXAMPLES = {
    "single-label": (logits([3, 0, 0], [0, 0, 1]), targets(0, 1)),
    "multi-label": (logits([3, 0, 0], [0, 0, 1]), np.asarray([[1, 0, 0], [0, 1, 1]], dtype=np.float32)),
    "regression": (logits([0.5], [-1]), np.asarray([0.4, -1.2], dtype=np.float32)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_metrics_of_the_card_exist_and_the_first_has_an_interval(name):
    target, (outputs, right) = scoring_of(name), EXAMPLES[name]
    scores = target.scores(outputs, ["text"] * 2)
    assert set(target.figures) <= set(target.metrics(scores, right))
    assert next(iter(target.figures)) in target.summary(scores, right)
    assert target.summary(scores, right).items() <= target.metrics(scores, right).items()


@pytest.mark.parametrize("name", TARGETS)
def test_only_another_prediction_deviates_from_the_golden_one(name):
    target, (outputs, _) = scoring_of(name), EXAMPLES[name]
    first, second = (
        Prediction(used=frozenset({"text"}), bundle="x", **target.decode(row))
        for row in target.scores(outputs, ["text"] * 2)
    )
    assert target.deviation(first, target.golden(first)) == 0
    assert target.deviation(second, target.golden(first)) > 0.1


@pytest.mark.parametrize("name", TARGETS)
def test_rows_of_scores_are_decoded_without_calibration(name):
    target, (outputs, _) = scoring_of(name), EXAMPLES[name]
    config = config_of(name)
    uncalibrated = TARGETS[name].scoring.for_answers(config.network.labels, config.thresholds, config.network.scale)
    for row in target.scores(outputs, ["text"] * 2):
        assert uncalibrated.decode(row) == target.decode(row)
        assert uncalibrated.observed(row) == target.observed(row)


def single_label(count):
    return SingleLabel(LABELS[:count], {})


def multi_label(*thresholds):
    return MultiLabel(LABELS[: len(thresholds)], {}, np.asarray(thresholds))


@pytest.mark.parametrize(
    ("target", "row", "labels", "score", "ratio"),
    [
        pytest.param(single_label(3), [1 / 3, 1 / 3, 1 / 3], {"ant"}, 1 / 3, 1.0, id="undecided"),
        pytest.param(single_label(3), [0.0, 1.0, 0.0], {"bee"}, 1.0, 0.0, id="decided"),
        pytest.param(single_label(1), [1.0], {"ant"}, 1.0, 0.0, id="only-one-label"),
        pytest.param(multi_label(0.5, 0.6), [0.5, 0.5], {"ant"}, 0.5, 1.0, id="every-decision-open"),
        pytest.param(multi_label(0.5, 0.5), [1.0, 0.0], {"ant"}, 1.0, 0.0, id="every-decision-made"),
        pytest.param(multi_label(0.5, 0.5), [0.5, 1.0], {"ant", "bee"}, 1.0, 0.5, id="one-of-two-decisions-open"),
        pytest.param(multi_label(0.9, 0.9), [0.5, 0.0], set(), 0.5, 0.5, id="none-selected"),
        pytest.param(Regression(Scale(mean=0, std=1), {}), [1.0, 0.5, 1.5], set(), None, None, id="a-number"),
    ],
)
def test_metrics_count_labels_score_and_entropy(target, row, labels, score, ratio):
    observed = target.observed(np.asarray(row, dtype=np.float32))
    assert observed.labels == labels
    assert observed.score == (score and pytest.approx(score, abs=1e-6))
    assert observed.entropy_ratio == (ratio if ratio is None else pytest.approx(ratio, abs=1e-5))


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_columns_mistakes_and_figures(name):
    target, (outputs, right) = scoring_of(name), EXAMPLES[name]
    scores = target.scores(outputs, ["text"] * 2)
    prediction = Prediction(used=frozenset({"text"}), bundle="x", **target.decode(scores[0]))
    assert set(target.record(prediction)) == set(target.columns())
    assert target.mistakes(scores, right, most=1).summary
    assert plots.answer_figures(name, target, scores, right)


@pytest.mark.parametrize("name", TARGETS)
def test_the_monitored_metric_is_1_when_all_is_right(name):
    _, right = EXAMPLES[name]
    best = {
        "single-label": np.eye(3, dtype=np.float32)[targets(0, 1)],
        "multi-label": 2 * right.reshape(2, -1) - 1,
        "regression": right.reshape(2, -1),
    }[name]
    assert TARGETS[name].scoring.monitor(best, right) == pytest.approx(1)
    assert TARGETS[name].scoring.monitor(-best, right) < 0.9


# --- single-label ---

SINGLE = SingleLabel(LABELS, {"text": 1.0, "image": 2.0})


def certain(*chosen):
    """Return scores of 1 for these labels."""
    return np.eye(3, dtype=np.float32)[list(chosen)]


def test_scores_are_a_softmax():
    scores = SINGLE.scores(np.log(logits([1, 2, 5])), ["text"])
    assert scores == pytest.approx(np.asarray([[0.125, 0.25, 0.625]]), abs=1e-6)
    assert scores.dtype == np.float32


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        pytest.param(1.0, [[0.8, 0.2]], id="as-trained"),
        pytest.param(2.0, [[2 / 3, 1 / 3]], id="warmer-is-humbler"),  # √4 : 1
        pytest.param(0.5, [[16 / 17, 1 / 17]], id="colder-is-surer"),  # 4² : 1
    ],
)
def test_a_temperature_divides_the_logits(temperature, expected):
    scores = SingleLabel(LABELS[:2], {"text": temperature}).scores(np.log(logits([4, 1])), ["text"])
    assert scores == pytest.approx(np.asarray(expected), abs=1e-6)


def test_each_row_has_the_temperature_of_its_set_of_modalities():
    both = SINGLE.scores(np.log(logits([4, 1], [4, 1])), ["text", "image"])
    assert both == pytest.approx(np.asarray([[0.8, 0.2], [2 / 3, 1 / 3]]), abs=1e-6)


def test_huge_logits_do_not_overflow():
    scores = SingleLabel(LABELS, {"text": 0.1}).scores(logits([3e38, 0, -3e38]), ["text"])
    assert scores.tolist() == [[1.0, 0.0, 0.0]]


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=4),
    st.floats(0.05, 20),
)
def test_scores_sum_to_one_and_keep_the_order(rows, temperature):
    outputs = logits(*rows)
    scores = SingleLabel(LABELS, {"text": temperature}).scores(outputs, ["text"] * len(rows))
    assert scores.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    best = outputs.argmax(axis=1)
    assert (scores[np.arange(len(rows)), best] == scores.max(axis=1)).all()


def test_accuracy_and_macro_f1_by_hand():
    # ant: 2 of 3 hits, 1 wrong guess: precision 2/3, recall 2/3; bee: 1 of 1 and 1 wrong: 1/2, 1; cat: 0 of 1: 0, 0
    measured = SINGLE.metrics(certain(0, 0, 1, 1, 0), targets(0, 0, 0, 1, 2))
    assert measured["items"] == 5
    assert measured["accuracy"] == pytest.approx(3 / 5)
    assert measured["labels"]["ant"] == pytest.approx({"items": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert measured["labels"]["bee"] == pytest.approx({"items": 1, "precision": 1 / 2, "recall": 1, "f1": 2 / 3})
    assert measured["labels"]["cat"] == pytest.approx({"items": 1, "precision": 0, "recall": 0, "f1": 0})
    assert measured["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_macro_f1_is_over_the_labels_that_occur():
    measured = SINGLE.summary(certain(0, 0, 1, 2), targets(0, 0, 1, 1))
    # cat does not occur, though it was guessed; bee: precision 1, recall 1/2
    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


def test_accuracy_at_90_percent_coverage_leaves_out_the_least_sure_row():
    """It is one of the five wrong ones."""
    scores = np.asarray([[0.9, 0.1, 0], [0.4, 0.6, 0]] * 5, dtype=np.float32)
    measured = SINGLE.metrics(scores, targets(*[0, 0] * 5))
    assert measured["accuracy_at_90_percent_coverage"] == pytest.approx(5 / 9)


def test_confidence_at_90_percent_coverage_is_the_second_lowest_of_ten():
    confidence = np.linspace(0.5, 0.95, 10, dtype=np.float32)
    scores = np.stack([confidence, 1 - confidence, np.zeros(10)], axis=1).astype(np.float32)
    measured = SINGLE.metrics(scores, targets(*[0] * 10))
    assert measured["confidence_at_90_percent_coverage"] == pytest.approx(0.55)


def test_a_confusion_matrix_has_rows_by_true_label():
    measured = SINGLE.metrics(certain(0, 0, 1, 1, 0), targets(0, 0, 0, 1, 2))
    assert measured["confusion"] == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_a_confusion_matrix_of_many_labels_is_left_out():
    many = SingleLabel(tuple(map(str, range(CONFUSED + 1))), {})
    scores = np.eye(CONFUSED + 1, dtype=np.float32)
    assert "confusion" not in many.metrics(scores, np.arange(CONFUSED + 1))


@pytest.mark.parametrize("target", ["single", "multi"])
def test_the_bins_of_reliability_add_up_to_the_calibration_error(target):
    chance = np.random.default_rng(3)
    scores = chance.dirichlet((1, 1, 1), 200).astype(np.float32)
    right = chance.integers(0, 3, 200)
    truth = np.eye(3, dtype=np.float32)[right]
    measured = MULTI.metrics(scores, truth) if target == "multi" else SINGLE.metrics(scores, right)
    bins = measured["reliability"]
    items = sum(entry["items"] for entry in bins)
    assert items == (600 if target == "multi" else 200)
    error = sum(entry["items"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / items
    assert error == pytest.approx(measured["calibration_error"], abs=1e-5)


def test_likelihood_by_hand():
    scores = np.asarray([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=np.float32)
    assert SINGLE.metrics(scores, targets(1, 1))["negative_log_likelihood"] == pytest.approx(np.log(4) / 2)


def test_the_likelihood_of_a_score_of_0_is_finite():
    measured = SINGLE.metrics(certain(0), targets(1))
    assert measured["negative_log_likelihood"] == pytest.approx(np.log(1e12), rel=1e-3)


def test_a_single_label_row_is_decoded_to_scores():
    assert SINGLE.decode(np.asarray([0.5, 0.25, 0.25], dtype=np.float32)) == {
        "scores": {"ant": 0.5, "bee": 0.25, "cat": 0.25}
    }


# --- multi-label ---

MULTI = MultiLabel(LABELS, {"text": 1.0, "image": 2.0}, np.asarray([0.5, 0.5, 0.2]))


def test_labels_of_a_multi_label_target_are_scored_independently():
    scores = MULTI.scores(np.log(logits([3, 1, 1 / 3], [9, 1, 1 / 9])), ["text", "image"])
    assert scores == pytest.approx(np.asarray([[0.75, 0.5, 0.25], [0.75, 0.5, 0.25]]), abs=1e-6)


def test_huge_logits_of_independent_labels_do_not_overflow():
    assert MULTI.scores(logits([3e38, 0, -3e38]), ["text"]).tolist() == [[1.0, 0.5, 0.0]]


def test_a_label_is_selected_at_its_threshold():
    decoded = MULTI.decode(np.asarray([0.49, 0.5, 0.3], dtype=np.float32))
    assert decoded["selected"] == {"bee", "cat"}
    assert decoded["scores"] == {"ant": 0.49, "bee": 0.5, "cat": 0.3}


def test_thresholds_are_in_the_order_of_the_labels():
    assert scoring_of("multi-label").thresholds.tolist() == [0.25, 0.5, 0.75]


@pytest.fixture
def many():
    """Scores and truth of 300 rows and four labels, which are correlated; one label is rare, one does not occur."""
    generator = np.random.default_rng(0)
    truth = generator.random((300, 4)) < [0.5, 0.3, 0.03, 0.0]
    scores = np.clip(0.25 * truth + 0.7 * generator.random((300, 4)), 0, 1).astype(np.float32)
    return scores, truth


def test_multi_label_metrics_are_those_of_scikit_learn(many):
    scores, truth = many
    target = MultiLabel(("a", "b", "c", "d"), {}, np.asarray([0.5, 0.4, 0.3, 0.6]))
    selected = scores >= target.thresholds
    measured = target.metrics(scores, truth.astype(np.float32))
    occurring = truth.any(axis=0)
    f1 = reference.f1_score(truth, selected, average=None, zero_division=0)
    assert measured["macro_f1"] == pytest.approx(f1[occurring].mean(), abs=1e-6)
    assert measured["micro_f1"] == pytest.approx(reference.f1_score(truth, selected, average="micro"), abs=1e-6)
    assert measured["exact_match"] == pytest.approx(reference.accuracy_score(truth, selected))
    precision = reference.average_precision_score(truth[:, :3], scores[:, :3], average="macro")
    assert measured["mean_average_precision"] == pytest.approx(precision, abs=1e-6)
    loss = np.mean([reference.log_loss(truth[:, k], scores[:, k], labels=[False, True]) for k in range(4)])
    assert measured["negative_log_likelihood"] == pytest.approx(loss, rel=1e-4)
    assert [measured["labels"][name]["items"] for name in "abcd"] == truth.sum(axis=0).tolist()
    assert measured["labels"]["c"]["threshold"] == pytest.approx(0.3)


def test_calibration_is_over_the_decisions_about_all_labels():
    scores = np.full((200, 3), 0.25, dtype=np.float32)
    truth = np.zeros((200, 3), dtype=np.float32)
    truth[::2] = 1  # scored 1/4, true for 1/2
    assert MULTI.metrics(scores, truth)["calibration_error"] == pytest.approx(0.25, abs=0.02)


def test_early_stopping_of_multi_label_targets_monitors_mean_average_precision(many):
    scores, truth = many
    expected = reference.average_precision_score(truth[:, :3], scores[:, :3], average="macro")
    assert MultiLabel.monitor(scores, truth.astype(np.float32)) == pytest.approx(expected, abs=1e-6)


def test_a_split_without_any_label_can_be_measured():
    scores, truth = np.full((2, 3), 0.1, dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    assert MultiLabel.monitor(scores, truth) == 0.0
    measured = MULTI.metrics(scores, truth)
    assert (measured["macro_f1"], measured["micro_f1"], measured["mean_average_precision"]) == (0, 0, 0)
    assert measured["exact_match"] == 1


def test_several_labels_are_calibrated_by_temperatures_and_thresholds():
    generator = np.random.default_rng(1)
    honest = generator.normal(loc=[0, -1, -2], scale=2, size=(2000, 3))
    truth = (generator.random((2000, 3)) < 1 / (1 + np.exp(-honest))).astype(np.float32)
    answered = {
        "text": ((4 * honest[:1000]).astype(np.float32), truth[:1000]),
        "image": ((honest[1000:] / 2).astype(np.float32), truth[1000:]),
    }
    fitted = MultiLabel.calibrate(answered, config_of("multi-label").network)
    assert fitted["temperatures"]["text"] == pytest.approx(4, rel=0.2)
    assert fitted["temperatures"]["image"] == pytest.approx(0.5, rel=0.2)
    assert set(fitted["thresholds"]) == set(LABELS)
    scores = 1 / (1 + np.exp(-honest))
    for index, label in enumerate(LABELS):
        best = max(
            reference.f1_score(truth[:, index], scores[:, index] >= threshold)
            for threshold in np.linspace(0.1, 0.7, 61)
        )
        chosen = reference.f1_score(truth[:, index], scores[:, index] >= fitted["thresholds"][label])
        assert chosen == pytest.approx(best, abs=0.02)


# --- regression ---

PRICES = Regression(Scale(mean=100, std=10), {"text": 5.0})


def test_a_number_is_decoded_in_its_unit_with_its_interval():
    scores = PRICES.scores(logits([0.5], [0.5]), ["text", "image"])
    assert PRICES.decode(scores[0]) == {"scores": {}, "value": 105.0, "interval": Interval(100.0, 110.0, 0.9)}
    assert PRICES.decode(scores[1]) == {"scores": {}, "value": 105.0, "interval": None}


@pytest.mark.parametrize(
    ("scale", "value"),
    [
        # 10 / 9 in single precision is 1.11111116.
        pytest.param(Scale(mean=0, std=3e-9), 3.333333e-9, id="tiny"),
        pytest.param(Scale(mean=0, std=3e9), 3333333492.0, id="huge"),
        pytest.param(Scale(mean=2e9, std=3), 2000000003.333333, id="far-from-zero"),
    ],
)
def test_a_number_is_rounded_by_its_scale(scale, value):
    target = Regression(scale, {})
    assert target.decode(target.scores(logits([10 / 9]), ["text"])[0])["value"] == pytest.approx(value, rel=1e-15)


def test_errors_in_the_unit_of_the_numbers_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    right = generator.normal(size=50).astype(np.float32)
    outputs = (right + generator.normal(size=50) / 2).astype(np.float32)[:, None]
    measured = PRICES.metrics(PRICES.scores(outputs, ["text"] * 50), right)
    prices, values = 100 + 10 * right, 100 + 10 * outputs[:, 0]
    assert measured["mae"] == pytest.approx(reference.mean_absolute_error(prices, values), rel=1e-5)
    assert measured["rmse"] == pytest.approx(reference.root_mean_squared_error(prices, values), rel=1e-5)
    assert measured["r2"] == pytest.approx(reference.r2_score(prices, values), rel=1e-5)
    assert measured["coverage"] == pytest.approx((np.abs(prices - values) <= 5).mean())
    assert measured["mean_interval_width"] == pytest.approx(10)


def test_metrics_of_intervals_are_none_without_intervals():
    measured = PRICES.metrics(PRICES.scores(logits([0.5]), ["image"]), np.asarray([0.4], dtype=np.float32))
    assert (measured["coverage"], measured["mean_interval_width"]) == (None, None)


def test_intervals_hold_nine_in_ten_numbers_for_every_set_of_modalities():
    generator = np.random.default_rng(0)
    noise = {"text": 0.5, "image": 2.0}

    def answered(items):
        right = {key: generator.normal(size=items).astype(np.float32) for key in noise}
        outputs = {key: (right[key] + noise[key] * generator.normal(size=items)).astype(np.float32) for key in noise}
        return {key: (outputs[key][:, None], right[key]) for key in noise}

    few = {"image+text": (logits([0.0]), np.zeros(1, dtype=np.float32))}
    widths = Regression.calibrate(answered(500) | few, config_of("regression").network)["half_widths"]
    assert set(widths) == {"text", "image"}
    assert widths["image"] / widths["text"] == pytest.approx(4, rel=0.2)
    target = Regression(Scale(mean=100, std=10), widths)
    for key, (outputs, right) in answered(4000).items():
        assert target.metrics(target.scores(outputs, [key] * 4000), right)["coverage"] == pytest.approx(0.9, abs=0.03)


def test_nan_deviates_from_any_golden_number():
    lost = Prediction(scores={}, used=frozenset(), bundle="x", value=math.nan)
    assert math.isnan(PRICES.deviation(lost, {"value": 1.0}))
