"""Label cells: how each target reads them, which it rejects, and when they look like those of another target."""

from decimal import Decimal

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from polymodal.model.config import Scale
from polymodal.model.errors import ModelError
from polymodal.model.targets import TARGETS
from polymodal.model.targets.contract import WrongCell
from polymodal.model.targets.weights import class_weights

SINGLE, MULTI, NUMBER = (TARGETS[name].cells for name in ("single-label", "multi-label", "regression"))


@pytest.mark.parametrize(
    ("target", "value", "cell"),
    [
        pytest.param("single-label", "lamps", "lamps", id="a-label"),
        pytest.param("single-label", "red|green", "red|green", id="one-label-with-a-bar-in-it"),
        pytest.param("multi-label", "lamps", "lamps", id="one-of-several"),
        pytest.param("multi-label", " red | green ", "red|green", id="blanks-around-labels"),
        pytest.param("multi-label", "", "", id="none-of-the-labels"),
        pytest.param("multi-label", ["red", "green", 3], "red|green|3", id="a-list"),
        pytest.param("multi-label", [], "", id="an-empty-list"),
        pytest.param("regression", "12.50", "12.5", id="a-number"),
        pytest.param("regression", "1e3", "1000.0", id="an-exponent"),
        pytest.param("regression", 12.5, "12.5", id="a-float"),
        pytest.param("regression", Decimal("12.50"), "12.5", id="a-decimal"),
    ],
)
def test_a_cell_is_normalised(target, value, cell):
    assert TARGETS[target].cells.validate(TARGETS[target].cells.normalise(value)) == cell


@pytest.mark.parametrize(
    ("target", "value", "problem"),
    [
        pytest.param("single-label", "", "no label; allowed: any text", id="no-label"),
        pytest.param("single-label", ["red"], "a list; allowed: text, or lists with --target multi-label", id="list"),
        pytest.param("single-label", 0.5, "a float; allowed: text, or numbers with --target regression", id="float"),
        pytest.param("multi-label", "red||green", r"'red\|\|green' names nothing at one place", id="two-bars"),
        pytest.param(
            "multi-label", "red|", "names nothing at one place; allowed: labels with one «|»", id="bar-at-the-end"
        ),
        pytest.param(
            "multi-label", ["red|green"], r"label holds 'red\|green'; allowed: a list of texts", id="bar-in-a-list"
        ),
        pytest.param("multi-label", [None], "label holds None; allowed: a list of texts", id="null-in-a-list"),
        pytest.param("multi-label", ["", "red"], "names nothing at one place", id="empty-in-a-list"),
        pytest.param("regression", "", "no label; allowed: a finite number such as 12.5", id="no-number"),
        pytest.param("regression", "12,5", "label '12,5'; allowed: a finite number", id="decimal-comma"),
        pytest.param("regression", "cheap", "label 'cheap'; allowed: a finite number", id="word"),
        pytest.param("regression", "nan", "label 'nan'", id="nan"),
        pytest.param("regression", float("inf"), "label 'inf'", id="infinite"),
        pytest.param("regression", "1_000", "label '1_000'", id="underscore"),
    ],
)
def test_a_cell_that_cannot_be_read_is_explained(target, value, problem):
    with pytest.raises(WrongCell, match=problem.replace("«|»", r"«\|»")):
        TARGETS[target].cells.validate(TARGETS[target].cells.normalise(value))


def test_labels_are_sorted_and_numbers_have_none():
    assert SINGLE.labels(["b", "a|c", "b"]) == ("a|c", "b")
    assert MULTI.labels(["b", "a|c", "", "c|b"]) == ("a", "b", "c")
    assert NUMBER.labels(["1.0"]) == ()


def test_cells_are_converted_to_the_targets_of_the_network():
    assert SINGLE.array(["b", "a"], ("a", "b"), None).tolist() == [1, 0]
    several = MULTI.array(["c|a", "", "b|b"], ("a", "b", "c"), None)
    assert several.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert several.dtype == np.float32
    assert NUMBER.array(["110.0", "95.0"], (), Scale(mean=100, std=10)).tolist() == [1.0, -0.5]


def test_only_numbers_have_a_scale():
    assert NUMBER.scale(["1.0", "3.0"]) == Scale(mean=2, std=1)
    assert SINGLE.scale(["1.0", "3.0"]) is None


