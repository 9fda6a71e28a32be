"""Figures are reproducible, show any labels, and agree with their numbers."""

import numpy as np
import pytest

from polymodal.model.config import Scale
from polymodal.model.evaluation import plots
from polymodal.model.metrics import calibration_error
from polymodal.model.targets.multi_label.scoring import MultiLabel
from polymodal.model.targets.regression.scoring import Regression
from polymodal.model.targets.single_label.scoring import SingleLabel

HOSTILE = ("a$b$", r"$\frac{", "漢字", "<b>&amp;", "x" * 80)


@pytest.fixture(scope="module")
def answers():
    """Scores (200, 5) and targets (200,), well calibrated."""
    chance = np.random.default_rng(0)
    scores = chance.dirichlet(np.full(5, 0.3), size=200)
    targets = np.asarray([chance.choice(5, p=row) for row in scores])
    return scores.astype(np.float32), targets


def figures(answers, labels=HOSTILE):
    return plots.answer_figures("single-label", SingleLabel(labels, {}), *answers)


HISTORY = [
    {"epoch": 1, "loss": 1.0, "validation image+text": 0.5, "validation text": 0.4},
    {"epoch": 2, "loss": 0.5, "validation image+text": 0.7, "validation text": 0.6},
]


def test_the_same_numbers_give_the_same_files(answers, tmp_path):
    for folder in ("first", "second"):
        plots.save(
            {**figures(answers), "curves": plots.learning_curves(HISTORY, best_epoch=2, watched="accuracy")},
            tmp_path / folder,
        )
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(
        f"{name}.{kind}" for name in ("confusion", "reliability", "curves") for kind in ("png", "svg")
    )
    for file in files:
        first, second = ((tmp_path / folder / file).read_bytes() for folder in ("first", "second"))
        assert first == second, file
        assert first.startswith(b"\x89PNG" if file.endswith("png") else b"<?xml")


def test_a_file_has_no_date_and_no_creator(answers):
    figure = figures(answers)["reliability"]
    assert b"Software" not in plots.render(figure, "png")
    for word in (b"dc:date", b"dc:creator"):
        assert word not in plots.render(figure, "svg")


def test_labels_are_drawn_as_they_are_written(answers):
    """Neither as formula nor as markup; in an SVG as text, which the reader's fonts show in any script."""
    svg = plots.render(figures(answers)["confusion"], "svg").decode()
    for written in ("a$b$", r"$\frac{", "漢字", "&lt;b&gt;&amp;amp;", "x" * 27 + "…"):
        assert f">{written}</text>" in svg


def test_a_confusion_matrix_shows_its_counts():
    figure = plots.confusion(np.asarray([[7, 2], [0, 5]]), ("sea", "tomato"))
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["2", "5", "7"]  # nothing in empty cells
    assert axes.images[0].get_array().tolist() == [[7 / 9, 2 / 9], [0, 1]]
    assert axes.get_ylabel() == "true label"


def test_many_labels_are_coloured_but_not_numbered():
    figure = plots.confusion(np.eye(60, dtype=np.int64), [f"label {number}" for number in range(60)])
    assert not figure.axes[0].texts


def test_a_label_without_items_has_an_empty_row():
    figure = plots.confusion(np.asarray([[0, 0], [1, 3]]), ("sea", "tomato"))
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 0], [0.25, 0.75]]


def test_a_reliability_diagram_shows_the_calibration_error():
    confidence, correct = np.full(30, 0.75, dtype=np.float32), np.arange(30) % 4 == 0
    assert "calibration error 0.4" in plots.reliability_diagram(confidence, correct).axes[0].get_title()


def test_a_reliability_diagram_of_one_answer_can_be_drawn():
    assert plots.render(plots.reliability_diagram(np.ones(1, dtype=np.float32), np.ones(1, dtype=np.bool_)), "png")


def test_learning_curves_show_every_set_and_the_best_epoch():
    loss, score = plots.learning_curves(HISTORY, best_epoch=2, watched="accuracy").axes
    assert list(loss.lines[0].get_ydata()) == [1.0, 0.5]
    assert {line.get_label(): list(line.get_ydata()) for line in score.lines[:2]} == {
        "image + text": [0.5, 0.7],
        "text": [0.4, 0.6],
    }
    assert list(score.lines[2].get_xdata()) == [2, 2]


def test_learning_curves_without_epochs_are_empty():
    assert plots.render(plots.learning_curves([], best_epoch=0, watched="accuracy"), "svg")


def test_a_multi_label_diagram_has_the_decisions_about_all_labels():
    target = MultiLabel(("circle", "square"), {}, np.full(2, 0.5))
    scores = np.tile(np.asarray([0.75, 0.25], dtype=np.float32), (40, 1))
    targets = np.zeros((40, 2), dtype=np.float32)
    targets[:30, 0] = 1  # as often as the circle's score
    targets[:10, 1] = 1  # as often as the square's score
    (diagram,) = plots.answer_figures("multi-label", target, scores, targets).values()
    title = diagram.axes[0].get_title()
    assert title.startswith("reliability")
    assert float(title.split()[-1]) == pytest.approx(calibration_error(scores.ravel(), targets.ravel() > 0), abs=1e-3)
    assert sum(bar.get_height() for bar in diagram.axes[1].patches) == 80


def test_predicted_numbers_are_drawn_over_true_ones_in_their_unit():
    target = Regression(Scale(mean=100, std=10), {})
    scores = np.asarray([[90.0, 80, 100], [120, np.nan, np.nan]])
    (figure,) = plots.answer_figures("regression", target, scores, np.asarray([-1.0, 1.0])).values()
    points, interval = figure.axes[0].collections[1], figure.axes[0].collections[0]
    assert points.get_offsets().tolist() == [[90, 90], [110, 120]]
    assert [segment.tolist() for segment in interval.get_segments()] == [[[90, 80], [90, 100]]]
    assert plots.render(figure, "png")
