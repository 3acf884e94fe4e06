"""Predictions in the formats that other tools read."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as mask_util


def coco_results(
    instances: Instances, image_id: int, file_name: str, class_names: list[str]
) -> list[dict[str, Any]]:
    """Entries of a COCO results file, with the names of image and class added.

    Args:
        instances: predictions in native pixels with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``.
        image_id: as in the COCO file of the images.
        file_name: name of the image.
        class_names: by class index; category ids count from 1 in their order.

    Returns:
        One dict a cell: ``image_id``, ``file_name``, ``category_id``, ``category``, ``bbox`` (xywh, native pixels),
        ``score``, ``segmentation`` (compressed RLE at native size).
    """
    entries = []
    for index in range(len(instances)):
        mask = np.asfortranarray(instances.pred_masks[index].numpy().view(np.uint8))
        rle = mask_util.encode(mask)
        x0, y0, x1, y1 = instances.pred_boxes.tensor[index].tolist()
        category = int(instances.pred_classes[index])
        entries.append(
            {
                "image_id": image_id,
                "file_name": file_name,
                "category_id": category + 1,
                "category": class_names[category],
                "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(float(instances.scores[index]), 4),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return entries