@pytest.mark.parametrize(
    ("target", "cells", "training", "problems"),
    [
        pytest.param("single-label", ["a", "b"], ["a"], ["label 'b' has no rows in the train split"], id="unlearnt"),
        pytest.param("single-label", ["a"], ["a"], ["only one label; at least two are needed"], id="one-label"),
        pytest.param(
            "multi-label", ["a|b", "a"], ["a"], ["label 'b' has no rows in the train split"], id="unlearnt-of-several"
        ),
        pytest.param("multi-label", ["", ""], [""], ["no labels; at least one is needed"], id="no-labels"),
        pytest.param("multi-label", ["a", ""], ["a", ""], [], id="one-label-is-enough-for-yes-or-no"),
        pytest.param(
            "regression",
            ["1.0", "2.0"],
            ["1.0"],
            ["only one number in the train split; at least two are needed"],
            id="flat",
        ),
        pytest.param("regression", ["1.0", "2.0"], ["1.0", "2.0"], [], id="two-numbers"),
    ],
)
def test_cells_that_cannot_be_learned_are_reported(target, cells, training, problems):
    assert TARGETS[target].cells.problems(cells, training) == problems


@pytest.mark.parametrize(
    ("target", "cells", "hint"),
    [
        pytest.param(
            "single-label",
            [str(number / 7) for number in range(40)],
            "did you mean --target regression?",
            id="measured",
        ),
        pytest.param(
            "single-label",
            [str(number) for number in range(100)],
            "100 different numbers",
            id="nearly-every-row-another",
        ),
        pytest.param("single-label", [str(number % 10) for number in range(100)], "", id="ten-digits-are-names"),
        pytest.param("single-label", [str(number % 50) for number in range(1000)], "", id="fifty-numbered-classes"),
        pytest.param("single-label", ["a|b", "a", "b|c"], "2 of 3 labels hold «|», e.g. 'a|b'", id="bars"),
        pytest.param("single-label", ["a|b", *["a", "b"] * 50], "", id="one-bar-is-a-name"),
        pytest.param("single-label", ["a", "b"], "", id="names"),
        pytest.param("multi-label", ["a", "b"], "every row has exactly one label", id="one-each"),
        pytest.param("multi-label", ["a", ""], "", id="one-or-none"),
        pytest.param("regression", ["0.0", "1.0", "0.0"], "only the numbers 0.0 and 1.0", id="yes-or-no"),
        pytest.param("regression", ["1.0", "2.0", "3.0"], "", id="grades"),
    ],
)
def test_cells_that_look_like_those_of_another_target_give_a_hint(target, cells, hint):
    actual = TARGETS[target].cells.hint(cells)
    assert hint in actual
    assert bool(hint) == bool(actual)


TRAINING = ["ant"] * 6 + ["bee"] * 3 + ["cat"]
LABELS = ("ant", "bee", "cat")


def test_balanced_weights_are_those_of_scikit_learn():
    weights = class_weights("balanced", "single-label", TRAINING, LABELS)
    expected = compute_class_weight("balanced", classes=np.asarray(LABELS), y=np.asarray(TRAINING))
    assert list(weights.values()) == pytest.approx(expected)
    assert sum(weights[label] for label in TRAINING) / len(TRAINING) == pytest.approx(1)


def test_balanced_weights_of_several_labels_are_the_ratio_of_absent_to_present():
    weights = class_weights("balanced", "multi-label", ["a|b", "a", "", "a"], ("a", "b"))
    assert weights == pytest.approx({"a": 1 / 3, "b": 3})
    absent, present = compute_class_weight("balanced", classes=np.asarray([0, 1]), y=np.asarray([1, 0, 0, 0]))
    assert weights["b"] == pytest.approx(present / absent)


def test_a_label_of_every_row_has_a_weight_above_0():
    assert class_weights("balanced", "multi-label", ["a", "a"], ("a",)) == {"a": 0.5}


def test_weights_are_given_by_label():
    assert class_weights("none", "single-label", TRAINING, LABELS) == {}
    assert class_weights("bee=2,cat=0.5", "single-label", TRAINING, LABELS) == {"ant": 1, "bee": 2, "cat": 0.5}
    assert class_weights("a=b=3", "single-label", ["a=b", "c"], ("a=b", "c")) == {"a=b": 3, "c": 1}


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        pytest.param(
            "dog=2",
            "'dog=2'; allowed for this single-label data: none, balanced, or LABEL=WEIGHT,… for ant, bee, cat",
            id="label",
        ),
        pytest.param("heavy", "'heavy'; allowed", id="word"),
        pytest.param("ant=0", "'0' for 'ant'; allowed: a number above 0", id="zero"),
        pytest.param("ant=-1", "'-1' for 'ant'", id="negative"),
        pytest.param("ant=much", "'much' for 'ant'", id="no-number"),
        pytest.param("ant=nan", "'nan' for 'ant'", id="nan"),
    ],
)
def test_wrong_weights_are_explained(option, problem):
    with pytest.raises(ModelError) as caught:
        class_weights(option, "single-label", TRAINING, LABELS)
    assert problem in str(caught.value)


@pytest.mark.parametrize("option", ["balanced", "low=2"])
def test_numbers_have_no_weights(option):
    with pytest.raises(ModelError, match=r"class weights: '.*'; allowed for (this )?regression( data)?: none"):
        class_weights(option, "regression", ["1.0", "2.0"], ())
