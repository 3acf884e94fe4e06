"""Instance quality as cell biologists report it: F1, PQ, AJI, outlines, counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bccd_d2.evaluation.matching import MatchResult, Overlaps, match_cells
from bccd_d2.evaluation.options import IOU_THRESHOLDS, NO_GROUND_TRUTH, NO_MATCH, Value, mean_value
from bccd_d2.structures.cells import Cells

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
# Half width of the limits of agreement: 95 % of normally distributed differences lie within.
_LIMIT_DEVIATIONS = 1.96


class OutlineAgreement(NamedTuple):
    """Of one matched pair, native px.

    ``boundary_f1`` is the harmonic mean of the shares of either outline that lie within the tolerance of the other;
    ``hausdorff`` the greatest distance from a point of one outline to the other outline, ``hausdorff95`` the greater of
    the two directions' 95th percentiles.
    """

    boundary_f1: float
    hausdorff: float
    hausdorff95: float


def outline_agreement(
    predictions: Cells, predicted: int, truth: Cells, true: int, tolerance: float
) -> OutlineAgreement:
    """Compare two outlines, the masks' pixels with one of the four neighbours outside; the image border is outside.

    ``predicted`` and ``true`` are indices of cells that are not empty, ``tolerance`` the px by which an outline may be
    off.
    """
    windows = np.stack([predictions.windows[predicted], truth.windows[true]])
    origin, end = windows[:, :2].min(axis=0) - 1, windows[:, 2:].max(axis=0) + 1
    a = _outline(predictions.masks[predicted], windows[0, :2] - origin, end - origin)
    b = _outline(truth.masks[true], windows[1, :2] - origin, end - origin)
    a_to_b, b_to_a = distances(b)[a], distances(a)[b]
    precision, recall = (a_to_b <= tolerance).mean(), (b_to_a <= tolerance).mean()
    return OutlineAgreement(
        float(2 * precision * recall / max(precision + recall, 1e-9)),
        float(max(a_to_b.max(), b_to_a.max())),
        float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95))),
    )


def _outline(
    mask: NDArray[np.bool_], corner: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Outline of a mask whose upper left pixel lies at ``corner`` (x, y) of a window of ``size`` (width, height)."""
    window = np.zeros(size[::-1], np.uint8)
    x, y = corner
    window[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return window > cv2.erode(window, _CROSS)


def distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(h, w) Euclidean distance in px of each pixel to the nearest one of ``mask``."""
    found = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's roots are float32, and the last bit depends on where the array lies in memory: 2 px may be above 2.
    return np.sqrt(np.rint(np.square(found, dtype=np.float64)))


@dataclass(frozen=True)
class ThresholdMetrics:
    """At one IoU threshold, cells of all images together; predictions and true cells matched optimally."""

    iou_threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: Value
    recall: Value
    f1: Value


@dataclass(frozen=True)
class InstanceMetrics:
    """Of one class, or of all whatever their class, in one region, at the score threshold."""

    cells: int  # true cells
    predicted: int  # predictions that count
    precision: Value  # at IoU 0.5, as recall and f1
    recall: Value
    f1: Value
    mean_f1: Value  # mean over IoU 0.50, 0.55, ..., 0.95
    sq: Value  # segmentation quality (Kirillov et al. 2019): mean IoU of the matched pairs at IoU 0.5; 0 without any
    rq: Value  # recognition quality, which is f1
    pq: Value  # panoptic quality, their product; cells of all images together
    aji: Value  # aggregated Jaccard index (Kumar et al. 2017), mean over images with ground truth
    aji_plus: Value  # AJI+ (Graham et al. 2019), likewise
    boundary_f1: Value  # mean over matched pairs, of the outlines within ``boundary_tolerance`` px
    hausdorff: Value  # mean over matched pairs, px, of the greatest distance between their outlines
    hausdorff95: Value  # likewise of the 95th percentile
    by_threshold: Sequence[ThresholdMetrics]


@dataclass(frozen=True)
class ImageInstances:
    """What one image adds to :class:`InstanceMetrics`; sums of these are all that a resampling needs."""

    # (10, 3) int64 true positives, false positives, false negatives at each of ``IOU_THRESHOLDS``
    counts: NDArray[np.int64]
    iou_sum: float  # of the matched pairs at IoU 0.5
    aji: float | None  # of the image, ``None`` without ground truth
    aji_plus: float | None  # likewise
    outlines: Sequence[OutlineAgreement]  # of each matched pair at IoU 0.5


def image_instances(
    overlap: Overlaps,
    outline: Callable[[int, int], OutlineAgreement],
    score_threshold: float,
    *,
    class_index: int | None = None,
    interior: bool = False,
) -> ImageInstances:
    """Match one image at all thresholds; ``outline`` compares a prediction and a cell, given by their indices.

    Predictions below ``score_threshold`` do not exist; ``class_index`` takes one class only, ``interior`` leaves out
    the border.
    """
    matches = [
        match_cells(overlap, score_threshold, class_index=class_index, interior=interior, iou_threshold=least)
        for least in IOU_THRESHOLDS.tolist()
    ]
    found = matches[0]
    some = len(found.true) + len(found.false_negatives) > 0
    return ImageInstances(
        np.array(
            [[len(j.predicted), len(j.false_positives), len(j.false_negatives)] for j in matches], np.int64
        ),
        float(overlap.iou[found.predicted, found.true].sum()),
        aggregated_jaccard(*_areas(overlap, found)) if some else None,
        aggregated_jaccard_plus(*_areas(overlap, found)) if some else None,
        [outline(p, t) for p, t in zip(found.predicted.tolist(), found.true.tolist())],
    )


def instance_metrics(images: Sequence[ImageInstances]) -> InstanceMetrics:
    """Sum up images, at least one."""
    counts = np.sum([image.counts for image in images], axis=0)
    thresholds = [
        ThresholdMetrics(threshold, tp, fp, fn, *precision_recall_f1(tp, fp, fn))
        for threshold, (tp, fp, fn) in zip(IOU_THRESHOLDS.tolist(), counts.tolist())
    ]
    first = thresholds[0]
    cells = first.true_positives + first.false_negatives
    iou_sum = sum(image.iou_sum for image in images)
    sq: Value = iou_sum / max(1, first.true_positives) if cells else NO_GROUND_TRUTH
    pairs = [pair for image in images for pair in image.outlines]
    boundary_f1, hausdorff, hausdorff95 = (
        mean_value([pair[i] for pair in pairs], NO_MATCH if cells else NO_GROUND_TRUTH) for i in range(3)
    )
    return InstanceMetrics(
        cells,
        first.true_positives + first.false_positives,
        first.precision,
        first.recall,
        first.f1,
        mean_value([t.f1 for t in thresholds]),
        sq,
        first.f1,
        sq if isinstance(sq, str) or isinstance(first.f1, str) else sq * first.f1,
        mean_value([image.aji for image in images if image.aji is not None]),
        mean_value([image.aji_plus for image in images if image.aji_plus is not None]),
        boundary_f1,
        hausdorff,
        hausdorff95,
        thresholds,
    )


@dataclass(frozen=True)
class CountAgreement:
    """Of one class, or of all, in one region; limits of agreement by Bland and Altman (1986)."""

    true: Sequence[int]  # cells of each image, in the order of the images
    predicted: Sequence[int]  # predictions that count, likewise, at the score threshold
    mean_absolute_error: Value  # cells per image
    mean_relative_error: Value  # absolute difference by true number, mean over images with ground truth
    bias: Value  # mean of predicted - true, cells per image
    lower_limit: (
        Value  # bias - 1.96 standard deviations of the difference; the bias itself for a single image
    )
    upper_limit: Value  # bias + 1.96 standard deviations, likewise


def count_agreement(images: Sequence[ImageInstances]) -> CountAgreement:
    """Agreement of the counts of the same images; words in place of numbers where no image holds a true cell."""
    tp, fp, fn = np.array([image.counts[0] for image in images]).T
    cells, found = tp + fn, tp + fp
    counts = cells.tolist(), found.tolist()
    if not cells.any():
        return CountAgreement(*counts, *[NO_GROUND_TRUTH] * 5)
    difference, some = found - cells, cells > 0
    bias = float(difference.mean())
    reach = _LIMIT_DEVIATIONS * float(difference.std(ddof=1)) if len(cells) > 1 else 0.0
    return CountAgreement(
        *counts,
        float(np.abs(difference).mean()),
        float((np.abs(difference)[some] / cells[some]).mean()),
        bias,
        bias - reach,
        bias + reach,
    )


def precision_recall_f1(tp: int, fp: int, fn: int) -> tuple[Value, Value, Value]:
    """In [0, 1]; words where there is no true cell. The precision of no prediction is 0."""
    cells, predictions = tp + fn, tp + fp
    if cells == 0:
        return NO_GROUND_TRUTH, NO_GROUND_TRUTH, NO_GROUND_TRUTH
    f1 = 2 * tp / (cells + predictions)
    return tp / max(1, predictions), tp / cells, f1


def aggregated_jaccard(
    shared: NDArray[np.int64], predicted_areas: NDArray[np.int64], true_areas: NDArray[np.int64]
) -> float:
    """AJI (Kumar et al. 2017): each cell takes the prediction with the best IoU, even one that is taken already.

    ``shared`` (N, M) are pixels that predictions and cells share, areas are (N,) and (M,) px, not all 0.
    """
    union = predicted_areas[:, None] + true_areas[None] - shared
    if not len(predicted_areas):
        return 0.0
    cells = np.arange(len(true_areas))
    best = (shared / np.maximum(union, 1)).argmax(axis=0)
    found = shared[best, cells] > 0
    unused = np.setdiff1d(np.arange(len(predicted_areas)), best[found])
    total = union[best, cells][found].sum() + true_areas[~found].sum() + predicted_areas[unused].sum()
    return float(shared[best, cells].sum() / max(1, total))


def aggregated_jaccard_plus(
    shared: NDArray[np.int64], predicted_areas: NDArray[np.int64], true_areas: NDArray[np.int64]
) -> float:
    """AJI+ (Graham et al. 2019): one prediction a cell at most, with the greatest sum of IoU; arguments as for AJI."""
    union = predicted_areas[:, None] + true_areas[None] - shared
    found, true = linear_sum_assignment(shared / np.maximum(union, 1), maximize=True)
    overlapping = shared[found, true] > 0
    found, true = found[overlapping], true[overlapping]
    common = shared[found, true].sum()
    return float(common / max(1, predicted_areas.sum() + true_areas.sum() - common))


def _areas(
    overlap: Overlaps, match: MatchResult
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Shared pixels and areas of the predictions and cells that count."""
    predicted = np.concatenate([match.predicted, match.false_positives])
    true = np.concatenate([match.true, match.false_negatives])
    return (
        overlap.shared[np.ix_(predicted, true)],
        overlap.predicted_areas[predicted],
        overlap.true_areas[true],
    )
