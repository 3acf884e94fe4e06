"""Cutting a component that several boxes share, one piece a box."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

CUT_METHODS = ("nearest", "watershed")
SEED = 0.7
"""Radius of the seed of a box, in half sides of the box. Where seeds overlap, the nearer box has the pixel."""
BEYOND = 1.2
"""How far from the centre of every box, in half sides, the rest of a component begins."""


def cut_by_boxes(
    inside: NDArray[np.bool_], boxes: NDArray, method: str = "nearest", min_rest: float = np.inf
) -> NDArray[np.int32]:
    """Cut a component into one connected piece a box, and what lies beyond the boxes.

    Args:
        inside: bool (height, width), the component.
        boxes: (n, 4) x0, y0, x1, y1 in pixels of ``inside``, half-open.
        method: ``nearest``: a pixel belongs to the box whose centre is nearest, in half sides of that box, along a way
            inside the component. ``watershed``: pieces grow from seeds in the boxes down the distance to the
            background (Vincent and Soille 1991), so they meet at necks, where there are any.
        min_rest: a part outside all boxes of at least this many pixels becomes a piece of its own.

    Returns:
        int32 (height, width), 0 outside, 1..n for the boxes in their order, then the rest. A box whose seeds are
        all taken by its neighbours may come out empty.

    Raises:
        ValueError: there is no such method.
    """
    if method not in CUT_METHODS:
        raise ValueError(f"method {method!r}, expected one of {', '.join(CUT_METHODS)}")
    # One box after the other: all at once would take a gigabyte for a mask that is welded all over the image.
    distance = np.full(inside.shape, np.inf, np.float32)
    square = distance.copy()
    nearest = np.zeros(inside.shape, np.int32)
    for number, box in enumerate(boxes, start=1):
        down, across = _half_sides(inside.shape, box)
        radius = np.hypot(down, across)
        nearest[radius < distance] = number
        np.minimum(distance, radius, out=distance)
        np.minimum(square, np.maximum(down, across), out=square)
    markers = np.where(inside & (distance <= SEED), nearest, 0)
    for number in np.setdiff1d(np.arange(1, len(boxes) + 1), markers):
        free = inside & (markers == 0)
        if free.any():
            radius = np.hypot(*_half_sides(inside.shape, boxes[number - 1]))
            markers.flat[np.where(free, radius, np.inf).argmin()] = number
    beyond = inside & (square > BEYOND)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(beyond.view(np.uint8), connectivity=8)
    number = len(boxes)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] >= min_rest:
            number += 1
            markers[parts == part] = number
    return watershed(distance if method == "nearest" else -_depth(inside), markers, mask=inside)


def _half_sides(shape: tuple[int, ...], box: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of each row (height, 1) and column (1, width) from the centre of a box, in half sides of it."""
    x0, y0, x1, y1 = (float(side) for side in box)
    down = np.abs(np.arange(shape[0], dtype=np.float32) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    across = np.abs(np.arange(shape[1], dtype=np.float32) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return down[:, None], across[None, :]


def _depth(inside: NDArray[np.bool_]) -> NDArray:
    """Distance of each pixel to the background, the frame of the window counting as background."""
    padded = cv2.copyMakeBorder(inside.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
