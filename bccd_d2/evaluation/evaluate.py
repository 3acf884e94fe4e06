"""Everything that is said about a set of predictions, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bccd_d2.evaluation.average_precision import AveragePrecisionTable
from bccd_d2.evaluation.bootstrap import Interval
from bccd_d2.evaluation.calibration import PrecisionRecallCurve, Reliability
from bccd_d2.evaluation.counts import CountAgreement
from bccd_d2.evaluation.dataset import EvaluationSet
from bccd_d2.evaluation.instances import InstanceMetrics
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.overlap import PixelOverlap
from bccd_d2.evaluation.taxonomy import ErrorTable, ImageErrors
from bccd_d2.evaluation.values import plain

HEADLINE = ("IoU", "Dice", "mAP@0.5", "AP", "AP50", "AP75", "F1", "PQ")
"""Names of the headline figures; AP, AP50 and AP75 are of masks, all are in [0, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """All figures, as fractions in [0, 1] or in pixels; ``Value`` is a number or words (see ``values.py``).

    ``region`` is "all" or "interior", ``class`` is a class name or ``ALL_CLASSES``.

    Attributes:
        class_names: by class index.
        options: what the evaluation was told.
        average_precision: by task ("bbox", "segm"), then region.
        overlap: pixels of all cells together, the report's own metrics.
        instances: by region, then class.
        counts: by region, then class.
        errors: the error taxonomy over all images.
        curves: precision-recall at IoU 0.5, by region, then class.
        reliability: by region.
        confusion: (C + 1, C + 1) rows true, columns predicted class, the last of each for "none": matched whatever
            the class at ``iou_threshold``, predictions at the score threshold, those in ignore regions left out.
        intervals: by region, then by the names in :data:`HEADLINE`; "interior" has AP, AP50, AP75, F1 and PQ.
        image_errors: bins of each image, in the order of the images.
        per_image: one record an image: ``image_id``, ``file_name``, ``iou``, ``dice``, ``map50``, ``cells``,
            ``predicted``, ``true_positives``, ``f1``, ``pq``, ``aji`` and one count ``errors`` by bin.
        per_cell: one record a true cell and one a prediction that counts: ``image_id``, ``file_name``, ``kind``
            ("truth" or "prediction"), ``index`` (into the cells of the image), ``class``, ``score`` (``None`` for
            truth), ``bin``, ``partner`` (index or ``None``), ``iou`` (best with any cell of the other kind),
            ``area_px``, ``diameter_px``, ``x0``, ``y0``, ``x1``, ``y1``, ``touches_border``, ``size``, ``gap_px``
            (to the next cell, ``None`` when alone), ``crowding``, ``contrast`` (grey levels against a ring around it,
            or ``None``) and ``contrast_bin``.
    """

    class_names: Sequence[str]
    options: EvaluationOptions
    average_precision: Mapping[str, Mapping[str, AveragePrecisionTable]]
    overlap: PixelOverlap
    instances: Mapping[str, Mapping[str, InstanceMetrics]]
    counts: Mapping[str, Mapping[str, CountAgreement]]
    errors: ErrorTable
    curves: Mapping[str, Mapping[str, PrecisionRecallCurve]]
    reliability: Mapping[str, Reliability]
    confusion: Sequence[Sequence[int]]
    intervals: Mapping[str, Mapping[str, Interval]]
    image_errors: Sequence[ImageErrors]
    per_image: Sequence[Mapping[str, Any]]
    per_cell: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """All but ``per_cell`` and ``image_errors``, as what JSON knows; no NaN."""
        whole = plain(self)
        return {key: value for key, value in whole.items() if key not in ("per_cell", "image_errors")}

    def headline(self, region: str = "all") -> dict[str, Any]:
        """The figures of :data:`HEADLINE`, in [0, 1] or words."""
        return {name: interval.value for name, interval in self.intervals[region].items()}

    def detectron2_results(self) -> dict[str, dict[str, float]]:
        """Groups of figures in percent, as Detectron2 logs them; what has no value is left out."""
        raise NotImplementedError


def evaluate(dataset: EvaluationSet, options: EvaluationOptions) -> Evaluation:
    """Judge the predictions of a data set.

    Raises:
        InputError: an image has more predictions than ``options.max_detections``, or there is no image.
    """
    raise NotImplementedError


def headline_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Markdown table of the headline figures, one row a data set (for example ``{"Val": ..., "Test": ...}``)."""
    raise NotImplementedError
