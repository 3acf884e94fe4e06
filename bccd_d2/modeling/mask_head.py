"""Detectron2's mask head with a choice of losses."""

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

from bccd_d2.modeling.mask_losses import bce_loss, find_mask_loss


@ROI_MASK_HEAD_REGISTRY.register()
class CellMaskHead(MaskRCNNConvUpsampleHead):
    """``MaskRCNNConvUpsampleHead`` that trains on ``MODEL.ROI_MASK_HEAD.LOSS``; the same layers and checkpoints.

    Args:
        input_shape: of the pooled features.
        mask_loss: of logits and targets, both (R, M, M), see :mod:`bccd_d2.modeling.mask_losses`.
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
