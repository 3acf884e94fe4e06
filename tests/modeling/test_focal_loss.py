import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from bccd_d2.modeling.focal_loss import softmax_focal_loss

# Probabilities (1/2, 1/4, 1/4) and (1/8, 1/8, 3/4), true classes 0 and 1.
LOGITS = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 6.0]], dtype=torch.float64).log()
TARGETS = torch.tensor([0, 1])
LOSSES = (0.5**2 * math.log(2), (7 / 8) ** 2 * math.log(8))


def test_value_of_a_case_worked_out_by_hand():
    assert softmax_focal_loss(LOGITS, TARGETS, 2.0).item() == pytest.approx(sum(LOSSES) / 2)


def test_class_weights_change_the_balance_and_not_the_size():
    weights = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64)
    expected = (3 * LOSSES[0] + LOSSES[1]) / 4
    assert softmax_focal_loss(LOGITS, TARGETS, 2.0, weights).item() == pytest.approx(expected)
    assert softmax_focal_loss(LOGITS, TARGETS, 2.0, 10 * weights).item() == pytest.approx(expected)


def test_without_focus_it_is_torchs_cross_entropy():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20) % 4
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5])
    for one in (None, weights):
        expected = cross_entropy(logits, targets, weight=one)
        torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0, one), expected)


def test_gradients_are_those_of_the_values():
    logits = torch.randn(
        5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    targets, weights = torch.tensor([0, 3, 1, 2, 3]), torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, targets, 2.0, weights), logits)


def test_certainty_has_a_gradient_of_nought_with_any_focus():
    for gamma in (0.0, 0.5, 2.0):
        logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
        softmax_focal_loss(logits, torch.tensor([0]), gamma).backward()
        assert logits.grad.tolist()[0] == pytest.approx([0, 0, 0], abs=1e-9), gamma


def test_no_proposal_and_no_weight_cost_nothing():
    empty = torch.zeros(0, 4, requires_grad=True)
    softmax_focal_loss(empty, torch.zeros(0, dtype=torch.long), 2.0).backward()
    weights = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert softmax_focal_loss(LOGITS, TARGETS, 2.0, weights).item() == 0
