"""Masks from the mask head's square to the pixels of an image, window by window."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.structures import Instances
from numpy.typing import NDArray

from bccd_d2.cells import Cells


def paste_mask(
    mask: NDArray[Any], box: NDArray[Any], height: int, width: int, threshold: float = 0.5
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Stretch the mask head's square over its box, as Detectron2's ``paste_masks_in_image`` does for whole images.

    Bilinear between the centres of the square's pixels, falling to 0 beyond its edge.

    Args:
        mask: (M, M) float probabilities.
        box: (4,) xyxy in pixels of the image.
        height: of the image.
        width: of the image.
        threshold: pixels with at least this probability are inside.

    Returns:
        The mask in the window around the box, bool, and the window's upper left pixel (x, y).
    """
    (columns, x), (rows, y) = (
        _interpolation(box[axis], box[axis + 2], size, mask.shape[1 - axis])
        for axis, size in ((0, width), (1, height))
    )
    return rows @ mask @ columns.T >= threshold, (x, y)


def _interpolation(low: float, high: float, size: int, samples: int) -> tuple[NDArray[np.float32], int]:
    """(pixels, samples) weights that carry samples, spread from low to high, to whole pixels; the first pixel."""
    first = min(max(int(np.floor(low)), 0), size)
    last = min(max(int(np.ceil(high)), first), size)
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    places = (centres - low) * (samples / max(high - low, 1e-6)) - 0.5
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(samples)))
    return weights.astype(np.float32), first


def cells_of_instances(instances: Instances) -> Cells:
    """The cells that a model's heads found, before Detectron2 has stretched their masks over the image.

    Args:
        instances: of one image on any device, with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``
            (N, 1, M, M) probabilities.

    Returns:
        In pixels of the network's input, in the same order.
    """
    height, width = instances.image_size
    boxes = instances.pred_boxes.tensor.cpu().numpy()
    squares = instances.pred_masks[:, 0].float().cpu().numpy()
    pasted = [paste_mask(square, box, height, width) for square, box in zip(squares, boxes)]
    return Cells.from_masks(
        height,
        width,
        [mask for mask, _ in pasted],
        origins=[origin for _, origin in pasted],
        boxes=boxes,
        classes=instances.pred_classes.cpu().numpy(),
        scores=instances.scores.float().cpu().numpy(),
    )
