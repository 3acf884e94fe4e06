"""A trained model completes annotations: outlines for annotated boxes, and regions with cells that are not annotated.

Mask R-CNN predicts a mask for any box. Fed with the boxes that people drew, a model that learned real masks outlines
cells on other stains, and overlapping ones whole, where thresholds fail (compared in docs/experiments.md).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from bccd_d2.inference.predictor import BCCDPredictor, detections_of
from bccd_d2.structures.cell_size import annotated_diameter
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.rle import as_rle

# A mask that fills less of its box is no outline of the cell: the model saw something else in it.
_SMALLEST_FILL = 0.3
# Half axes of the ellipse that takes its place, in half sides of the box; annotators leave some room around a cell.
_ELLIPSE = 0.92
# A prediction is a cell without annotation where neither its box nor its mask agrees with an annotation.
_MAX_BOX_IOU, _MAX_COVERED = 0.4, 0.4


def outline_boxes(
    predictor: BCCDPredictor, image: NDArray[np.uint8], boxes: NDArray[np.float64], scale: float
) -> tuple[Cells, NDArray[np.bool_]]:
    """Masks of cells whose boxes (N, 4), xyxy in native pixels, are known.

    ``image`` is (H, W, 3) uint8 BGR, ``scale`` the pixels at the predictor's magnification per native pixel; classes do
    not matter. Returns N cells in native pixels in the order of the boxes, of which only the largest connected part is
    kept, and (N,) bool: where the mask head drew no plausible outline and an ellipse takes its place.
    """
    height, width = image.shape[:2]
    if not len(boxes):
        return Cells.from_masks(height, width, []), np.zeros(0, bool)
    prepared = predictor.prepare(image, scale)
    stretch = torch.tensor([prepared.shape[1] / width, prepared.shape[0] / height] * 2)
    given = Instances(
        prepared.shape[:2],
        pred_boxes=Boxes(torch.from_numpy(boxes).float() * stretch),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
        scores=torch.ones(len(boxes)),
    )
    sample = {"image": torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1)))}
    with torch.no_grad():
        (found,) = predictor.model.inference([sample], detected_instances=[given], do_postprocess=False)
    drawn = detections_of(found).resized(height, width).paste()
    masks, origins, failed = [], [], np.zeros(len(boxes), bool)
    for index, box in enumerate(boxes):
        mask = _largest_part(drawn.masks[index])
        if mask.sum() < _SMALLEST_FILL * np.prod(box[2:] - box[:2]):
            failed[index] = True
            mask, origin = _ellipse(box)
        else:
            origin = tuple(drawn.windows[index, :2].tolist())
        masks.append(mask)
        origins.append(origin)
    return Cells.from_masks(height, width, masks, origins=origins, boxes=boxes), failed


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not mask.any():  # OpenCV crashes on an empty array
        return mask
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.asarray(labels == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax())


def _ellipse(box: NDArray[np.float64]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The pixels whose centres lie in an ellipse in the middle of a box, and their origin."""
    (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    columns, rows = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    middle, reach = (box[:2] + box[2:]) / 2, np.maximum(_ELLIPSE * (box[2:] - box[:2]) / 2, 0.5)
    inside = ((columns - middle[0]) / reach[0]) ** 2 + ((rows[:, None] - middle[1]) / reach[1]) ** 2 <= 1
    return inside, (int(x0), int(y0))


def find_unlabelled(
    predictor: BCCDPredictor, image: NDArray[np.uint8], annotated: Cells, scale: float, min_score: float
) -> Cells:
    """Cells that the model finds with ``min_score`` and no annotation covers, without the pixels of annotated cells.

    ``image`` is (H, W, 3) uint8 BGR, ``scale`` the pixels at the predictor's magnification per native pixel.
    """
    found = predictor.predict_cells(image, replace(predictor.options, scale=scale, score_threshold=min_score))
    covered = annotated.label_image() > 0
    alone = [
        mask & ~covered[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(found.masks, found.windows.tolist())
    ]
    free = np.array([mask.sum() for mask in alone]) >= (1 - _MAX_COVERED) * found.areas
    if len(annotated):
        ious = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(annotated.boxes))
        free &= ious.max(dim=1).values.numpy() <= _MAX_BOX_IOU
    kept = np.flatnonzero(free)
    return Cells.from_masks(
        found.height,
        found.width,
        [alone[i] for i in kept],
        origins=[tuple(found.windows[i, :2].tolist()) for i in kept],
        scores=found.scores[kept],
    )


def complete_annotations(
    document: Mapping[str, Any],
    read: Callable[[str], NDArray[np.uint8]],
    predictor: BCCDPredictor,
    *,
    outlines: bool,
    ignore_score: float | None,
) -> tuple[dict[str, Any], Counter[str]]:
    """A COCO document with better masks, and regions to ignore where cells are not annotated.

    ``read`` gives the image of a ``file_name``, (H, W, 3) uint8 BGR. ``outlines`` draws the masks of annotations marked
    ``weak`` again, from their boxes; predictions from ``ignore_score`` on that no annotation covers become regions with
    ``iscrowd``. Returns a new document with new annotation ids, and the number of ``outlines``, of ``ellipses`` among
    them, and of regions to ``ignore``.
    """
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in document["categories"]}
    usual = annotated_diameter(document["annotations"], names, fewest=1)
    diameter = predictor.training_diameter
    if not diameter:
        logging.getLogger(__name__).warning(
            "INPUT.CELL_DIAMETER of the model is 0: the images are not resized to the magnification of its training"
        )
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for entry in document["images"]:
        image = read(entry["file_name"])
        mine = [dict(annotation) for annotation in by_image[entry["id"]]]
        size = annotated_diameter(mine, names) or usual
        scale = diameter / size if diameter and size else 1.0
        weak = [one for one in mine if one.get("weak") and not one.get("iscrowd")] if outlines else []
        cells, failed = outline_boxes(predictor, image, _corners(weak, image), scale)
        for annotation, rle, area in zip(weak, cells.rles(), cells.areas.tolist()):
            annotation.update(segmentation=rle, area=area)
        counts.update(outlines=len(weak), ellipses=int(failed.sum()))
        if ignore_score is not None:
            height, width = image.shape[:2]
            rles = [as_rle(one["segmentation"], height, width) for one in mine]
            annotated = Cells.from_rles(height, width, rles, boxes=_corners(mine, image))
            left_out = find_unlabelled(predictor, image, annotated, scale, ignore_score)
            mine += [_region(entry["id"], rle, document) for rle in left_out.rles()]
            counts["ignore"] += len(left_out)
        annotations += mine
    annotations = [{**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)]
    return {**document, "annotations": annotations}, counts


def _corners(annotations: Sequence[Mapping[str, Any]], image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 4) xyxy boxes, clipped to the image."""
    boxes = np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    height, width = image.shape[:2]
    return np.clip(boxes, 0, [width, height, width, height])


def _region(image_id: Any, rle: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return {
        "image_id": image_id,
        "category_id": document["categories"][0]["id"],  # Detectron2 wants one; nothing reads it
        "bbox": [x, y, width, height],
        "area": int(coco_mask.area(rle)),
        "segmentation": rle,
        "iscrowd": 1,
        "border": False,
    }
