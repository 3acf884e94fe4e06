"""Images of synthetic cells whose metrics can be computed by hand."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bccd_d2.evaluation.average_precision import average_precision_table
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.matching import overlaps
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.cells import Cells

SIDE = 200
Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def rectangles(
    boxes: Sequence[Box],
    *,
    classes: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    side: int = SIDE,
) -> Cells:
    """Filled rectangles on an image of ``side`` x ``side``."""
    return Cells.from_masks(
        side,
        side,
        [np.ones((height, width), bool) for _, _, width, height in boxes],
        origins=[(x, y) for x, y, _, _ in boxes],
        classes=classes,
        scores=scores,
    )


def disc(x: float, y: float, radius: float, side: int = SIDE) -> NDArray[np.bool_]:
    """(side, side) pixels whose centres lie within ``radius`` of (x, y)."""
    rows, columns = np.ogrid[:side, :side]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def discs(centres: Sequence[tuple[float, float, float]], side: int = SIDE, **more: Sequence[float]) -> Cells:
    """Discs given as x, y, radius."""
    return Cells.from_masks(side, side, [disc(*centre, side) for centre in centres], **more)


def image(
    truth: Cells, predictions: Cells, ignore: Cells | None = None, image_id: int = 1
) -> EvaluationImage:
    """One image to be evaluated."""
    nothing = Cells.from_masks(truth.height, truth.width, [])
    return EvaluationImage(image_id, f"{image_id}.png", None, truth, ignore or nothing, predictions)


def evaluation_set(
    images: Sequence[EvaluationImage], class_names: Sequence[str] = ("cell",)
) -> EvaluationSet:
    """A data set of such images."""
    return EvaluationSet(images, class_names, list(range(1, len(class_names) + 1)))


def random_image(
    generator: np.random.Generator, *, cells: int = 12, classes: int = 2, image_id: int = 1, side: int = SIDE
) -> EvaluationImage:
    """Random boxes as truth; predictions that are shifted, doubled, split, invented or at the border."""
    truth: list[Box] = []
    predicted: list[Box] = []
    true_classes, predicted_classes = [], []
    for _ in range(generator.integers(0, cells + 1)):
        width, height = generator.integers(8, 40, 2).tolist()
        x, y = generator.integers(0, side - width + 1), generator.integers(0, side - height + 1)
        truth.append((int(x), int(y), width, height))
        true_classes.append(generator.integers(classes))
        for _ in range(generator.integers(0, 3)):
            left, top = np.clip([x, y] + generator.integers(-3, 4, 2), 0, side - 2).tolist()
            wide, high = generator.integers(-2, 8, 2).tolist()
            predicted.append((left, top, min(width + wide, side - left), min(height + high, side - top)))
            right = generator.random() < 0.8
            predicted_classes.append(true_classes[-1] if right else generator.integers(classes))
    for _ in range(generator.integers(0, 5)):
        x, y = generator.integers(0, side - 20, 2).tolist()
        predicted.append((x, y, 15, 18))
        predicted_classes.append(generator.integers(classes))
    regions = [(0, 0, 50, 60)] if generator.random() < 0.5 else []
    return image(
        rectangles(truth, classes=true_classes, side=side),
        rectangles(
            predicted,
            classes=predicted_classes,
            scores=generator.permutation(np.linspace(0.05, 0.99, len(predicted))),
            side=side,
        ),
        rectangles(regions, classes=[0] * len(regions), side=side),
        image_id,
    )


def average_precision(
    images: Sequence[EvaluationImage], names: Sequence[str], task="segm", region="all", **options
):
    """This project's average precision of images."""
    chosen = EvaluationOptions(**options)
    measured = [overlaps(one, chosen.border_margin) for one in images]
    return average_precision_table(measured, names, chosen, task, region)


def pycocotools_figures(
    images: Sequence[EvaluationImage], names: Sequence[str], task: str, region: str
) -> dict[tuple[int, int], tuple[float, float, float, float]]:
    """AP, AP50, AP75 and AR by pycocotools, by class index and size (0 all, then small, medium, large); -1 for none."""
    options = EvaluationOptions()

    def document(kinds: Sequence[str]) -> COCO:
        coco = COCO()
        entries = [
            {
                "image_id": one.image_id,
                "category_id": int(cells.classes[index]),
                "iscrowd": int(kind == "ignore"),
                # The border lies outside of all sizes, as other sizes do.
                "area": -1.0 if region == "interior" and border[index] else float(cells.areas[index]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": cells.rles()[index],
                "score": float(cells.scores[index]),
            }
            for one in images
            for kind in kinds
            for cells in [getattr(one, kind)]
            for border in [cells.touches_border(0)]
            for index, (x0, y0, x1, y1) in enumerate(cells.boxes.tolist())
        ]
        coco.dataset = {
            "images": [
                {"id": one.image_id, "height": one.truth.height, "width": one.truth.width} for one in images
            ],
            "categories": [{"id": index} for index in range(len(names))],
            "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, start=1)],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(document(["truth", "ignore"]), document(["predictions"]), task)
        evaluation.params.maxDets = [options.max_detections]
        evaluation.params.areaRng = [[0.0, 1e10], *map(list, options.size_areas())]
        evaluation.params.areaRngLbl = ["all", "small", "medium", "large"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    return {
        (index, size): (
            precision[:, :, index, size].mean(),
            precision[0, :, index, size].mean(),
            precision[5, :, index, size].mean(),
            recall[:, index, size].mean(),
        )
        for index in range(len(names))
        for size in range(4)
    }
