"""Regions to ignore (COCO's ``iscrowd``): neither cell nor background, for the RPN and for the heads.

A training sample carries them as ``ignore_mask``, (h, w) bool. :class:`CellRCNN` puts that mask behind the instances as
one more with class -1, which is how it reaches the RPN and the heads; both take it off again with :func:`split_ignored`
and train on nothing that lies in it.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import BitMasks, Instances
from torch import Tensor

_IGNORED_CLASS = -1


@META_ARCH_REGISTRY.register()
class CellRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` that hands ``ignore_mask`` to :class:`bccd_d2.modeling.rpn.CellRPN` and the cell heads."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """As ``GeneralizedRCNN.forward``; samples may have ``ignore_mask``, an (h, w) bool tensor."""
        if self.training:
            batched_inputs = [
                {**sample, "instances": with_ignored(sample["instances"], sample["ignore_mask"])}
                if "ignore_mask" in sample
                else sample
                for sample in batched_inputs
            ]
        return super().forward(batched_inputs)


def with_ignored(instances: Instances, ignore_mask: Tensor) -> Instances:
    """The instances of an image with the mask of what is to be ignored behind them.

    Args:
        instances: N, with ``gt_boxes``, ``gt_classes`` and ``gt_masks``.
        ignore_mask: (h, w) bool on the same device.

    Returns:
        N + 1 instances.
    """
    mask = BitMasks(ignore_mask[None])
    ignored = Instances(
        instances.image_size,
        gt_boxes=mask.get_bounding_boxes(),
        gt_classes=torch.full((1,), _IGNORED_CLASS, dtype=torch.int64, device=ignore_mask.device),
        gt_masks=mask,
    )
    return Instances.cat([instances, ignored])


def split_ignored(instances: Instances) -> tuple[Instances, Tensor | None]:
    """Undo :func:`with_ignored`.

    Returns:
        The instances without it, and the (h, w) bool mask, ``None`` where there was none.
    """
    number = len(instances)
    if number == 0 or instances.gt_classes[-1] != _IGNORED_CLASS:
        return instances, None
    return instances[: number - 1], instances.gt_masks.tensor[-1]


def ignored_share(boxes: Tensor, ignore_mask: Tensor) -> Tensor:
    """How much of each box is to be ignored.

    Args:
        boxes: (N, 4) xyxy in pixels of the mask; rounded to whole pixels.
        ignore_mask: (h, w) bool.

    Returns:
        (N,) float in [0, 1], the share of the box's pixels inside the image; 0 for a box outside of it.
    """
    height, width = ignore_mask.shape
    # Sums over all rectangles that start at the upper left corner (a summed-area table).
    sums = torch.zeros(height + 1, width + 1, dtype=torch.int64, device=ignore_mask.device)
    sums[1:, 1:] = ignore_mask.cumsum(0).cumsum(1)
    x0, x1 = boxes[:, 0].round().long().clamp(0, width), boxes[:, 2].round().long().clamp(0, width)
    y0, y1 = boxes[:, 1].round().long().clamp(0, height), boxes[:, 3].round().long().clamp(0, height)
    ignored = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return ignored / ((x1 - x0) * (y1 - y0)).clamp(min=1)


def outside_ignored(proposals: Instances, ignore_mask: Tensor | None, threshold: float) -> Instances:
    """Those ``proposal_boxes`` of which at most ``threshold``, a share, is to be ignored."""
    if ignore_mask is None:
        return proposals
    return proposals[ignored_share(proposals.proposal_boxes.tensor, ignore_mask) <= threshold]
