"""From logits to scores, and how good scores are, against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import BundleConfig
from model.heads import HEADS
from model.tasks import TASKS, calibration_error

TASK = TASKS["single-label"]
LABELS = ("ant", "bee", "cat")


def logits(*rows):
    return np.asarray(rows, dtype=np.float32)


def certain(*chosen):
    """Scores that are sure of these labels."""
    return np.eye(3, dtype=np.float32)[list(chosen)]


def targets(*labels):
    return np.asarray(labels, dtype=np.int64)


def temperatures(*each):
    return np.asarray(each, dtype=np.float32)


def test_every_task_can_be_scored_and_trained():
    assert set(TASKS) == set(HEADS)
    assert set(TASKS) <= {"single-label"}
    assert BundleConfig.model_fields  # the config's list of tasks is a Literal, held to the same names by mypy


def test_scores_are_a_softmax():
    scores = TASK.scores(np.log(logits([1, 2, 5])), temperatures(1))
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
    scores = TASK.scores(np.log(logits([4, 1])), temperatures(temperature))
    assert scores == pytest.approx(np.asarray(expected), abs=1e-6)


def test_each_row_has_its_own_temperature():
    both = TASK.scores(np.log(logits([4, 1], [4, 1])), temperatures(1, 2))
    assert both == pytest.approx(np.asarray([[0.8, 0.2], [2 / 3, 1 / 3]]), abs=1e-6)


def test_huge_logits_do_not_overflow():
    scores = TASK.scores(logits([3e38, 0, -3e38]), temperatures(0.1))
    assert scores.tolist() == [[1.0, 0.0, 0.0]]


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=4),
    st.floats(0.05, 20),
)
def test_scores_sum_to_one_and_keep_the_order(rows, temperature):
    given_logits = logits(*rows)
    scores = TASK.scores(given_logits, np.full(len(rows), temperature, dtype=np.float32))
    assert scores.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    best = given_logits.argmax(axis=1)
    assert (scores[np.arange(len(rows)), best] == scores.max(axis=1)).all()


def test_accuracy_and_macro_f1_by_hand():
    # ant: 2 of 3 found, 1 wrong guess: precision 2/3, recall 2/3; bee: 1 of 1 and 1 wrong: 1/2, 1; cat: 0 of 1: 0, 0
    told = TASK.metrics(certain(0, 0, 1, 1, 0), targets(0, 0, 0, 1, 2), LABELS)
    assert told["items"] == 5
    assert told["accuracy"] == pytest.approx(3 / 5)
    assert told["labels"]["ant"] == pytest.approx({"items": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert told["labels"]["bee"] == pytest.approx({"items": 1, "precision": 1 / 2, "recall": 1, "f1": 2 / 3})
    assert told["labels"]["cat"] == pytest.approx({"items": 1, "precision": 0, "recall": 0, "f1": 0})
    assert told["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_macro_f1_is_over_the_labels_that_occur():
    told = TASK.summary(certain(0, 0, 1, 2), targets(0, 0, 1, 1))
    # cat does not occur, though it was guessed; bee: precision 1, recall 1/2
    assert told == pytest.approx({"accuracy": 3 / 4, "macro_f1": (1 + 2 / 3) / 2})


def test_likelihood_by_hand():
    scores = np.asarray([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=np.float32)
    assert TASK.metrics(scores, targets(1, 1), LABELS)["negative_log_likelihood"] == pytest.approx(np.log(4) / 2)


def test_a_score_of_zero_for_the_truth_is_costly_but_finite():
    assert TASK.metrics(certain(0), targets(1), LABELS)["negative_log_likelihood"] == pytest.approx(
        np.log(1e12), rel=1e-3
    )


def test_whoever_is_as_often_right_as_sure_has_no_calibration_error():
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
