"""Cutting a component that several boxes share, one piece a box."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

CUT_METHODS = ("watershed", "nearest")
SEED = 0.7
"""Radius of the seed of a box, in half sides of the box. Where seeds overlap, the nearer box has the pixel."""
BEYOND = 1.2
"""How far from the centre of every box, in half sides, the rest of a component begins."""


def cut_by_boxes(
    inside: NDArray[np.bool_], boxes: NDArray, method: str = "watershed", min_rest: float = np.inf
) -> NDArray[np.int32]:
    """Cut a component into one connected piece a box, and what lies beyond the boxes.

    Args:
        inside: bool (height, width), the component.
        boxes: (n, 4) x0, y0, x1, y1 in pixels of ``inside``, half-open.
        method: ``watershed``: pieces grow from seeds in the boxes down the distance to the background (Vincent and
            Soille 1991), so they meet at necks. ``nearest``: a pixel belongs to the box whose centre is nearest, in
            units of that box's half sides, along a way inside the component.
        min_rest: a part outside all boxes of at least this many pixels becomes a piece of its own.

    Returns:
        int32 (height, width), 0 outside, 1..n for the boxes in their order, then the rest. A box whose seeds are
        all taken by its neighbours may come out empty.

    Raises:
        ValueError: there is no such method.
    """
    if method not in CUT_METHODS:
        raise ValueError(f"method {method!r}, expected one of {', '.join(CUT_METHODS)}")
    height, width = inside.shape
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    x0, y0, x1, y1 = (np.asarray(boxes, float)[:, side, None, None] for side in range(4))
    across = np.abs(columns - (x0 + x1) / 2) / ((x1 - x0) / 2)
    down = np.abs(rows - (y0 + y1) / 2) / ((y1 - y0) / 2)
    radius = np.hypot(across, down)  # (n, height, width), 1 on the inscribed ellipse
    nearest = radius.argmin(axis=0)
    distance = radius.min(axis=0)
    markers = np.where(inside & (distance <= SEED), nearest + 1, 0).astype(np.int32)
    for box in np.setdiff1d(np.arange(1, len(boxes) + 1), markers):
        free = inside & (markers == 0)
        if free.any():
            seed = np.where(free, radius[box - 1], np.inf).argmin()
            markers.flat[seed] = box
    beyond = inside & (np.maximum(across, down).min(axis=0) > BEYOND)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(beyond.view(np.uint8), connectivity=8)
    number = len(boxes)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] >= min_rest:
            number += 1
            markers[parts == part] = number
    return watershed(distance if method == "nearest" else -_depth(inside), markers, mask=inside)


def _depth(inside: NDArray[np.bool_]) -> NDArray:
    """Distance of each pixel to the background, the frame of the window counting as background."""
    padded = cv2.copyMakeBorder(inside.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
