"""Mistakes are ranked by confidence or by deviation, and described."""

import numpy as np

from polymodal.model.config import Scale
from polymodal.model.targets.mistakes import Mistake
from polymodal.model.targets.multi_label.scoring import MultiLabel
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.targets.single_label.scoring import SingleLabel


def test_wrong_labels_are_ranked_by_confidence():
    scores = np.asarray([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    target, targets = SingleLabel(("sea", "tomato"), {}), np.asarray([0, 0, 0, 1])
    mistakes = target.mistakes(scores, targets, 5)
    assert mistakes.summary.startswith("3 of 4 answers are wrong")
    assert mistakes.worst == (
        Mistake(2, "tomato", "80% sure"),
        Mistake(3, "sea", "70% sure"),
        Mistake(1, "tomato", "60% sure"),
    )
    assert target.mistakes(scores, targets, 1).worst == mistakes.worst[:1]


def test_a_wrong_decision_about_one_of_several_labels_is_a_mistake():
    target = MultiLabel(("circle", "square"), {}, np.asarray([0.5, 0.3]))
    scores = np.asarray([[0.9, 0.4], [0.1, 0.1], [0.6, 0.2], [0.95, 0.9]])
    targets = np.asarray([[1, 0], [1, 0], [1, 0], [1, 1]])
    assert target.mistakes(scores, targets, 5).worst == (
        Mistake(1, "none", "90% sure that circle does not fit"),
        Mistake(0, "circle, square", "40% sure that square fits"),
    )


def test_wrong_numbers_are_ranked_by_their_deviation():
    target = Regression(Scale(mean=100, std=10), {})
    scores = np.asarray([[100.0, 90, 110], [95, 85, 105], [130, 120, 140]])
    assert target.mistakes(scores, np.asarray([0.0, 0.0, 1.0]), 5).worst == (
        Mistake(2, "130", "+20 off"),
        Mistake(1, "95", "-5 off"),
    )


def test_correct_answers_are_no_mistakes():
    assert not SingleLabel(("sea", "tomato"), {}).mistakes(np.eye(2), np.arange(2), 5).worst
