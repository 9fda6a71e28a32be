"""How good a network is: on every set of modalities, with honest intervals, and calibrated."""

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
def answers(fresh, examples, network_config):
    """What an untrained network says of the test split."""
    runtime = TorchRuntime(fresh(seed=5), torch.device("cpu"))
    return evaluate.predict(runtime, examples, examples.split("test"), network_config)


def config_of(network_config, temperatures):
    return BundleConfig(name="shapes", network=network_config, temperatures=temperatures)


def ones(answers):
    return dict.fromkeys(answers, 1.0)


SINGLE_LABEL = SingleLabel(("sea", "tomato"), {"image": 1.0})


def test_every_set_of_modalities_is_asked_about(answers, examples):
    assert set(answers) == {"image+text", "image", "text"}
    test = examples.split("test")
    assert answers["image+text"].rows.tolist() == test
    assert answers["image"].rows.tolist() == [row for row in test if "image" in examples.rows[row].inputs]
    assert answers["text"].rows.tolist() == [row for row in test if "text" in examples.rows[row].inputs]


def test_an_answer_says_which_modalities_each_row_had(answers, examples):
    for row, used in zip(answers["image+text"].rows, answers["image+text"].used, strict=True):
        assert used == "+".join(name for name in ("image", "text") if name in examples.rows[row].inputs)
    assert set(answers["image"].used) == {"image"}


def test_a_row_is_answered_the_same_whatever_set_it_was_left_with(answers):
    """A row that has only its image is the same question in "image" and in "image+text"."""
    alone = dict(zip(answers["image"].rows.tolist(), answers["image"].logits, strict=True))
    both = answers["image+text"]
    compared = 0
    for row, used, logits in zip(both.rows.tolist(), both.used, both.logits, strict=True):
        if used == "image":
            assert logits == pytest.approx(alone[row], abs=1e-5)
            compared += 1
    assert compared


def made_up(logits, used="image"):
    logits = np.asarray(logits, dtype=np.float32)
    return evaluate.Answers(used, np.arange(len(logits)), (used,) * len(logits), logits)


def temperature_for(answers, targets, examples, network_config):
    """The temperature fitted to one set of modalities whose rows have these targets."""
    known = replace(examples, targets=np.asarray(targets, dtype=np.int64))
    return evaluate.calibrate({answers.offered: answers}, known, network_config)["temperatures"][answers.offered]


def likelihood(answers, temperature, targets):
    scores = SingleLabel((), {answers.offered: temperature}).scores(answers.logits, [answers.offered] * len(targets))
    return float(np.log(scores[np.arange(len(targets)), targets]).mean())


def test_a_temperature_makes_the_truth_likelier(examples, network_config):
    generator = np.random.default_rng(0)
    targets = generator.integers(3, size=200)
    logits = (
        8 * np.eye(3)[np.where(generator.random(200) < 0.7, targets, (targets + 1) % 3)]
    )  # sure, and wrong at times
    answers = made_up(logits)
    temperature = temperature_for(answers, targets, examples, network_config)
    assert temperature > 1
    best = likelihood(answers, temperature, targets)
    assert best > likelihood(answers, 1.0, targets)
    assert best >= max(likelihood(answers, factor * temperature, targets) for factor in (0.9, 1.1))
    # As sure as it is right: a temperature that leaves 70 % to the chosen label, the rest shared.
    scores = SingleLabel((), {"image": temperature}).scores(answers.logits, ["image"] * 200)
    right = (answers.logits.argmax(axis=1) == targets).mean()
    assert scores.max(axis=1).mean() == pytest.approx(right, abs=0.02)


def test_temperatures_make_every_set_likelier(answers, examples, network_config):
    temperatures = evaluate.calibrate(answers, examples, network_config)["temperatures"]
    assert set(temperatures) == set(answers)
    for key, each in answers.items():
        exact = np.asarray([used == key for used in each.used])
        part = replace(each, logits=each.logits[exact])
        targets = examples.targets[each.rows][exact]
        assert likelihood(part, temperatures[key], targets) >= likelihood(part, 1.0, targets) - 1e-6


def test_a_set_that_no_row_has_needs_no_temperature(examples, network_config):
    assert temperature_for(made_up(np.zeros((0, 2))), [], examples, network_config) == 1.0


def test_a_temperature_is_fitted_to_rows_that_have_exactly_this_set(examples, network_config):
    answers = evaluate.Answers(
        "image+text",
        np.arange(4),
        ("image+text", "image+text", "image", "image"),
        np.asarray([[5, 0], [5, 0], [0, 5], [0, 5]], dtype=np.float32),
    )
    sure = temperature_for(answers, [0, 0, 0, 0], examples, network_config)
    assert sure == min(TEMPERATURES)


def test_scores_use_the_temperature_of_what_each_row_had():
    answers = evaluate.Answers(
        "image+text", np.arange(2), ("image+text", "image"), np.log(np.asarray([[4, 1], [4, 1]], dtype=np.float32))
    )
    scores = SingleLabel((), {"image+text": 1.0, "image": 2.0}).scores(answers.logits, answers.used)
    assert scores == pytest.approx(np.asarray([[0.8, 0.2], [2 / 3, 1 / 3]]), abs=1e-6)


