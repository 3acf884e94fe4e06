import math

import pytest
import torch

from bccd_d2.config_checks import MASK_LOSSES
from bccd_d2.modeling.mask_head import (
    bce_dice_loss,
    bce_loss,
    boundary_bce_loss,
    boundary_weights,
    dice_loss,
    find_mask_loss,
)

# Two masks of 2x2: three pixels at p = 0.5 and one at p = 0.9; all at p = 0.5.
LOGITS = torch.tensor([[[0.0, 0.0], [0.0, math.log(9)]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
TARGETS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
# Cross entropy log 2 at p = 0.5, -log 0.9 at the one pixel.
BCE = (7 * math.log(2) - math.log(0.9)) / 8
# 1 - (2 (0.5 + 0.9) + 1) / (1.5 + 0.9 + 2 + 1) and 1 - 1 / (2 + 0 + 1).
DICE = ((1 - 3.8 / 5.4) + (1 - 1 / 3)) / 2


def test_values_of_a_case_worked_out_by_hand():
    assert bce_loss(LOGITS, TARGETS).item() == pytest.approx(BCE)
    assert dice_loss(LOGITS, TARGETS).item() == pytest.approx(DICE)
    assert bce_dice_loss(LOGITS, TARGETS).item() == pytest.approx(BCE + DICE)


def test_boundary_weights_of_a_straight_outline():
    target = torch.zeros(1, 6, 6, dtype=torch.float64)
    target[:, :, :3] = 1
    # Over 3 pixels from left to right the mean is 1, 1, 2/3, 1/3, 0, 0; rows differ in nothing, not even at the edge.
    row = [1, 1, 1 + 4 / 3, 1 + 4 / 3, 1, 1]
    torch.testing.assert_close(
        boundary_weights(target, 4.0, 3)[0], torch.tensor([row] * 6, dtype=torch.float64)
    )
    assert (boundary_weights(target, 0.0, 3) == 1).all()


def test_boundary_loss_weighs_errors_at_the_outline_more():
    target = torch.zeros(1, 6, 6, dtype=torch.float64)
    target[:, :, :3] = 1
    logits = torch.where(target > 0, 20.0, -20.0).double()
    logits[0, 0, 2] = 0  # at the outline, weight 7/3, loss log 2
    loss = boundary_bce_loss(logits, target, weight=4.0, width=3).item()
    total = 12 * 7 / 3 + 24
    assert loss == pytest.approx(7 / 3 * math.log(2) / total, rel=1e-6)


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_a_perfect_mask_costs_almost_nothing_and_no_mask_nothing(name):
    loss = find_mask_loss(name)
    targets = torch.zeros(2, 28, 28)
    targets[:, 5:20, 5:20] = 1
    assert loss(40 * targets - 20, targets).item() == pytest.approx(0, abs=1e-6)
    assert loss(20 - 40 * targets, targets).item() > 0.9
    empty = torch.zeros(0, 28, 28, requires_grad=True)
    nothing = loss(empty, torch.zeros(0, 28, 28))
    nothing.backward()
    assert nothing.item() == 0
