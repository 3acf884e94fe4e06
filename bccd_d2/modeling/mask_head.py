"""Detectron2's mask head with a choice of losses.

Each loss takes logits and targets of R masks, (R, M, M) float, targets 0 or 1, M being 28, or 56 where the head pools
at 28, and returns a scalar that carries gradients; 0 where R is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own habit

# Added to both parts of the Dice ratio, in pixels: without it a target without a pixel would have no gradient.
_DICE_SMOOTHING = 1.0


@ROI_MASK_HEAD_REGISTRY.register()
class CellMaskHead(MaskRCNNConvUpsampleHead):
    """``MaskRCNNConvUpsampleHead`` that trains on ``MODEL.ROI_MASK_HEAD.LOSS``; the same layers and checkpoints.

    Args:
        input_shape: of the pooled features.
        mask_loss: of logits and targets, both (R, M, M), see :func:`find_mask_loss`.
        **kwargs: those of ``MaskRCNNConvUpsampleHead``.
    """

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, mask_loss: Callable[[Tensor, Tensor], Tensor], **kwargs: Any
    ) -> None:
        super().__init__(input_shape, **kwargs)
        self.mask_loss = mask_loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Arguments from ``MODEL.ROI_MASK_HEAD`` and ``MODEL.LOSS_WEIGHTS.MASK``."""
        return {
            **super().from_config(cfg, input_shape),
            "mask_loss": find_mask_loss(cfg.MODEL.ROI_MASK_HEAD.LOSS),
            "loss_weight": cfg.MODEL.LOSS_WEIGHTS.MASK,
        }

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """As ``BaseMaskRCNNHead.forward``."""
        if not self.training or self.mask_loss is bce_loss:
            return super().forward(x, instances)
        logits, targets = true_class_masks(self.layers(x), instances)
        if len(logits):
            accuracy = ((logits > 0) == (targets > 0.5)).float().mean().item()
            get_event_storage().put_scalar("mask_rcnn/accuracy", accuracy)
        return {"loss_mask": self.mask_loss(logits, targets) * self.loss_weight}


def true_class_masks(logits: Tensor, instances: Sequence[Instances]) -> tuple[Tensor, Tensor]:
    """What the mask losses compare.

    Args:
        logits: (R, C, M, M) of all proposals of all images, C being 1 or the number of classes.
        instances: of each image its proposals, with ``proposal_boxes``, ``gt_classes`` and ``gt_masks``.

    Returns:
        (R, M, M) float32 logits of the true class, and (R, M, M) float32 targets, 0 or 1: the true mask inside the box.
    """
    shown = [one for one in instances if len(one)]
    if not shown:
        return logits[:, 0].float(), logits[:, 0].detach().float()
    classes = cat([one.gt_classes for one in shown]) if logits.shape[1] > 1 else 0
    targets = cat(
        [one.gt_masks.crop_and_resize(one.proposal_boxes.tensor, logits.shape[-1]) for one in shown]
    )
    rows = torch.arange(len(logits), device=logits.device)
    # Sums over a mask are too long for half precision.
    return logits[rows, classes].float(), targets.float()


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
