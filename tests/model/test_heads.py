"""What training minimises, against torch and numbers worked out by hand."""

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
def test_a_head_says_as_much_as_its_task_needs(target, outputs):
    assert head(target)(torch.zeros(5, 4)).shape == (5, outputs)


@pytest.mark.parametrize(
    ("target", "logits", "targets"),
    [
        pytest.param("single-label", LOGITS, torch.tensor([0, 1, 2]), id="single-label"),
        pytest.param("multi-label", LOGITS, TRUTH, id="multi-label"),
        pytest.param("regression", LOGITS[:, :1], torch.tensor([1.0, 0.5, -3.0]), id="regression"),
    ],
)
def test_every_example_has_a_loss_of_its_own(target, logits, targets):
    losses = head(target).loss(logits, targets, 0.0)
    assert losses.shape == (3,)
    for row in range(3):
        assert_close(head(target).loss(logits[[row]], targets[[row]], 0.0), losses[[row]])


def test_several_labels_are_learned_by_binary_cross_entropy():
    losses = head("multi-label").loss(LOGITS, TRUTH, 0.0)
    assert_close(losses, functional.binary_cross_entropy(LOGITS.sigmoid(), TRUTH, reduction="none").mean(dim=1))


def test_smoothing_moves_several_labels_towards_one_half():
    assert_close(
        head("multi-label").loss(LOGITS, TRUTH, 0.2),
        functional.binary_cross_entropy(LOGITS.sigmoid(), 0.8 * TRUTH + 0.1, reduction="none").mean(dim=1),
    )


def test_an_example_of_one_label_counts_what_its_label_weighs():
    targets, weights = torch.tensor([0, 1, 2]), torch.tensor([3.0, 1.0, 0.5])
    plain = head("single-label").loss(LOGITS, targets, 0.1)
    assert_close(head("single-label").loss(LOGITS, targets, 0.1, weights), plain * weights)


def test_of_several_labels_only_what_is_present_is_weighted():
    weights = torch.tensor([3.0, 1.0, 0.5])
    chances = LOGITS.sigmoid()
    wanted = -(weights * TRUTH * chances.log() + (1 - TRUTH) * (1 - chances).log()).mean(dim=1)
    assert_close(head("multi-label").loss(LOGITS, TRUTH, 0.0, weights), wanted)


def test_a_number_is_learned_by_a_loss_that_outliers_do_not_rule():
    losses = head("regression").loss(torch.tensor([[0.5], [3.0]]), torch.tensor([0.0, 0.0]), 0.0)
    assert_close(losses, torch.tensor([0.5 * 0.5**2, 3.0 - 0.5]))
