"""Instance quality as cell biologists report it: F1, PQ, AJI, outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.values import Value


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
    """Of one class, or of all whatever their class, in one region, at the score threshold.

    Attributes:
        cells: true cells.
        predicted: predictions that count.
        f1: at ``iou_threshold`` (0.5), as precision and recall.
        mean_f1: mean over IoU 0.50, ..., 0.95.
        by_threshold: the ten.
        sq, rq, pq: segmentation, recognition and panoptic quality (Kirillov et al. 2019) at IoU 0.5, all images
            together.
        aji: aggregated Jaccard index (Kumar et al. 2017), mean over images with ground truth.
        aji_plus: AJI+ (Graham et al. 2019), which pairs each prediction at most once, likewise.
        boundary_f1: mean over matched pairs of the F1 of their outlines within ``boundary_tolerance`` px.
        hausdorff: mean over matched pairs, px, of the greatest distance between their outlines.
        hausdorff95: likewise of the 95th percentile.
    """

    cells: int
    predicted: int
    precision: Value
    recall: Value
    f1: Value
    mean_f1: Value
    sq: Value
    rq: Value
    pq: Value
    aji: Value
    aji_plus: Value
    boundary_f1: Value
    hausdorff: Value
    hausdorff95: Value
    by_threshold: Sequence[ThresholdMetrics]


def instance_metrics(
    images: Sequence[EvaluationImage], class_names: Sequence[str], options: EvaluationOptions
) -> Mapping[str, Mapping[str, InstanceMetrics]]:
    """By region (``"all"``, ``"interior"``), then by ``ALL_CLASSES`` and class name."""
    raise NotImplementedError
