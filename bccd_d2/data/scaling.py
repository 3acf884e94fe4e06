"""How native pixels become network pixels. Needs neither torch nor Detectron2: exported models run without them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width in network pixels of ``height`` x ``width`` native pixels; at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8, averaging over areas when shrinking, which keeps thin membranes."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
