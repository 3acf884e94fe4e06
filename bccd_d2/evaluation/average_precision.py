"""COCO's average precision and recall (Lin et al. 2014), with sizes and borders that fit cells; curves of both.

COCO's own tools give the figures and nothing that they are made of: predictions ranked by score, for curves,
calibration, oracles and resampling. Tests compare this one with pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.matching import Overlaps
from bccd_d2.evaluation.options import IOU_THRESHOLDS, NO_GROUND_TRUTH, SIZE_NAMES, EvaluationOptions, Value

TASKS = ("bbox", "segm")
RECALLS: NDArray[np.float64] = np.linspace(0, 1, 101)
"""Where COCO reads the interpolated precision."""


@dataclass(frozen=True)
class ScoredImage:
    """Predictions and cells of one image, as COCO's matching sees them."""

    # (N, M + K) IoU with M cells, then the shares of the prediction that lie in K ignore regions
    iou: NDArray[np.float64]
    scores: NDArray[np.float64]  # (N,)
    predicted_classes: NDArray[np.int64]  # (N,)
    true_classes: NDArray[np.int64]  # (M + K,)
    cell_left_out: NDArray[np.bool_]  # (M + K,) bool; a match with one of these is neither right nor wrong
    reusable: NDArray[np.bool_]  # (M + K,) bool, the regions: they take any number of predictions
    prediction_left_out: NDArray[np.bool_]  # (N,) bool; without a match neither right nor wrong


@dataclass(frozen=True)
class RankedPredictions:
    """Predictions of all images, those of one image together."""

    scores: NDArray[np.float64]  # (D,)
    classes: NDArray[np.int64]  # (D,)
    images: NDArray[np.int64]  # (D,) index of the image
    correct: NDArray[np.bool_]  # (10, D) bool at each of ``IOU_THRESHOLDS``
    counted: NDArray[np.bool_]  # (10, D) bool; the others are neither right nor wrong
    cells: NDArray[np.int64]  # (I, C) true cells that count, by image and class


def scored_image(
    overlap: Overlaps,
    *,
    interior: bool = False,
    boxes: bool = False,
    areas: tuple[float, float] | None = None,
) -> ScoredImage:
    """All predictions of an image, whatever their score; by the IoU of ``boxes`` in place of masks.

    ``interior`` leaves out the border, ``areas`` what has fewer or more pixels than these two.
    """
    regions, cells = len(overlap.region_classes), len(overlap.true_classes)
    cell_left_out, prediction_left_out = overlap.true_border & interior, overlap.predicted_border & interior
    if areas is not None:
        low, high = areas
        cell_left_out = cell_left_out | (overlap.true_areas < low) | (overlap.true_areas > high)
        beyond = (overlap.predicted_areas < low) | (overlap.predicted_areas > high)
        prediction_left_out = prediction_left_out | beyond
    return ScoredImage(
        overlap.box_iou if boxes else np.hstack([overlap.iou, overlap.ignored_share]),
        overlap.scores,
        overlap.predicted_classes,
        np.concatenate([overlap.true_classes, overlap.region_classes]),
        np.concatenate([cell_left_out, np.ones(regions, bool)]),
        np.arange(cells + regions) >= cells,
        prediction_left_out,
    )


def rank_predictions(images: Sequence[ScoredImage], number_of_classes: int) -> RankedPredictions:
    """Match greedily, best score first, at all thresholds at once."""
    matched = [_match(image) for image in images]
    cells = [np.bincount(i.true_classes[~i.cell_left_out], minlength=number_of_classes) for i in images]
    return RankedPredictions(
        np.concatenate([image.scores for image in images]),
        np.concatenate([image.predicted_classes for image in images]),
        np.repeat(np.arange(len(images)), [len(image.scores) for image in images]),
        np.concatenate([correct for correct, _ in matched], axis=1),
        np.concatenate([counted for _, counted in matched], axis=1),
        np.stack(cells),
    )


