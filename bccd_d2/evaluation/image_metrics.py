"""What is measured once of each image and used by all metrics; overlap of the pixels of all cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.error_bins import ImageErrors, classify_errors
from bccd_d2.evaluation.instances import ImageInstances, OutlineAgreement, image_instances, outline_agreement
from bccd_d2.evaluation.matching import Overlaps, box_ious, match_greedy, overlaps
from bccd_d2.evaluation.options import ALL_CLASSES, FOUND_IOU, REGIONS, EvaluationOptions


class PixelCounts(NamedTuple):
    """Pixels of one image: in both masks, in the predicted one, in the true one."""

    intersection: int
    predicted: int
    true: int


@dataclass(frozen=True)
class PixelOverlap:
    """Fractions in [0, 1] at a score threshold, the metrics of the torchvision report this project is modelled on.

    ``IoU`` and ``Dice`` compare the union of the predicted masks with the union of the true ones, whatever their class,
    over the pixels of all images together; ``IoU_mean`` and ``Dice_mean`` are means over images. ``AP50_per_image`` is
    the mean over images of :func:`box_average_precision`, which is not COCO's mAP. What lies in ignore regions and in
    no true cell is neither right nor wrong.
    """

    IoU: float
    Dice: float
    IoU_mean: float
    Dice_mean: float
    AP50_per_image: float


def pixel_counts(image: EvaluationImage, score_threshold: float) -> PixelCounts:
    """Pixels of the unions of all true cells and of all predictions with at least this score."""
    true = image.truth.label_image() > 0
    predicted = image.predictions[image.predictions.scores >= score_threshold].label_image() > 0
    if len(image.ignore):
        predicted &= true | (image.ignore.label_image() == 0)
    return PixelCounts(
        int(np.count_nonzero(true & predicted)), int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    )


def image_box_precision(image: EvaluationImage, overlap: Overlaps, score_threshold: float) -> float:
    """:func:`box_average_precision` of one image, of predictions with at least this score.

    Predictions that lie mostly in an ignore region and reach no true box do not count.
    """
    kept = image.predictions.scores >= score_threshold
    if len(image.ignore):
        reached = overlap.box_iou[:, : len(image.truth)].max(axis=1, initial=0.0)
        kept &= ~overlap.in_ignored(None) | (reached >= FOUND_IOU)
    return box_average_precision(
        image.predictions.scores[kept], image.predictions.boxes[kept], image.truth.boxes
    )


def pixel_overlap(counts: Sequence[PixelCounts], box_precisions: Sequence[float]) -> PixelOverlap:
    """Sum up images, at least one."""
    iou, dice = iou_and_dice(PixelCounts(*np.sum(counts, axis=0).tolist()))
    mean_iou, mean_dice = np.mean([iou_and_dice(c) for c in counts], axis=0)
    return PixelOverlap(iou, dice, float(mean_iou), float(mean_dice), float(np.mean(box_precisions)))


def iou_and_dice(counts: PixelCounts) -> tuple[float, float]:
    """Intersection over union and Dice coefficient, both in [0, 1]; two empty masks agree, so both are 1."""
    union = counts.predicted + counts.true - counts.intersection
    if union == 0:
        return 1.0, 1.0
    return counts.intersection / union, 2 * counts.intersection / (counts.predicted + counts.true)


def box_average_precision(
    scores: NDArray[np.float64], boxes: NDArray[np.float64], true_boxes: NDArray[np.float64]
) -> float:
    """Area under the interpolated precision-recall curve, in [0, 1], of boxes (N, 4) xyxy of one image at IoU 0.5.

    Predictions are matched greedily, best score first, each to the free true box that it overlaps most. 1 where there
    is neither a prediction nor a true box, 0 where there is only one of both.
    """
    if len(true_boxes) == 0 or len(boxes) == 0:
        return float(len(true_boxes) == len(boxes))
    found, _ = match_greedy(box_ious(boxes, true_boxes), scores, FOUND_IOU)
    order = np.argsort(-scores, kind="stable")
    correct = np.isin(order, found)
    precision = np.cumsum(correct) / np.arange(1, len(boxes) + 1)
    best_precision_at_or_after = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_precision_at_or_after[correct].sum() / len(true_boxes))


@dataclass(frozen=True)
class MeasuredImage:
    """One image and what was measured of it."""

    image: EvaluationImage  # itself
    overlap: Overlaps  # of all its predictions and cells
    errors: ImageErrors  # bins of its cells
    pixels: PixelCounts  # of the unions, at the score threshold
    box_precision: float  # average precision of its boxes at IoU 0.5, likewise
    instances: Mapping[str, Mapping[str, ImageInstances]]  # by region, then ``ALL_CLASSES`` and class name


def measure(image: EvaluationImage, class_names: Sequence[str], options: EvaluationOptions) -> MeasuredImage:
    """Measure one image."""
    overlap = overlaps(image, options.border_margin)

    @functools.cache
    def outline(predicted: int, true: int) -> OutlineAgreement:
        return outline_agreement(image.predictions, predicted, image.truth, true, options.boundary_tolerance)

    classes = {ALL_CLASSES: None, **{name: index for index, name in enumerate(class_names)}}
    return MeasuredImage(
        image,
        overlap,
        classify_errors(overlap, image.predictions, options.score_threshold),
        pixel_counts(image, options.score_threshold),
        image_box_precision(image, overlap, options.score_threshold),
        {
            region: {
                name: image_instances(
                    overlap,
                    outline,
                    options.score_threshold,
                    class_index=index,
                    interior=region == "interior",
                )
                for name, index in classes.items()
            }
            for region in REGIONS
        },
    )
