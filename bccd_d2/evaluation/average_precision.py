"""COCO's average precision and recall (Lin et al. 2014), with sizes and borders that fit cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.values import Value

TASKS = ("bbox", "segm")


@dataclass(frozen=True)
class AveragePrecision:
    """Fractions in [0, 1] of one group of cells, or words where it holds no ground truth.

    Attributes:
        AP: mean over IoU 0.50, 0.55, ..., 0.95 and over the classes that have ground truth.
        AP50: at IoU 0.50.
        AP75: at IoU 0.75.
        AR: recall, mean likewise.
        cells: number of true cells that count.
    """

    AP: Value
    AP50: Value
    AP75: Value
    AR: Value
    cells: int


@dataclass(frozen=True)
class AveragePrecisionTable:
    """Of one task in one region.

    Attributes:
        overall: all classes and sizes.
        by_class: by class name, all sizes.
        by_size: by size name (see :class:`EvaluationOptions`), all classes.
    """

    overall: AveragePrecision
    by_class: Mapping[str, AveragePrecision]
    by_size: Mapping[str, AveragePrecision]


def coco_average_precision(
    images: Sequence[EvaluationImage],
    class_names: Sequence[str],
    task: str,
    options: EvaluationOptions,
    *,
    interior: bool = False,
    engine: str = "auto",
) -> AveragePrecisionTable:
    """COCO's metrics by faster-coco-eval, or by pycocotools where that is not installed.

    Args:
        images: truth and all predictions.
        class_names: by class index.
        task: ``"bbox"`` or ``"segm"``.
        options: ``max_detections``, ``size_edges`` and ``border_margin`` are read.
        interior: leave out ground truth that touches the border, and predictions there that match no interior cell.
        engine: ``"faster-coco-eval"``, ``"pycocotools"`` or ``"auto"``.

    Raises:
        InputError: an image has more predictions than ``max_detections``, which would be dropped silently, or the
            engine is not installed.
    """
    raise NotImplementedError
