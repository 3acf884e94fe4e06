"""Drawn images with known instances, as dataset dicts the way Detectron2's load_coco_json gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from detectron2.structures import BoxMode
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def disc(height: int, width: int, x: float, y: float, radius: float) -> Mask:
    """Pixels whose centre is within ``radius`` of (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def annotation(mask: Mask, category: int = 0, iscrowd: int = 0) -> dict[str, Any]:
    encoded = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "bbox": pycocotools.mask.toBbox(encoded).tolist(),
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": encoded,
        "category_id": category,
        "iscrowd": iscrowd,
    }


def smear(height: int, width: int, masks: Sequence[Mask]) -> NDArray[np.uint8]:
    """BGR image: bluish cells on light background, with a little noise so that no two places look the same."""
    noise = np.random.default_rng(0).integers(-8, 9, (height, width, 3))
    image = np.full((height, width, 3), (232, 228, 226)) + noise
    for k, mask in enumerate(masks):
        image[mask] = np.array((150, 100 + 5 * (k % 5), 110)) + noise[mask]
    return image.clip(0, 255).astype(np.uint8)


def dataset_dict(path: Path, masks: Sequence[Mask], **extra: Any) -> dict[str, Any]:
    """Draw the image to ``path`` and describe it; classes alternate between 0 and 1."""
    height, width = masks[0].shape if masks else extra.pop("size")
    cv2.imwrite(str(path), smear(height, width, masks))
    return {
        "file_name": str(path),
        "image_id": 7,
        "height": height,
        "width": width,
        "annotations": [annotation(mask, k % 2) for k, mask in enumerate(masks)],
        **extra,
    }
