"""Masks guessed from an image and the boxes drawn on it.

What differs from the background in colour is foreground. A watershed (Vincent and Soille 1991) on the colour gradient,
seeded by the middle of each box and by all that lies outside the boxes, tells whose it is. As blood cells are nearly
convex, the hull of what was found closes pale centres. The outlines are good enough to start a training from or to be
corrected by hand, and are no measurement: docs/conversion.md says how far they are from drawn ones.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from bccd_d2.segmentation.background import background_contrast, contrast_threshold, smooth_lab

CORE = 0.6  # radius of the seed of a box, in half sides: cells reach further in all but the loosest boxes
OUTSIDE = 1.05
"""Where the seed of the surroundings begins. Cells do not fill the corners of their box; a little more than 1 because
boxes are some pixels off."""
REACH = 1.25  # pixels beyond this belong to no box
ROUNDNESS = 15.0
"""What one half side of distance from a box's centre counts for, in Lab units of colour gradient a pixel."""
LEVELS = (0.8, 0.5, 0.35)
"""Thresholds tried in turn, in units of Otsu's (1979): pale red cells are lost at the first."""
SURE_BACKGROUND = 0.8
"""Below this share of the threshold, what connects to the outside is background for certain."""
CLOSE, OPEN = 0.1, 0.06
"""Radii of the closing that joins a broken ring and of the opening that cuts off a neighbour's edge, in sides of the
box."""
MIN_FILL = 0.4  # a mask that fills less of the ellipse inscribed in its box has missed the cell


class GuessedMasks(NamedTuple):
    """Label map int32 (height, width), k + 1 for the k-th box, and the boxes for which no mask was found."""

    labels: NDArray[np.int32]
    failed: list[int]


class _Boxes(NamedTuple):
    """Of each pixel: number of the nearest box from 1, 0 for none, and the distance to its centre in half sides."""

    nearest: NDArray[np.int32]
    radius: NDArray[np.float32]


def guess_masks(
    image: NDArray[np.uint8], corners: NDArray[np.int64], taken: NDArray[np.bool_] | None = None
) -> GuessedMasks:
    """Guess the mask of the cell in each box of an image, uint8 (height, width, 3) RGB.

    ``corners`` is int64 (n, 4) x0, y0, x1, y1 in pixels, half-open, inside the image; ``taken`` bool (height,
    width), pixels that belong to other cells.
    """
    height, width = image.shape[:2]
    labels = np.zeros((height, width), np.int32)
    colours = smooth_lab(image)
    contrast = background_contrast(colours)
    threshold = contrast_threshold(contrast)
    boxes = _nearest_boxes(corners, height, width)
    allowed = boxes.radius <= REACH
    if taken is not None:
        allowed &= ~taken
    slope = _gradient(colours) + ROUNDNESS * np.minimum(boxes.radius, REACH).astype(np.float32)
    left = list(range(len(corners)))
    for level in LEVELS:
        if not left:
            break
        owners = _grow(slope, contrast, threshold * level, boxes, allowed, len(corners))
        foreground = contrast > threshold * level
        left = [
            box for box in left if not _draw(labels, box, corners[box], owners, foreground, boxes, allowed)
        ]
    return GuessedMasks(labels, left)


def _gradient(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour change, in Lab units a pixel."""
    slopes = cv2.Sobel(colours, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(colours, cv2.CV_32F, 0, 1) ** 2
    return np.sqrt(slopes.sum(axis=-1)) / 8  # a Sobel filter weighs 8


def _nearest_boxes(corners: NDArray[np.int64], height: int, width: int) -> _Boxes:
    nearest = np.zeros((height, width), np.int32)
    radius = np.full((height, width), np.inf, np.float32)
    for number, (x0, y0, x1, y1) in enumerate(corners.tolist(), start=1):
        rows, columns = _window(x0, y0, x1, y1, (REACH - 1) / 2)
        down = (np.arange(rows.start, min(rows.stop, height)) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
        across = (np.arange(columns.start, min(columns.stop, width)) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
        distance = np.hypot(down[:, None], across[None, :]).astype(np.float32)
        nearer = distance < radius[rows, columns]
        radius[rows, columns][nearer] = distance[nearer]
        nearest[rows, columns][nearer] = number
    return _Boxes(nearest, radius)


def _window(x0: int, y0: int, x1: int, y1: int, margin: float) -> tuple[slice, slice]:
    """Rows and columns of a box with a margin in sides of the box; they may end outside the image."""
    across, down = int(margin * (x1 - x0)) + 1, int(margin * (y1 - y0)) + 1
    return slice(max(0, y0 - down), y1 + down), slice(max(0, x0 - across), x1 + across)


def _grow(
    slope: NDArray[np.float32],
    contrast: NDArray[np.float32],
    threshold: float,
    boxes: _Boxes,
    allowed: NDArray[np.bool_],
    count: int,
) -> NDArray[np.int32]:
    """Number of the box that each pixel belongs to, ``count`` + 1 for the surroundings, 0 out of reach."""
    core = boxes.radius <= CORE
    outside = boxes.radius > OUTSIDE
    background = (contrast < SURE_BACKGROUND * threshold) & ~core
    # Pale centres are as bright as the background, but no way leads to them from outside.
    _, regions = cv2.connectedComponents((background | outside).view(np.uint8))
    connected = np.zeros(int(regions.max()) + 1, bool)
    connected[regions[outside]] = True
    markers = np.where(core & allowed, boxes.nearest, 0).astype(np.int32)
    markers[outside | (background & connected[regions])] = count + 1
    return watershed(slope, markers, mask=allowed)


def _draw(
    labels: NDArray[np.int32],
    box: int,
    corners: NDArray[np.int64],
    owners: NDArray[np.int32],
    foreground: NDArray[np.bool_],
    boxes: _Boxes,
    allowed: NDArray[np.bool_],
) -> bool:
    """Add the mask of one box to ``labels``, unless it misses the cell."""
    x0, y0, x1, y1 = corners.tolist()
    # A mask may run a little over its box, but not along a neighbour out of it.
    window = _window(x0, y0, x1, y1, (OUTSIDE - 1) / 2)
    own = owners[window] == box + 1
    found = _hull(_smooth(own & foreground[window], min(x1 - x0, y1 - y0)))
    # The hull may cover what no box has, but not what is a neighbour's.
    free = (owners[window] > boxes.nearest.max()) & (boxes.nearest[window] == box + 1)
    free &= (boxes.radius[window] <= OUTSIDE) & allowed[window]
    found = _largest(found & (own | free) & (labels[window] == 0))
    if found.sum() < MIN_FILL * np.pi / 4 * (x1 - x0) * (y1 - y0):
        return False
    labels[window][found] = box + 1
    return True


def _smooth(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    border = int(CLOSE * side) + 1
    padded = np.pad(mask, border).astype(np.uint8)
    for operation, share in ((cv2.MORPH_CLOSE, CLOSE), (cv2.MORPH_OPEN, OPEN)):
        diameter = 2 * int(share * side) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
        padded = np.asarray(cv2.morphologyEx(padded, operation, disc), np.uint8)
    return _largest(padded[border:-border, border:-border] > 0)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax() if count > 1 else mask


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    points = cv2.findNonZero(mask.astype(np.uint8))
    filled = np.zeros(mask.shape, np.uint8)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled > 0
