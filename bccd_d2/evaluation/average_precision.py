"""COCO's average precision and recall (Lin et al. 2014), with sizes and borders that fit cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bccd_d2.evaluation.image_metrics import MeasuredImage, ranked
from bccd_d2.evaluation.options import NO_GROUND_TRUTH, SIZE_NAMES, EvaluationOptions, Value
from bccd_d2.evaluation.ranking import PrecisionRanking, RankedPredictions

TASKS = ("bbox", "segm")


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
    measured: Sequence[MeasuredImage],
    class_names: Sequence[str],
    options: EvaluationOptions,
    task: str,
    region: str,
) -> AveragePrecisionTable:
    """The metrics of one ``task`` ("bbox" or "segm") in one ``region`` ("all" or "interior"), over all images.

    Sizes are those of the masks for both tasks. What lies outside of a size or a region is treated as COCO treats other
    sizes: a match with such ground truth is neither right nor wrong, nor is such a prediction that matches nothing.
    """
    sizes: list[tuple[float, float] | None] = [None, *options.size_areas()]
    every, *by_size = (
        _ByClass(ranked(measured, len(class_names), region, boxes=task == "bbox", areas=areas))
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
