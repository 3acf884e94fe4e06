"""Which prediction stands for which true cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.options import FOUND_IOU

MOSTLY = 0.5
"""Share of its area that a prediction must have inside a region or a cell to lie in it "mostly"."""


@dataclass(frozen=True)
class Overlaps:
    """Pairwise overlaps of N predictions, M true cells and K ignore regions of one image, counted once."""

    shared: NDArray[np.int64]  # (N, M) int64 pixels that a prediction and a true cell share
    iou: NDArray[np.float64]  # (N, M) mask IoU in [0, 1]
    ignored_share: NDArray[np.float64]  # (N, K) share of the prediction's pixels that lie in each region
    # (N, M + K) IoU of the boxes, for the K regions the share of the prediction's box that lies in theirs
    box_iou: NDArray[np.float64]
    scores: NDArray[np.float64]  # (N,) in [0, 1]
    predicted_classes: NDArray[np.int64]  # (N,) int64
    true_classes: NDArray[np.int64]  # (M,) int64
    region_classes: NDArray[np.int64]  # (K,) int64
    predicted_areas: NDArray[np.int64]  # (N,) int64 px
    true_areas: NDArray[np.int64]  # (M,) int64 px
    predicted_border: NDArray[np.bool_]  # (N,) bool, touches the border
    true_border: NDArray[np.bool_]  # (M,) bool, touches the border

    def in_ignored(self, class_index: int | None) -> NDArray[np.bool_]:
        """(N,) whether a prediction lies mostly in an ignore region of a class, or of any for ``None``."""
        chosen = (
            self.ignored_share
            if class_index is None
            else self.ignored_share[:, self.region_classes == class_index]
        )
        return np.asarray((chosen >= MOSTLY).any(axis=1))


@dataclass(frozen=True)
class MatchResult:
    """Predictions and true cells of one image, as indices."""

    predicted: NDArray[np.intp]  # (P,) true positives
    true: NDArray[np.intp]  # (P,) the cells that they match
    false_positives: NDArray[np.intp]  # predictions that match no cell and are not left out
    false_negatives: NDArray[np.intp]  # cells that are not matched and not left out


def overlaps(image: EvaluationImage, border_margin: int = 0) -> Overlaps:
    """All overlaps of the predictions of an image, in the order of its cells."""
    predictions, truth = image.predictions, image.truth
    shared = predictions.intersections(truth)
    predicted_areas, true_areas = predictions.areas, truth.areas
    union = predicted_areas[:, None] + true_areas[None] - shared
    return Overlaps(
        shared,
        shared / np.maximum(union, 1),
        predictions.intersections(image.ignore) / np.maximum(predicted_areas, 1)[:, None],
        np.hstack(
            [
                box_ious(predictions.boxes, truth.boxes),
                box_ious(predictions.boxes, image.ignore.boxes, crowd=True),
            ]
        ),
        predictions.scores,
        predictions.classes,
        truth.classes,
        image.ignore.classes,
        predicted_areas,
        true_areas,
        predictions.touches_border(border_margin),
        truth.touches_border(border_margin),
    )


def match_cells(
    overlap: Overlaps,
    score_threshold: float,
    *,
    class_index: int | None = None,
    interior: bool = False,
    iou_threshold: float = FOUND_IOU,
) -> MatchResult:
    """Match predictions and true cells optimally, and leave out what is neither right nor wrong.

    Left out are predictions that match nothing and lie mostly in an ignore region; with ``interior`` also true cells
    that touch the border, and predictions that match no interior cell but touch the border or match a cell there.
    Predictions below ``score_threshold`` do not exist; ``class_index`` takes one class only.
    """
    chosen = overlap.scores >= score_threshold
    cells = np.ones(len(overlap.true_classes), bool)
    if class_index is not None:
        chosen &= overlap.predicted_classes == class_index
        cells &= overlap.true_classes == class_index
    at_border = cells & overlap.true_border & interior
    cells &= ~at_border
    predicted, true = _match_among(overlap.iou, chosen, cells, iou_threshold)
    rest = chosen.copy()
    rest[predicted] = False
    left_out = overlap.in_ignored(class_index)
    if interior:
        left_out = left_out | overlap.predicted_border
        left_out[_match_among(overlap.iou, rest & ~left_out, at_border, iou_threshold)[0]] = True
    cells[true] = False
    return MatchResult(predicted, true, np.flatnonzero(rest & ~left_out), np.flatnonzero(cells))


def box_ious(a: NDArray[np.float64], b: NDArray[np.float64], *, crowd: bool = False) -> NDArray[np.float64]:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4), xyxy; with ``crowd`` over the area of ``a``."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    xywh = [np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]) for boxes in (a, b)]
    return np.asarray(coco_mask.iou(*xywh, [int(crowd)] * len(b)))


def match_optimal(iou: NDArray[np.float64], threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """As many pairs with an IoU of at least ``threshold`` as there can be, and among those the greatest sum of IoU.

    Returns indices of the predictions (rows of ``iou``) and of their true cells, both (P,), by rising prediction.
    """
    admissible = iou >= threshold
    # A pair less can never be made up for by the IoU of the others.
    gain = np.where(admissible, 1 + iou / (2 * max(1, min(iou.shape))), 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    paired = admissible[rows, columns]
    return rows[paired], columns[paired]


def match_greedy(
    iou: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """As :func:`match_optimal`, but as COCO does: best score first, each to the free cell that it overlaps most."""
    free = np.ones(iou.shape[1], bool)
    pairs = []
    for index in np.argsort(-scores, kind="stable"):
        candidates = np.flatnonzero(free & (iou[index] >= threshold))
        if candidates.size:
            best = candidates[iou[index, candidates].argmax()]
            free[best] = False
            pairs.append((index, best))
    found = np.array(sorted(pairs), np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _match_among(
    iou: NDArray[np.float64],
    predictions: NDArray[np.bool_],
    cells: NDArray[np.bool_],
    threshold: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """:func:`match_optimal` of chosen rows and columns, in indices of the whole."""
    rows, columns = np.flatnonzero(predictions), np.flatnonzero(cells)
    found, true = match_optimal(iou[np.ix_(rows, columns)], threshold)
    return rows[found], columns[true]
