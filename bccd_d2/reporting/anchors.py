"""The anchor that overlaps each annotated box most, for the figure that shows whether anchors fit the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou
from numpy.typing import NDArray

from bccd_d2.errors import InputError

_IMAGE_MULTIPLE = 32  # images are padded to whole cells of p5


@dataclass(frozen=True)
class BestAnchors:
    """Of N boxes, xyxy in pixels of the resized image."""

    overlaps: NDArray[np.float64]  # (N,) IoU
    boxes: NDArray[np.float64]  # (N, 4) the anchors
    levels: NDArray[np.int64]  # (N,) index of their level in ``strides``
    strides: Sequence[int]
    sizes: Sequence[Sequence[float]]  # of each level


def best_anchors(cfg: CfgNode, boxes: NDArray[np.float64], height: int, width: int) -> BestAnchors:
    """Of the anchors of ``MODEL.ANCHOR_GENERATOR`` in an image of this size, the best for each of (N, 4) boxes.

    Raises InputError for levels that are not named by the logarithm of their stride, as p2 to p6 are.
    """
    names = cfg.MODEL.RPN.IN_FEATURES
    if not all(name[:1] == "p" and name[1:].isdecimal() for name in names):
        raise InputError(f"MODEL.RPN.IN_FEATURES: expected names such as 'p2', found {names}")
    strides = [2 ** int(name[1:]) for name in names]
    padded = [-(-side // _IMAGE_MULTIPLE) * _IMAGE_MULTIPLE for side in (height, width)]
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
    anchors = DefaultAnchorGenerator(cfg, [ShapeSpec(stride=stride) for stride in strides])(maps)
    overlaps = pairwise_iou(Boxes(torch.from_numpy(boxes).float().reshape(-1, 4)), Boxes.cat(anchors))
    best, index = overlaps.max(dim=1)
    level = np.repeat(np.arange(len(strides)), [len(one) for one in anchors])
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    return BestAnchors(
        best.double().numpy(),
        Boxes.cat(anchors).tensor[index].double().numpy(),
        level[index.numpy()],
        strides,
        sizes * len(strides) if len(sizes) == 1 else sizes,
    )
