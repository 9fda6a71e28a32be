"""Which answers are worst, and what they said, by hand."""

import numpy as np

from model.config import Scale
from model.evaluation.mistakes import Mistake, mistakes
from model.tasks import MultiLabel, Regression, SingleLabel


def test_wrong_labels_are_ranked_by_how_sure_the_model_was():
    scores = np.asarray([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    found = mistakes(SingleLabel(("sea", "tomato"), {}), scores, np.asarray([0, 0, 0, 1]), 5)
    assert found.told.startswith("3 of 4 answers are wrong")
    assert found.worst == (
        Mistake(2, "tomato", "80% sure"),
        Mistake(3, "sea", "70% sure"),
        Mistake(1, "tomato", "60% sure"),
    )
    assert mistakes(SingleLabel(("sea", "tomato"), {}), scores, np.asarray([0, 0, 0, 1]), 1).worst == found.worst[:1]


def test_a_wrong_decision_about_one_of_several_labels_is_a_mistake():
    task = MultiLabel(("circle", "square"), {}, np.asarray([0.5, 0.3]))
    scores = np.asarray([[0.9, 0.4], [0.1, 0.1], [0.6, 0.2], [0.95, 0.9]])
    targets = np.asarray([[1, 0], [1, 0], [1, 0], [1, 1]])
    assert mistakes(task, scores, targets, 5).worst == (
        Mistake(1, "none", "90% sure that circle does not fit"),
        Mistake(0, "circle, square", "40% sure that square fits"),
    )


def test_numbers_are_ranked_by_how_far_they_are_off():
    task = Regression(Scale(mean=100, std=10), {})
    scores = np.asarray([[100.0, 90, 110], [95, 85, 105], [130, 120, 140]])
    found = mistakes(task, scores, np.asarray([0.0, 0.0, 1.0]), 5)
    assert found.worst == (Mistake(2, "130", "+20 off"), Mistake(1, "95", "-5 off"))


def test_who_is_always_right_makes_no_mistake():
    assert not mistakes(SingleLabel(("sea", "tomato"), {}), np.eye(2), np.arange(2), 5).worst
