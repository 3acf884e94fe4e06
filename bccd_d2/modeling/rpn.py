"""Detectron2's RPN with partial labels."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from bccd_d2.modeling.partial_labels import partial_labels


@PROPOSAL_GENERATOR_REGISTRY.register()
class CellRPN(RPN):
    """``RPN`` that leaves anchors out of both losses where the image is not annotated; the same layers and checkpoints.

    See :mod:`bccd_d2.modeling.partial_labels`.
    """

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Keep all: the sample is drawn once it is known which anchors are ignored."""
        return label

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As ``RPN.label_and_sample_anchors``."""
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        everywhere = Boxes.cat(anchors).tensor
        for label, partial in zip(labels, map(partial_labels, gt_instances)):
            label[partial.ignored(everywhere)] = -1
            label[(label == 0) & partial.of_unlabeled_size(everywhere)] = -1
        return [super(CellRPN, self)._subsample_labels(label) for label in labels], boxes
