"""Detectron2's RPN with partial labels, weighted losses and focal loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from bccd_d2.modeling.partial_labels import partial_labels

# Objectness that focal loss starts from, so that the many easy anchors do not drown the first steps (Lin et al. 2017).
_PRIOR = 0.01
# Alpha and gamma of the same paper.
_FOCAL = (0.25, 2.0)


@PROPOSAL_GENERATOR_REGISTRY.register()
class CellRPN(RPN):
    """``RPN`` that leaves anchors out of both losses where the image is not annotated; the same layers and checkpoints.

    See :mod:`bccd_d2.modeling.partial_labels`.

    Args:
        focal: alpha and gamma of the focal loss for objectness, which is taken over all anchors, not over a sample,
            and divided by the number of positive ones (Lin et al. 2017); ``None`` keeps the cross entropy of a sample.
            The box regression is trained on the sample either way.
        **kwargs: those of ``RPN``.
    """

    @configurable
    def __init__(self, *, focal: tuple[float, float] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.focal = focal
        if focal is not None:
            torch.nn.init.constant_(self.rpn_head.objectness_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.RPN``."""
        focal = _FOCAL if cfg.MODEL.RPN.OBJECTNESS_LOSS == "focal" else None
        return {**super().from_config(cfg, input_shape), "focal": focal}

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Keep all: the sample is drawn once it is known which anchors are ignored."""
        return label

    def _sample(self, labels: Tensor) -> Tensor:
        return super()._subsample_labels(labels.clone())

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As ``RPN.label_and_sample_anchors``; with focal loss the labels of all anchors, not of a sample."""
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        everywhere = Boxes.cat(anchors).tensor
        for label, partial in zip(labels, map(partial_labels, gt_instances)):
            label[partial.ignored(everywhere)] = -1
            label[(label == 0) & partial.of_unlabeled_size(everywhere)] = -1
        return labels if self.focal else [self._sample(label) for label in labels], boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """As ``RPN.losses``."""
        if self.focal is None:
            return super().losses(anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        sampled = [self._sample(label) for label in gt_labels]
        losses = super().losses(anchors, pred_objectness_logits, sampled, pred_anchor_deltas, gt_boxes)
        labels = torch.stack(gt_labels)
        counted = labels >= 0
        alpha, gamma = self.focal
        loss = sigmoid_focal_loss(
            cat(pred_objectness_logits, dim=1)[counted],
            labels[counted].to(torch.float32),
            alpha=alpha,
            gamma=gamma,
            reduction="sum",
        )
        number = (labels == 1).sum().clamp(min=1)
        losses["loss_rpn_cls"] = loss / number * self.loss_weight["loss_rpn_cls"]
        return losses
