"""COCO's average precision and recall (Lin et al. 2014), with sizes and borders that fit cells."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage, check_detections
from bccd_d2.evaluation.options import NO_GROUND_TRUTH, SIZE_NAMES, EvaluationOptions, Value
from bccd_d2.structures.cells import Cells

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


class COCOMetrics:
    """COCO's evaluation of a set of images, by faster-coco-eval or by pycocotools, the reference.

    Sizes are those of the masks for both tasks. Ground truth that is left out of a region is marked as outside of the
    sizes, as COCO itself does with its size bins: what matches it is neither right nor wrong, and so is a prediction
    marked likewise that matches nothing.
    """

    def __init__(
        self,
        images: Sequence[EvaluationImage],
        class_names: Sequence[str],
        options: EvaluationOptions,
        *,
        engine: str = "auto",
    ) -> None:
        """
        Args:
            images: truth and all predictions.
            class_names: by class index.
            options: ``max_detections``, ``size_edges`` and ``border_margin`` are read.
            engine: ``"faster-coco-eval"``, ``"pycocotools"``, or ``"auto"`` for the first that is installed.

        Raises:
            InputError: an image has more predictions than ``max_detections``, or the engine is not known or installed.
        """
        check_detections(images, options.max_detections)
        self._names = class_names
        self._options = options
        coco_class, self._evaluation_class = _engine(engine)
        truth = [
            _annotations(i.image_id, i.truth, i.truth.touches_border(options.border_margin)) for i in images
        ]
        ignored = [
            _annotations(i.image_id, i.ignore, np.zeros(len(i.ignore), bool), iscrowd=1) for i in images
        ]
        found = [
            _annotations(i.image_id, i.predictions, i.predictions.touches_border(options.border_margin))
            for i in images
        ]
        heads = [
            {"id": i.image_id, "height": i.truth.height, "width": i.truth.width, "file_name": i.file_name}
            for i in images
        ]
        self._truth = _document(coco_class, heads, class_names, [*truth, *ignored])
        self._found = _document(coco_class, heads, class_names, found)

    def table(self, task: str, *, interior: bool = False) -> AveragePrecisionTable:
        """The metrics of one task.

        Args:
            task: ``"bbox"`` or ``"segm"``.
            interior: leave out ground truth that touches the border, and predictions there that match no interior
                cell.
        """
        for document in (self._truth, self._found):
            for annotation in document.dataset["annotations"]:
                annotation["area"] = -1.0 if interior and annotation["border"] else annotation["pixels"]
        ranges = [(0.0, 1e10), *self._options.size_areas()]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation_class(self._truth, self._found, task)
            evaluation.params.maxDets = [self._options.max_detections]
            evaluation.params.areaRng = [list(limits) for limits in ranges]
            evaluation.params.areaRngLbl = ["all", *SIZE_NAMES]
            evaluation.evaluate()
            evaluation.accumulate()
        # (IoUs, recalls, classes, sizes) and (IoUs, classes, sizes), -1 without ground truth.
        precision = np.asarray(evaluation.eval["precision"])[:, :, :, :, 0]
        recall = np.asarray(evaluation.eval["recall"])[:, :, :, 0]
        cells = self._cells(ranges)
        every = np.arange(len(self._names))
        return AveragePrecisionTable(
            _summary(precision[..., 0], recall[..., 0], cells[:, 0], every),
            {
                name: _summary(precision[..., 0], recall[..., 0], cells[:, 0], every[[index]])
                for index, name in enumerate(self._names)
            },
            {
                name: _summary(precision[..., index], recall[..., index], cells[:, index], every)
                for index, name in enumerate(SIZE_NAMES, start=1)
            },
        )

    def _cells(self, ranges: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
        """(classes, sizes) true cells that count."""
        counts = np.zeros((len(self._names), len(ranges)), np.int64)
        for annotation in self._truth.dataset["annotations"]:
            if not annotation["iscrowd"]:
                for index, (low, high) in enumerate(ranges):
                    counts[annotation["category_id"], index] += low <= annotation["area"] <= high
        return counts


def _engine(name: str) -> tuple[Any, Any]:
    """Classes that hold annotations and evaluate them."""
    if name not in ("auto", "faster-coco-eval", "pycocotools"):
        raise InputError(f"engine {name!r}, expected 'auto', 'faster-coco-eval' or 'pycocotools'")
    if name != "pycocotools":
        try:
            from faster_coco_eval import COCO as FasterCOCO  # noqa: N811
            from faster_coco_eval import COCOeval_faster

            return FasterCOCO, COCOeval_faster
        except ImportError as error:
            if name == "faster-coco-eval":
                raise InputError('faster-coco-eval is not installed: pip install "bccd_d2[train]"') from error
    return COCO, COCOeval


def _annotations(
    image_id: int, cells: Cells, border: NDArray[np.bool_], iscrowd: int = 0
) -> list[dict[str, Any]]:
    corners = cells.boxes.copy()
    corners[:, 2:] -= corners[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": int(cells.classes[index]),
            "iscrowd": iscrowd,
            "pixels": float(area),
            "border": bool(border[index]),
            "bbox": corners[index].tolist(),
            "segmentation": rle,
            "score": float(cells.scores[index]),
        }
        for index, (area, rle) in enumerate(zip(cells.areas, cells.rles()))
    ]


def _document(
    coco_class: Any,
    heads: list[dict[str, Any]],
    class_names: Sequence[str],
    annotations: Sequence[list[dict[str, Any]]],
) -> Any:
    coco = coco_class()
    coco.dataset = {
        "images": heads,
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names)],
        "annotations": [
            {"id": number, **annotation}
            for number, annotation in enumerate(itertools.chain.from_iterable(annotations), start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _summary(
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    cells: NDArray[np.int64],
    classes: NDArray[np.intp],
) -> AveragePrecision:
    """Means over those classes that have ground truth."""
    known = classes[cells[classes] > 0]
    if not known.size:
        return AveragePrecision(NO_GROUND_TRUTH, NO_GROUND_TRUTH, NO_GROUND_TRUTH, NO_GROUND_TRUTH, 0)
    chosen = precision[:, :, known]
    return AveragePrecision(
        float(chosen.mean()),
        float(chosen[0].mean()),
        float(chosen[5].mean()),
        float(recall[:, known].mean()),
        int(cells[classes].sum()),
    )
