"""Losses of heads are those of torch, or numbers worked out by hand."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from polymodal.model.network import head_type

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 2.0]])
TRUTH = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def head(target):
    torch.manual_seed(0)
    return head_type(target)(4, 3, 0.0)


@pytest.mark.parametrize(("target", "outputs"), [("single-label", 3), ("multi-label", 3), ("regression", 1)])
def test_a_head_has_the_outputs_of_its_target(target, outputs):
    assert head(target)(torch.zeros(5, 4)).shape == (5, outputs)


@pytest.mark.parametrize(
    ("target", "logits", "targets"),
    [
        pytest.param("single-label", LOGITS, torch.tensor([0, 1, 2]), id="single-label"),
        pytest.param("multi-label", LOGITS, TRUTH, id="multi-label"),
        pytest.param("regression", LOGITS[:, :1], torch.tensor([1.0, 0.5, -3.0]), id="regression"),
    ],
)
def test_the_loss_of_an_example_does_not_depend_on_others(target, logits, targets):
    losses = head(target).loss(logits, targets, 0.0)
    assert losses.shape == (3,)
    for row in range(3):
        assert_close(head(target).loss(logits[[row]], targets[[row]], 0.0), losses[[row]])


def test_several_labels_are_learned_by_binary_cross_entropy():
    losses = head("multi-label").loss(LOGITS, TRUTH, 0.0)
    assert_close(losses, functional.binary_cross_entropy(LOGITS.sigmoid(), TRUTH, reduction="none").mean(dim=1))


def test_smoothing_moves_the_targets_of_several_labels_towards_one_half():
    assert_close(
        head("multi-label").loss(LOGITS, TRUTH, 0.2),
        functional.binary_cross_entropy(LOGITS.sigmoid(), 0.8 * TRUTH + 0.1, reduction="none").mean(dim=1),
    )


def test_a_single_label_loss_is_weighted_by_its_label():
    targets, weights = torch.tensor([0, 1, 2]), torch.tensor([3.0, 1.0, 0.5])
    plain = head("single-label").loss(LOGITS, targets, 0.1)
    assert_close(head("single-label").loss(LOGITS, targets, 0.1, weights), plain * weights)


def test_only_the_present_ones_of_several_labels_are_weighted():
    weights = torch.tensor([3.0, 1.0, 0.5])
    chances = LOGITS.sigmoid()
    expected = -(weights * TRUTH * chances.log() + (1 - TRUTH) * (1 - chances).log()).mean(dim=1)
    assert_close(head("multi-label").loss(LOGITS, TRUTH, 0.0, weights), expected)


def test_the_loss_of_a_number_is_linear_for_outliers():
    losses = head("regression").loss(torch.tensor([[0.5], [3.0]]), torch.tensor([0.0, 0.0]), 0.0)
    assert_close(losses, torch.tensor([0.5 * 0.5**2, 3.0 - 0.5]))
