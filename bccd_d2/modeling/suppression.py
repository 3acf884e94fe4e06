"""Of several detections of one cell, which stay.

Plain functions on arrays and ``Cells``, so that the model, the merging of tiles and the tuning of
thresholds suppress alike. In each the best score wins; of equal scores the one that comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from bccd_d2.structures.cells import Cells


@dataclass(frozen=True)
class BoxSuppression:
    """Suppression by the overlap of boxes.

    Attributes:
        kind: "hard" removes boxes that overlap a better one by more than ``iou_threshold``. Soft-NMS (Bodla et al.
            2017) lowers their scores s instead: "soft_linear" to ``s (1 - IoU)`` where IoU is above ``iou_threshold``,
            "soft_gaussian" to ``s exp(-IoU^2 / sigma)`` for any overlap.
        iou_threshold: in [0, 1]; not read by "soft_gaussian".
        sigma: above 0; only read by "soft_gaussian".
        class_agnostic: boxes of different classes suppress each other too.
    """

    kind: str = "hard"
    iou_threshold: float = 0.5
    sigma: float = 0.5
    class_agnostic: bool = False

    @property
    def in_network(self) -> bool:
        """Whether :class:`bccd_d2.modeling.roi_heads.CellOutputLayers` does this itself, and an export holds it."""
        return self.kind == "hard"

    def __call__(
        self, boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], min_score: float = 0.0
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Suppress the boxes of one image.

        Args:
            boxes: (N, 4) xyxy.
            scores: (N,) in [0, 1].
            classes: (N,) integers.
            min_score: boxes whose score is, or becomes, no higher are left out.

        Returns:
            Indices of those that stay, best first, and their scores, which soft suppression has lowered.
        """
        boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64)
        groups = np.zeros(len(boxes), np.int64) if self.class_agnostic else np.asarray(classes, np.int64)
        if self.kind == "hard":
            candidates = np.flatnonzero(scores > min_score)
            arrays = (boxes[candidates], scores[candidates], groups[candidates])
            kept = batched_nms(*map(torch.from_numpy, arrays), self.iou_threshold).numpy()
            return candidates[kept], scores[candidates[kept]]
        return self._soft(boxes, scores, groups, min_score)

    def _soft(
        self,
        boxes: NDArray[np.float64],
        scores: NDArray[np.float64],
        groups: NDArray[np.int64],
        min_score: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The paper takes the best box that is left, again and again. As scores only fall, a box that is better than
        all which overlap it keeps its score whatever happens elsewhere: all such boxes are taken at once.
        """
        first, second, iou = box_overlaps(boxes, groups)
        if self.kind == "soft_linear":
            decay = np.where(iou > self.iou_threshold, 1 - iou, 1.0)
        else:
            decay = np.exp(-(iou**2) / self.sigma)
        # Each pair both ways: the score of the first is compared with, and lowers, that of the second.
        first, second = np.concatenate([first, second]), np.concatenate([second, first])
        decay = np.concatenate([decay, decay])
        left, open_, taken = scores.copy(), scores > min_score, np.zeros(len(boxes), bool)
        while open_.any():
            both = open_[first] & open_[second]
            first, second, decay = first[both], second[both], decay[both]
            better = (left[first] > left[second]) | ((left[first] == left[second]) & (first < second))
            best = open_.copy()
            best[second[better]] = False
            taken |= best
            lowered = best[first]
            np.multiply.at(left, second[lowered], decay[lowered])
            open_ &= ~best & (left > min_score)
        kept = np.flatnonzero(taken)
        kept = kept[np.argsort(-left[kept], kind="stable")]
        return kept, left[kept]


@dataclass(frozen=True)
class MaskSuppression:
    """Suppression by the overlap of masks, which tells two touching cells from one found twice better than boxes.

    Attributes:
        metric: "iou", or "containment", the intersection over the smaller of the two areas: it also removes a part of a
            cell inside that cell, but a platelet on a red cell as well, where ``class_agnostic``.
        threshold: in [0, 1]; a mask that overlaps a better one by more is removed.
        class_agnostic: masks of different classes suppress each other too.
    """

    metric: str = "iou"
    threshold: float = 0.5
    class_agnostic: bool = False

    def __call__(self, cells: Cells) -> NDArray[np.int64]:
        """Suppress the cells of one image.

        Returns:
            Indices of those that stay, best first.
        """
        order = np.argsort(-cells.scores, kind="stable")
        cells = cells[order]
        groups = np.zeros(len(cells), np.int64) if self.class_agnostic else cells.classes
        first, second = _touching(cells.windows, groups)
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


def box_overlaps(
    boxes: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The pairs of boxes of one group that overlap, each once: (P,) smaller index, (P,) larger, (P,) IoU above 0."""
    first, second = _touching(boxes, groups)
    low = np.maximum(boxes[first, :2], boxes[second, :2])
    high = np.minimum(boxes[first, 2:], boxes[second, 2:])
    shared = (high - low).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return first, second, shared / (areas[first] + areas[second] - shared)


def _touching(boxes: NDArray[Any], groups: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of boxes of one group that share area, sorted by the smaller index, then by the larger.

    In order of their left edges, a box can only overlap those that follow it up to its right edge: in a smear that is a
    small part of all pairs.
    """
    solid = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    order = solid[np.argsort(boxes[solid, 0], kind="stable")]
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[order].T)
    counts = np.searchsorted(x0, x1, side="left") - np.arange(len(order)) - 1
    a = np.repeat(np.arange(len(order)), counts)
    b = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + a + 1
    groups = groups[order]
    overlap = (y0[a] < y1[b]) & (y0[b] < y1[a]) & (groups[a] == groups[b])
    a, b = order[a[overlap]], order[b[overlap]]
    pairs = np.minimum(a, b) * len(boxes) + np.maximum(a, b)
    pairs.sort()
    return pairs // max(len(boxes), 1), pairs % max(len(boxes), 1)


def _shared_pixels(cells: Cells, i: int, j: int) -> int:
    x0, y0 = np.maximum(cells.windows[i, :2], cells.windows[j, :2]).tolist()
    x1, y1 = np.minimum(cells.windows[i, 2:], cells.windows[j, 2:]).tolist()
    parts = []
    for k in (i, j):
        left, top = cells.windows[k, :2].tolist()
        parts.append(cells.masks[k][y0 - top : y1 - top, x0 - left : x1 - left])
    return int(np.count_nonzero(parts[0] & parts[1]))


def build_box_suppression(cfg: CfgNode) -> BoxSuppression:
    """As ``MODEL.ROI_HEADS`` asks for."""
    heads = cfg.MODEL.ROI_HEADS
    return BoxSuppression(heads.NMS_KIND, heads.NMS_THRESH_TEST, class_agnostic=heads.NMS_CLASS_AGNOSTIC)


def build_mask_suppression(cfg: CfgNode) -> MaskSuppression | None:
    """As ``MODEL.ROI_HEADS.MASK_NMS`` asks for; ``None`` where it is not enabled."""
    options = cfg.MODEL.ROI_HEADS.MASK_NMS
    return MaskSuppression(options.METRIC, options.THRESH) if options.ENABLED else None