def test_early_stopping_watches_the_accuracy_of_every_set(examples):
    targets = examples.targets[:4]
    answers = made_up(np.eye(2)[[targets[0], targets[1], targets[2], 1 - targets[3]]])
    assert evaluate.monitor({"image": answers}, examples, "single-label") == {"image": 0.75}


def test_a_report_holds_its_own_intervals(answers, examples, network_config):
    told = evaluate.report(answers, config_of(network_config, ones(answers)), examples)
    assert set(told) == set(answers)
    for key, part in told.items():
        assert part["items"] == len(answers[key].rows)
        for name in ("accuracy", "macro_f1"):
            low, high = part["intervals"][name]
            assert 0 <= low <= part[name] <= high <= 1
        assert set(part["labels"]) == set(network_config.labels)
        assert sum(source["items"] for source in part["sources"].values()) == part["items"]


def test_sets_that_no_row_has_are_left_out(fresh, examples, network_config):
    runtime = TorchRuntime(fresh(), torch.device("cpu"))
    rows = [row for row in examples.split("validation") if "text" not in examples.rows[row].inputs]
    answers = evaluate.predict(runtime, examples, rows, network_config)
    config = config_of(network_config, {"image": 1.0})
    assert set(evaluate.monitor(answers, examples, "single-label")) == {"image"}
    assert set(evaluate.report(answers, config, examples)) == {"image"}
    assert set(evaluate.calibrate(answers, examples, network_config)["temperatures"]) == {"image"}


def test_images_and_texts_that_no_row_has_together_are_not_measured_together(fresh, examples, network_config):
    runtime = TorchRuntime(fresh(), torch.device("cpu"))
    rows = [row for row in examples.split("validation") if len(examples.rows[row].inputs) < 2]
    answers = evaluate.predict(runtime, examples, rows, network_config)
    assert set(answers) == {"image", "text"}


class Sums:
    """A runtime whose logits are the sums of the embeddings that are present, and how often it was called."""

    name = "sums"
    calls = 0

    def fuse(self, embeddings, present):
        self.calls += 1
        return sum(each * present[:, [column]] for column, each in enumerate(embeddings.values()))


def test_of_many_modalities_all_each_alone_and_the_sets_of_the_rows_are_measured(network_config):
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
    """A hundred answers, every second right."""
    targets = np.zeros(100, dtype=np.int64)
    return np.eye(2, dtype=np.float32)[np.arange(100) % 2], targets


def width(interval):
    return interval[1] - interval[0]


def test_an_interval_is_as_wide_as_theory_says(half_right):
    scores, targets = half_right
    interval = measures.intervals(scores, targets, [str(number) for number in range(100)], SINGLE_LABEL)["accuracy"]
    assert width(interval) == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), rel=0.15)


def test_related_items_make_an_interval_wider(half_right):
    scores, targets = half_right
    order = np.argsort(np.arange(100) % 2, kind="stable")  # fifty right ones, then fifty wrong ones
    groups = [str(number // 10) for number in range(100)]
    alone = measures.intervals(scores[order], targets, [str(number) for number in range(100)], SINGLE_LABEL)["accuracy"]
    grouped = measures.intervals(scores[order], targets, groups, SINGLE_LABEL)["accuracy"]
    assert width(grouped) > 2 * width(alone)


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
def test_where_the_bootstrap_has_no_spread_accuracy_has_wilson_s_interval_over_groups(right, groups, expected):
    scores = np.eye(2, dtype=np.float32)[1 - np.asarray(right)]
    found = measures.intervals(scores, np.zeros(len(right), dtype=np.int64), list(groups), SINGLE_LABEL)
    assert found["accuracy"] == pytest.approx(expected, abs=1e-3)
    assert found["macro_f1"] is None
    low, high = found["accuracy_at_90_percent_coverage"]
    assert 0 <= low < high <= 1


REGRESSION = Regression(Scale(mean=0, std=1), {})


def numbers(wrong):
    wrong = np.asarray(wrong, dtype=np.float64)
    return np.stack([wrong, wrong - 1, wrong + 1], axis=1), np.zeros(len(wrong))


@pytest.mark.parametrize("wrong", [[0.5], [0.5, 2.0], [0.0] * 10], ids=["one", "two", "all-right"])
def test_what_is_no_proportion_has_no_interval_where_the_bootstrap_can_tell_none(wrong):
    found = measures.intervals(*numbers(wrong), [str(number) for number in range(len(wrong))], REGRESSION)
    assert found == {"mae": None, "rmse": None, "r2": None}


def test_six_groups_are_enough_for_a_bootstrap():
    low, high = measures.intervals(*numbers([1, 2, 3, 4, 5, 6]), list("abcdef"), REGRESSION)["mae"]
    assert 1 <= low < 3.5 < high <= 6


def test_intervals_are_the_same_each_time(half_right):
    scores, targets = half_right
    groups = [str(number) for number in range(100)]
    assert measures.intervals(scores, targets, groups, SINGLE_LABEL) == measures.intervals(
        scores, targets, groups, SINGLE_LABEL
    )
