"""Metrics of a network for every set of modalities, with intervals, and calibration."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymodal.model.calibration import TEMPERATURES
from polymodal.model.config import BundleConfig, Scale
from polymodal.model.evaluation import measures
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.targets.single_label.scoring import SingleLabel
from polymodal.model.training import evaluate


@pytest.fixture
def predict(fresh, examples, network_config):
    """`predict(rows)`: the answers of an untrained network for these rows."""
    runtime = TorchRuntime(fresh(seed=5), torch.device("cpu"))
    return lambda rows: evaluate.predict(runtime, examples, rows, network_config)


@pytest.fixture
def answers(predict, examples):
    """The answers for the test split."""
    return predict(examples.split("test"))


@pytest.fixture
def report(examples, network_config):
    """`report(answers)`: their report, without calibration."""

    def make(answers):
        config = BundleConfig(name="shapes", network=network_config, temperatures=dict.fromkeys(answers, 1.0))
        return evaluate.report(answers, config, examples)

    return make


SINGLE_LABEL = SingleLabel(("sea", "tomato"), {"image": 1.0})


def test_every_set_of_modalities_has_answers(answers, examples):
    assert set(answers) == {"image+text", "image", "text"}
    test = examples.split("test")
    assert answers["image+text"].rows.tolist() == test
    assert answers["image"].rows.tolist() == [row for row in test if "image" in examples.rows[row].inputs]
    assert answers["text"].rows.tolist() == [row for row in test if "text" in examples.rows[row].inputs]


def test_answers_have_the_modalities_of_each_row(answers, examples):
    for row, used in zip(answers["image+text"].rows, answers["image+text"].used, strict=True):
        assert used == "+".join(name for name in ("image", "text") if name in examples.rows[row].inputs)
    assert set(answers["image"].used) == {"image"}


def test_a_row_with_only_an_image_has_the_same_logits_in_both_sets(answers):
    alone = dict(zip(answers["image"].rows.tolist(), answers["image"].logits, strict=True))
    both = answers["image+text"]
    compared = 0
    for row, used, logits in zip(both.rows.tolist(), both.used, both.logits, strict=True):
        if used == "image":
            assert logits == pytest.approx(alone[row], abs=1e-5)
            compared += 1
    assert compared


def answers_of(logits, used="image"):
    logits = np.asarray(logits, dtype=np.float32)
    return evaluate.Answers(used, np.arange(len(logits)), (used,) * len(logits), logits)


def temperature_for(answers, targets, examples, network_config):
    """The temperature fitted to the answers of one set of modalities, for rows with these targets."""
    known = replace(examples, targets=np.asarray(targets, dtype=np.int64))
    return evaluate.calibrate({answers.offered: answers}, known, network_config)["temperatures"][answers.offered]


def likelihood(answers, temperature, targets):
    scores = SingleLabel((), {answers.offered: temperature}).scores(answers.logits, [answers.offered] * len(targets))
    return float(np.log(scores[np.arange(len(targets)), targets]).mean())


def test_a_temperature_maximises_the_likelihood(examples, network_config):
    generator = np.random.default_rng(0)
    targets = generator.integers(3, size=200)
    chosen = np.where(generator.random(200) < 0.7, targets, (targets + 1) % 3)
    answers = answers_of(8 * np.eye(3)[chosen])  # confident, and wrong in 30 %
    temperature = temperature_for(answers, targets, examples, network_config)
    assert temperature > 1
    best = likelihood(answers, temperature, targets)
    assert best > likelihood(answers, 1.0, targets)
    assert best >= max(likelihood(answers, factor * temperature, targets) for factor in (0.9, 1.1))
    # The mean score of the chosen label is its accuracy.
    scores = SingleLabel((), {"image": temperature}).scores(answers.logits, ["image"] * 200)
    right = (answers.logits.argmax(axis=1) == targets).mean()
    assert scores.max(axis=1).mean() == pytest.approx(right, abs=0.02)


def test_the_temperature_of_every_set_increases_the_likelihood(answers, examples, network_config):
    temperatures = evaluate.calibrate(answers, examples, network_config)["temperatures"]
    assert set(temperatures) == set(answers)
    for key, entry in answers.items():
        exact = np.asarray([used == key for used in entry.used])
        fitted = replace(entry, logits=entry.logits[exact])
        targets = examples.targets[entry.rows][exact]
        assert likelihood(fitted, temperatures[key], targets) >= likelihood(fitted, 1.0, targets) - 1e-6


def test_the_temperature_of_a_set_without_rows_is_one(examples, network_config):
    assert temperature_for(answers_of(np.zeros((0, 2))), [], examples, network_config) == 1.0


def test_a_temperature_is_fitted_to_rows_that_have_exactly_this_set(examples, network_config):
    answers = evaluate.Answers(
        "image+text",
        np.arange(4),
        ("image+text", "image+text", "image", "image"),
        np.asarray([[5, 0], [5, 0], [0, 5], [0, 5]], dtype=np.float32),
    )
    assert temperature_for(answers, [0, 0, 0, 0], examples, network_config) == min(TEMPERATURES)


def test_scores_use_the_temperature_of_each_rows_modalities():
    answers = evaluate.Answers(
        "image+text", np.arange(2), ("image+text", "image"), np.log(np.asarray([[4, 1], [4, 1]], dtype=np.float32))
    )
    scores = SingleLabel((), {"image+text": 1.0, "image": 2.0}).scores(answers.logits, answers.used)
    assert scores == pytest.approx(np.asarray([[0.8, 0.2], [2 / 3, 1 / 3]]), abs=1e-6)


def test_early_stopping_monitors_the_accuracy_of_every_set(examples):
    targets = examples.targets[:4]
    answers = answers_of(np.eye(2)[[targets[0], targets[1], targets[2], 1 - targets[3]]])
    assert evaluate.monitor({"image": answers}, examples, "single-label") == {"image": 0.75}


def test_a_report_has_metrics_with_intervals_by_set(answers, report, network_config):
    metrics = report(answers)
    assert set(metrics) == set(answers)
    for key, entry in metrics.items():
        assert entry["items"] == len(answers[key].rows)
        for name in ("accuracy", "macro_f1"):
            low, high = entry["intervals"][name]
            assert 0 <= low <= entry[name] <= high <= 1
        assert set(entry["labels"]) == set(network_config.labels)
        assert sum(source["items"] for source in entry["sources"].values()) == entry["items"]


@pytest.mark.parametrize(
    ("kept", "sets"),
    [
        pytest.param(lambda inputs: "text" not in inputs, {"image"}, id="no-texts"),
        pytest.param(lambda inputs: len(inputs) < 2, {"image", "text"}, id="never-together"),
    ],
)
def test_sets_that_no_row_has_are_left_out(predict, report, examples, network_config, kept, sets):
    answers = predict([row for row in examples.split("validation") if kept(examples.rows[row].inputs)])
    assert set(answers) == set(report(answers)) == sets
    assert set(evaluate.monitor(answers, examples, "single-label")) == sets
    assert set(evaluate.calibrate(answers, examples, network_config)["temperatures"]) == sets


class Sums:
    """A runtime whose logits are the sums of the present embeddings; it counts its calls."""

    name = "sums"
    calls = 0

    def fuse(self, embeddings, present):
        self.calls += 1
        return sum(vectors * present[:, [column]] for column, vectors in enumerate(embeddings.values()))


def test_of_many_modalities_only_the_sets_of_the_rows_all_and_single_ones_are_measured(network_config):
    order = tuple("abcdefghijklmnop")
    rows = [set(order), {"a", "b"}, {"a", "b"}, {"c"}]
    examples = SimpleNamespace(
        present=lambda numbers: np.asarray([[name in rows[n] for name in order] for n in numbers])
    )
    modality = network_config.modalities["text"]
    network = network_config.model_copy(update={"modalities": dict.fromkeys(order, modality)})
    embeddings = dict.fromkeys(order, np.ones((4, 2), dtype=np.float32))
    runtime = Sums()
    answers = evaluate.predict_from_embeddings(runtime, embeddings, examples, range(4), network)
    assert runtime.calls == 18  # not 65,535
    assert list(answers) == ["+".join(order), "a+b", *order]
    assert answers["a+b"].rows.tolist() == [0, 1, 2]
    assert answers["a+b"].logits.tolist() == [[2, 2]] * 3


@pytest.fixture
def half_right():
    """Scores and targets of a hundred items, of which every second is right."""
    targets = np.zeros(100, dtype=np.int64)
    return np.eye(2, dtype=np.float32)[np.arange(100) % 2], targets


SEPARATE = [str(number) for number in range(100)]  # a group for each item


def width(scores, targets, groups):
    low, high = measures.intervals(scores, targets, groups, SINGLE_LABEL)["accuracy"]
    return high - low


def test_an_interval_has_the_width_of_a_normal_approximation(half_right):
    assert width(*half_right, SEPARATE) == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), rel=0.15)


def test_groups_make_an_interval_wider(half_right):
    scores, targets = half_right
    order = np.argsort(np.arange(100) % 2, kind="stable")  # fifty right ones, then fifty wrong ones
    groups = [str(number // 10) for number in range(100)]
    assert width(scores[order], targets, groups) > 2 * width(scores[order], targets, SEPARATE)


@pytest.mark.parametrize(
    ("right", "groups", "expected"),
    [
        pytest.param([1, 1], "ab", (0.342, 1.0), id="two-items-all-right"),
        pytest.param([0, 0], "ab", (0.0, 0.658), id="two-items-all-wrong"),
        pytest.param([1, 0], "ab", (0.095, 0.905), id="two-items-one-right"),
        pytest.param([1], "a", (0.207, 1.0), id="one-item"),
        pytest.param([1] * 50 + [0] * 50, "a" * 100, (0.055, 0.945), id="one-group-counts-as-one-item"),
        pytest.param([1] * 12, "aabbccddeeff", (0.610, 1.0), id="groups-all-right"),
        pytest.param([1] * 54, map(str, range(54)), (0.934, 1.0), id="many-items-all-right"),
    ],
)
def test_a_bootstrap_without_spread_is_replaced_by_wilsons_interval_over_groups(right, groups, expected):
    scores = np.eye(2, dtype=np.float32)[1 - np.asarray(right)]
    intervals = measures.intervals(scores, np.zeros(len(right), dtype=np.int64), list(groups), SINGLE_LABEL)
    assert intervals["accuracy"] == pytest.approx(expected, abs=1e-3)
    assert intervals["macro_f1"] is None
    low, high = intervals["accuracy_at_90_percent_coverage"]
    assert 0 <= low < high <= 1


REGRESSION = Regression(Scale(mean=0, std=1), {})


def regression_intervals(errors):
    """Intervals for predictions with these errors, all in different groups."""
    errors = np.asarray(errors, dtype=np.float64)
    scores = np.stack([errors, errors - 1, errors + 1], axis=1)
    return measures.intervals(scores, np.zeros(len(errors)), SEPARATE[: len(errors)], REGRESSION)


@pytest.mark.parametrize("errors", [[0.5], [0.5, 2.0], [0.0] * 10], ids=["one", "two", "all-right"])
def test_other_metrics_without_a_usable_bootstrap_have_no_interval(errors):
    assert regression_intervals(errors) == {"mae": None, "rmse": None, "r2": None}


def test_six_groups_are_enough_for_a_bootstrap():
    low, high = regression_intervals([1, 2, 3, 4, 5, 6])["mae"]
    assert 1 <= low < 3.5 < high <= 6


def test_intervals_are_reproducible(half_right):
    first, second = (measures.intervals(*half_right, SEPARATE, SINGLE_LABEL) for _ in range(2))
    assert first == second