def ranked(
    images: Sequence[Overlaps],
    number_of_classes: int,
    region: str,
    *,
    boxes: bool = False,
    areas: tuple[float, float] | None = None,
) -> RankedPredictions:
    """Predictions of all images by COCO's matching with classes; options as for :func:`scored_image`."""
    interior = region == "interior"
    scored = [scored_image(one, interior=interior, boxes=boxes, areas=areas) for one in images]
    return rank_predictions(scored, number_of_classes)


def _match(image: ScoredImage) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Correct and counted, both (10, N)."""
    shape = (len(IOU_THRESHOLDS), len(image.scores))
    correct, counted = np.zeros(shape, bool), np.tile(~image.prediction_left_out, (shape[0], 1))
    taken = np.zeros((shape[0], image.iou.shape[1]), bool)
    rows = np.arange(shape[0])
    near = (image.iou >= IOU_THRESHOLDS[0]) & (image.predicted_classes[:, None] == image.true_classes)
    # Of equals the last wins, as in COCO.
    candidates = [np.flatnonzero(row)[::-1] for row in near]
    for index in np.argsort(-image.scores, kind="stable"):
        cells = candidates[index]
        if not cells.size:
            continue
        iou = image.iou[index, cells]
        free = (iou >= IOU_THRESHOLDS[:, None]) & ~(taken[:, cells] & ~image.reusable[cells])
        # Any cell that counts comes before any that is left out.
        preference = np.where(free, iou + 2.0 * ~image.cell_left_out[cells], -1.0)
        best = cells[preference.argmax(axis=1)]
        matched = preference.max(axis=1) >= 0
        taken[rows[matched], best[matched]] = True
        correct[:, index] = matched & ~image.cell_left_out[best]
        counted[matched, index] = ~image.cell_left_out[best[matched]]
    return correct, counted


class PrecisionRanking:
    """Average precision of the same detections, for any weights of the images."""

    def __init__(self, detections: RankedPredictions, thresholds: int = len(IOU_THRESHOLDS)) -> None:
        """Of the first ``thresholds`` IoU thresholds."""
        self._cells, self._thresholds = detections.cells, thresholds
        self._classes = []
        for index in range(detections.cells.shape[1]):
            # The stable sort keeps the order of the images among equal scores, as COCO's does.
            chosen = np.flatnonzero((detections.classes == index) & detections.counted.any(axis=0))
            order = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
            self._classes.append(
                (
                    detections.images[order],
                    detections.correct[:thresholds, order],
                    detections.counted[:thresholds, order],
                )
            )

    def average_precision(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """(T, C) at each IoU threshold for each class, NaN without true cells; ``weights`` (I,) count images."""
        if weights is None:
            weights = np.ones(len(self._cells))
        cells = weights @ self._cells
        result = np.full((self._thresholds, len(cells)), np.nan)
        for index, (images, correct, counted) in enumerate(self._classes):
            if cells[index] > 0:
                weight = weights[images]
                found = np.cumsum(correct * weight, axis=1)
                result[:, index] = _interpolated(
                    found / np.maximum(np.cumsum(counted * weight, axis=1), 1e-9), found / cells[index]
                )
        return result


def _interpolated(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over COCO's 101 recalls of the best precision at that recall or a higher one."""
    best = np.zeros((precision.shape[0], precision.shape[1] + 1))
    best[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.array([row[np.searchsorted(r, RECALLS)].mean() for row, r in zip(best, recall)])


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One point a prediction, best score first; empty without ground truth or predictions."""

    iou_threshold: float  # least mask IoU of a match
    recall: Sequence[float]  # (N,) rising
    precision: Sequence[float]  # (N,) as measured, not interpolated
    scores: Sequence[float]  # (N,) falling: what the threshold would be
    best_threshold: float | None  # score threshold with the greatest F1; ``None`` for an empty curve
    best_f1: float | None  # F1 there


def precision_recall_curve(
    detections: RankedPredictions, class_index: int | None = None, threshold_index: int = 0
) -> PrecisionRecallCurve:
    """Precision and recall of every score threshold, of one class or of all, at an index of ``IOU_THRESHOLDS``."""
    chosen = detections.counted[threshold_index].copy()
    cells = int(detections.cells.sum())
    if class_index is not None:
        chosen &= detections.classes == class_index
        cells = int(detections.cells[:, class_index].sum())
    iou_threshold = float(IOU_THRESHOLDS[threshold_index])
    if cells == 0 or not chosen.any():
        return PrecisionRecallCurve(iou_threshold, [], [], [], None, None)
    order = np.argsort(-detections.scores[chosen], kind="stable")
    scores = detections.scores[chosen][order]
    found = np.cumsum(detections.correct[threshold_index, chosen][order])
    ranks = np.arange(1, len(scores) + 1)
    # A threshold takes all predictions with its score, so only the last of equal ones can be chosen.
    f1 = np.where(np.append(scores[1:] < scores[:-1], True), 2 * found / (ranks + cells), 0.0)
    best = int(f1.argmax())
    return PrecisionRecallCurve(
        iou_threshold,
        (found / cells).tolist(),
        (found / ranks).tolist(),
        scores.tolist(),
        float(scores[best]),
        float(f1[best]),
    )


@dataclass(frozen=True)
class AveragePrecision:
    """Fractions in [0, 1] of one group of cells, or words where it holds no ground truth."""

    AP: Value  # mean over IoU 0.50, 0.55, ..., 0.95 and over the classes that have ground truth
    AP50: Value  # at IoU 0.50
    AP75: Value  # at IoU 0.75
    AR: Value  # recall, mean likewise
    cells: int  # number of true cells that count


@dataclass(frozen=True)
class AveragePrecisionTable:
    """Of one task in one region."""

    overall: AveragePrecision  # all classes and sizes
    by_class: Mapping[str, AveragePrecision]  # by class name, all sizes
    by_size: Mapping[str, AveragePrecision]  # by size name, all classes


def average_precision_table(
    images: Sequence[Overlaps], class_names: Sequence[str], options: EvaluationOptions, task: str, region: str
) -> AveragePrecisionTable:
    """The metrics of one ``task`` ("bbox" or "segm") in one ``region`` ("all" or "interior"), over all images.

    Sizes are those of the masks for both tasks. What lies outside of a size or a region is treated as COCO treats other
    sizes: a match with such ground truth is neither right nor wrong, nor is such a prediction that matches nothing.
    """
    sizes: list[tuple[float, float] | None] = [None, *options.size_areas()]
    every, *by_size = (
        _ByClass(ranked(images, len(class_names), region, boxes=task == "bbox", areas=areas))
        for areas in sizes
    )
    return AveragePrecisionTable(
        every.mean(range(len(class_names))),
        {name: every.mean([index]) for index, name in enumerate(class_names)},
        {name: found.mean(range(len(class_names))) for name, found in zip(SIZE_NAMES, by_size)},
    )


class _ByClass:
    """(T, C) precision and recall of each class."""

    def __init__(self, found: RankedPredictions) -> None:
        self.cells = found.cells.sum(axis=0)
        self.precision = PrecisionRanking(found).average_precision()
        correct = [found.correct[:, found.classes == index].sum(axis=1) for index in range(len(self.cells))]
        self.recall = np.stack(correct, axis=1) / np.maximum(self.cells, 1)

    def mean(self, classes: Iterable[int]) -> AveragePrecision:
        """Means over those classes that have ground truth."""
        known = [index for index in classes if self.cells[index]]
        if not known:
            return AveragePrecision(NO_GROUND_TRUTH, NO_GROUND_TRUTH, NO_GROUND_TRUTH, NO_GROUND_TRUTH, 0)
        precision = self.precision[:, known]
        return AveragePrecision(
            float(precision.mean()),
            float(precision[0].mean()),
            float(precision[5].mean()),
            float(self.recall[:, known].mean()),
            int(self.cells[known].sum()),
        )
