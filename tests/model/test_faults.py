"""Equal faults are reported as one, with their number, their first places and what is allowed."""

import pytest

from polymodal.model.errors import InputError
from polymodal.model.faults import Fault, Faults, fault_of, fault_of_input, joined


def lost(number):
    return Fault("image {} is not there", repr(f"{number}.png"), allowed="a file").at(f"line {number}")


def test_a_fault_is_a_string():
    assert lost(2) == "line 2: image '2.png' is not there; allowed: a file"
    assert lost(2).kind == "image … is not there"


@pytest.mark.parametrize(
    ("faults", "line"),
    [
        pytest.param([lost(2)], "line 2: image '2.png' is not there; allowed: a file", id="one-stays-as-it-is"),
        pytest.param(
            [lost(2), lost(3)],
            "2 × image … is not there: line 2 ('2.png'), line 3 ('3.png'); allowed: a file",
            id="two-values",
        ),
        pytest.param(
            [lost(number) for number in range(192)],
            "192 × image … is not there: line 0 ('0.png'), line 1 ('1.png'), line 2 ('2.png') and 189 more; allowed: a file",
            id="many",
        ),
        pytest.param(
            [Fault("split {}", "'holdout'", allowed="train").at(f"line {number}") for number in range(1500)],
            "1,500 × split 'holdout': line 0, line 1, line 2 and 1,497 more; allowed: train",
            id="the-same-value",
        ),
        pytest.param(
            [Fault("label {}", value).at(f"row {number}") for number, value in enumerate("aaab")],
            "4 × label …: row 0 (a), row 1 (a), row 2 (a) and 1 more",
            id="another-value-after-the-first-three",
        ),
        pytest.param(
            ["line 3: 2 cells; allowed: 4", "line 5: 2 cells; allowed: 4"],
            "2 × 2 cells: line 3, line 5; allowed: 4",
            id="plain-sentences",
        ),
        pytest.param(
            [Fault("label {} has no rows", repr(name)) for name in "abcd"],
            "4 × label … has no rows: 'a', 'b', 'c' and 1 more",
            id="values-without-places",
        ),
        pytest.param(["no rows"] * 2, "2 × no rows", id="neither-place-nor-value"),
    ],
)
def test_equal_faults_are_one_line(faults, line):
    assert Faults(faults).lines() == [line]


def test_different_faults_have_their_own_lines_in_order():
    faults = [lost(2), "line 2: no label; allowed: any text", lost(3), "no rows in the train split"]
    assert [line.partition(":")[0] for line in Faults(faults).lines()] == [
        "2 × image … is not there",
        "line 2",
        "no rows in the train split",
    ]


def test_braces_in_a_value_are_not_replaced():
    fault = Fault("image {} is not there", "'a{}.png'", allowed="a file").at("line 2").at("row 7")
    assert fault == "row 7: image 'a{}.png' is not there; allowed: a file"
    assert fault_of(fault) is fault


def test_faults_that_differ_in_measured_numbers_are_equal():
    problems = [InputError("text", f"{number:,} characters", "at most 10") for number in (1200, 90)]
    faults = [fault_of_input(problem).at(f"row {number}") for number, problem in enumerate(problems)]
    assert faults[0] == "row 0: text: 1,200 characters; allowed: at most 10"
    assert Faults(faults).lines() == [
        "2 × text: … characters: row 0 (1,200 characters), row 1 (90 characters); allowed: at most 10"
    ]


def test_a_file_that_cannot_be_decoded_is_named():
    problem = InputError("image", "bytes of no known format", "PNG")
    faults = [fault_of_input(problem, f"{name}.png").at(f"row {name}") for name in "ab"]
    assert faults[0] == "row a: image a.png: bytes of no known format; allowed: PNG"
    assert Faults(faults).lines() == ["2 × image: bytes of no known format: row a (a.png), row b (b.png); allowed: PNG"]


def test_several_faults_of_one_row_are_equal_to_the_same_ones_of_another():
    rows = [joined([lost(number), "no label; allowed: any text"]).at(f"row {number}") for number in (1, 2)]
    (line,) = Faults(rows).lines()
    assert line.startswith("2 × ")
