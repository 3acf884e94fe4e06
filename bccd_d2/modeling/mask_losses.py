"""Losses of the mask head.

Each takes logits and targets of R masks, (R, M, M) float, targets 0 or 1, M being 28, or 56 where the head pools at 28,
and returns a scalar that carries gradients; 0 where R is 0.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own habit

# Added to both parts of the Dice ratio, in pixels: without it a target without a pixel would have no gradient.
_DICE_SMOOTHING = 1.0


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy, the mean over all pixels of all masks: what Mask R-CNN trains on (He et al. 2017)."""
    if not len(logits):
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, targets)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss, the mean over masks of ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)``, in [0, 1).

    p is the sigmoid of the logits; sums go over the pixels of a mask, so a platelet counts as much as a white cell.
    After Milletari et al. 2016 (V-Net), without their squares.
    """
    if not len(logits):
        return logits.sum()
    predicted, true = logits.sigmoid().flatten(1), targets.flatten(1)
    shared = (predicted * true).sum(1)
    ratio = (2 * shared + _DICE_SMOOTHING) / (predicted.sum(1) + true.sum(1) + _DICE_SMOOTHING)
    return (1 - ratio).mean()


def bce_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """:func:`bce_loss` plus :func:`dice_loss`."""
    return bce_loss(logits, targets) + dice_loss(logits, targets)


def boundary_weights(targets: Tensor, weight: float, width: int) -> Tensor:
    """Weight of each pixel, larger along the outline of the target: ``w = 1 + weight * |mean(t) - t|``.

    ``mean(t)`` is taken over the ``width`` x ``width`` pixels around a pixel, as far as they lie inside the mask's
    square, so that the edge of the square is no outline. On a straight outline w is about ``1 + weight / 2``, and it
    falls to 1 at half the width from it. After Wei et al. 2020 (F3Net).

    Args:
        targets: (R, M, M) float.
        weight: at least 0; 0 gives 1 everywhere.
        width: odd, mask pixels.

    Returns:
        (R, M, M) in [1, 1 + weight).
    """
    mean = F.avg_pool2d(targets[:, None], width, stride=1, padding=width // 2, count_include_pad=False)[:, 0]
    return 1 + weight * (mean - targets).abs()


def boundary_bce_loss(logits: Tensor, targets: Tensor, weight: float = 5.0, width: int = 5) -> Tensor:
    """Binary cross entropy, the mean over all pixels weighted by :func:`boundary_weights`."""
    if not len(logits):
        return logits.sum()
    weights = boundary_weights(targets, weight, width)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weights * losses).sum() / weights.sum()


def find_mask_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that ``MODEL.ROI_MASK_HEAD.LOSS`` names."""
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "bce": bce_loss,
        "dice": dice_loss,
        "bce_dice": bce_dice_loss,
        "boundary_bce": boundary_bce_loss,
    }
    return losses[name]
