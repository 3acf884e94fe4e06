"""Of several masks of one cell, which stays: plain functions on ``Cells``, alike in the model and in the tuning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from bccd_d2.structures.cells import Cells


@dataclass(frozen=True)
class MaskSuppression:
    """Removes a mask that overlaps a better one of its class by more than ``threshold``, in [0, 1].

    The metric is "iou", or "containment", the intersection over the smaller area: that removes a part of a cell inside
    that cell too. The best score wins, of equal scores the one that comes first.
    """

    metric: str = "iou"
    threshold: float = 0.5

    def __call__(self, cells: Cells) -> NDArray[np.int64]:
        """Indices of the cells of one image that stay, best first."""
        order = np.argsort(-cells.scores, kind="stable")
        cells = cells[order]
        areas = cells.areas
        x0, y0, x1, y1 = np.ascontiguousarray(cells.windows.T)
        if self.metric == "iou":  # IoU > t is the same as intersection > t / (1 + t) (area + area)
            limit = (areas[:, None] + areas) / (1 + self.threshold) * self.threshold
        else:
            limit = np.minimum(areas[:, None], areas) * self.threshold
        # Only masks of a class whose windows share enough pixels can share enough themselves.
        width = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
        height = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
        possible = (width > 0) & (width * height > limit) & np.equal.outer(cells.classes, cells.classes)
        kept = np.ones(len(cells), bool)
        # By rising rank of the better one, whose own fate is settled when its turn comes.
        for i, j in np.argwhere(np.triu(possible, 1)).tolist():
            if kept[i] and kept[j]:
                kept[j] = _shared_pixels(cells, i, j) <= limit[i, j]
        return order[kept]


def _shared_pixels(cells: Cells, i: int, j: int) -> int:
    a, b = cells.windows[i], cells.windows[j]
    frame = (*np.maximum(a[:2], b[:2]).tolist(), *np.minimum(a[2:], b[2:]).tolist())
    return int(np.count_nonzero(cells.part(i, frame) & cells.part(j, frame)))


def build_mask_suppression(cfg: CfgNode) -> MaskSuppression | None:
    """As ``MODEL.ROI_HEADS.MASK_NMS`` asks for; ``None`` where it is not enabled."""
    options = cfg.MODEL.ROI_HEADS.MASK_NMS
    return MaskSuppression(options.METRIC, options.THRESH) if options.ENABLED else None
