"""Of several masks of one cell, which stays: plain functions on ``Cells``, alike in the model and in the tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        first, second = _touching(cells.windows, cells.classes)
        areas = cells.areas
        limit = np.minimum(areas[first], areas[second]).astype(np.float64)
        if self.metric == "iou":
            # IoU > t is the same as intersection > t / (1 + t) (area + area).
            limit = (areas[first] + areas[second]) / (1 + self.threshold)
        limit *= self.threshold
        # Only masks whose windows share enough pixels can share enough themselves.
        low = np.maximum(cells.windows[first, :2], cells.windows[second, :2])
        high = np.minimum(cells.windows[first, 2:], cells.windows[second, 2:])
        possible = (high - low).prod(axis=1) > limit
        kept = np.ones(len(cells), bool)
        # By rising rank of the better one, whose own fate is settled when its turn comes.
        for i, j, least in zip(first[possible].tolist(), second[possible].tolist(), limit[possible].tolist()):
            if kept[i] and kept[j]:
                kept[j] = _shared_pixels(cells, i, j) <= least
        return order[kept]


def _touching(windows: NDArray[Any], groups: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of windows of one group that share area, sorted by the smaller index, then by the larger.

    In order of their left edges, a window can only overlap those that follow it up to its right edge: in a smear that
    is a small part of all pairs.
    """
    solid = np.flatnonzero((windows[:, 2:] > windows[:, :2]).all(axis=1))
    order = solid[np.argsort(windows[solid, 0], kind="stable")]
    x0, y0, x1, y1 = np.ascontiguousarray(windows[order].T)
    counts = np.searchsorted(x0, x1, side="left") - np.arange(len(order)) - 1
    a = np.repeat(np.arange(len(order)), counts)
    b = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + a + 1
    groups = groups[order]
    overlap = (y0[a] < y1[b]) & (y0[b] < y1[a]) & (groups[a] == groups[b])
    a, b = order[a[overlap]], order[b[overlap]]
    pairs = np.minimum(a, b) * len(windows) + np.maximum(a, b)
    pairs.sort()
    return pairs // max(len(windows), 1), pairs % max(len(windows), 1)


def _shared_pixels(cells: Cells, i: int, j: int) -> int:
    x0, y0 = np.maximum(cells.windows[i, :2], cells.windows[j, :2]).tolist()
    x1, y1 = np.minimum(cells.windows[i, 2:], cells.windows[j, 2:]).tolist()
    parts = []
    for k in (i, j):
        left, top = cells.windows[k, :2].tolist()
        parts.append(cells.masks[k][y0 - top : y1 - top, x0 - left : x1 - left])
    return int(np.count_nonzero(parts[0] & parts[1]))


def build_mask_suppression(cfg: CfgNode) -> MaskSuppression | None:
    """As ``MODEL.ROI_HEADS.MASK_NMS`` asks for; ``None`` where it is not enabled."""
    options = cfg.MODEL.ROI_HEADS.MASK_NMS
    return MaskSuppression(options.METRIC, options.THRESH) if options.ENABLED else None
