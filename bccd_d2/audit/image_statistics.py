"""Shapes of the instances of a label map, and colours of cells and background of an image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.io.background import background_surface

SAMPLED_PIXELS = 60_000
"""Colours are measured on a regular sample of about this many pixels, some hundred per cell."""
RIM = 2
"""Pixels of the sample beside a mask that belong to neither cell nor background."""
LEVELS = 512
"""Thresholds that are tried for the separation of cells and background."""


@dataclass(frozen=True)
class InstanceShapes:
    """Shapes of n instances in ascending order of their labels; lengths and areas in pixels of the map."""

    labels: NDArray[np.int64]  # int64 (n,), value of each in the map
    boxes: NDArray[np.int64]  # int64 (n, 4), x, y, width, height
    areas: NDArray[np.int64]  # int64 (n,)
    solidities: NDArray[np.float64]  # float64 (n,), area divided by that of the convex hull
    # float64 (n,), area of the largest disc inside divided by the instance's area: 1 for a disc, 0.79 for a square,
    # 0.5 for two discs side by side
    disc_shares: NDArray[np.float64]
    border: NDArray[np.bool_]  # bool (n,), whether it touches the border of the map

    def __len__(self) -> int:
        return len(self.labels)


def instance_shapes(labels: NDArray[np.integer]) -> InstanceShapes:
    """Measure each label of a (height, width) map of integers, 0 for background."""
    height, width = labels.shape
    rows = []
    for label, place in enumerate(find_objects(np.ascontiguousarray(labels)), start=1):
        if place is None:
            continue
        (top, bottom), (left, right) = ((side.start, side.stop) for side in place)
        inside = (labels[place] == label).astype(np.uint8)
        area = int(np.count_nonzero(inside))
        border = left == 0 or top == 0 or right == width or bottom == height
        rows.append((label, left, top, right - left, bottom - top, area, border, *_compactness(inside, area)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 9)
    whole = table[:, :7].astype(np.int64)
    return InstanceShapes(
        whole[:, 0], whole[:, 1:5], whole[:, 5], table[:, 7], table[:, 8], whole[:, 6].astype(bool)
    )


def _compactness(inside: NDArray[np.uint8], area: int) -> tuple[float, float]:
    """Solidity and disc share of one instance, uint8 (height, width), 1 inside."""
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.fillConvexPoly(np.zeros_like(padded), cv2.convexHull(np.concatenate(contours)), 1)
    # Distances are between centres of pixels; the edge of the disc runs half a pixel before the next one outside.
    radius = float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()) - 0.5
    return area / int(np.count_nonzero(hull)), min(1.0, np.pi * radius**2 / area)


@dataclass(frozen=True)
class ColourStatistics:
    """CIELAB colours (L* 0..100, a* and b* signed) of one image; NaN where there are no such pixels."""

    cell_mean: NDArray[np.float64]  # float64 (3,), of the labelled pixels
    cell_std: NDArray[np.float64]  # float64 (3,)
    # float64 (3,), of pixels that neither have a label nor look like an unlabelled cell
    background_mean: NDArray[np.float64]
    background_std: NDArray[np.float64]  # float64 (3,)
    # Youden's index (Cancer 3, 1950) of the best colour threshold between labelled pixels and all others: 1 if
    # cells and only cells are labelled, near 0 if the mask is independent of the image.
    separation: float
    # float64 (labels.max() + 1,), by label, where the mean colour of the instance lies between the background
    # around it (0) and the typical cell (1)
    strengths: NDArray[np.float64]


def colour_statistics(
    image: NDArray[np.uint8], labels: NDArray[np.int32], unlabelled: NDArray[np.int32]
) -> ColourStatistics:
    """Measure the colours of one image, uint8 (height, width, 3) RGB. ``labels`` and ``unlabelled``, int32 (height,
    width), are not 0 on labelled cells and on regions that look like a cell and have no label.
    """
    step = max(1, int(np.sqrt(labels.size / SAMPLED_PIXELS)))
    sample = np.ascontiguousarray(image[::step, ::step]).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(sample, cv2.COLOR_RGB2LAB), np.float32)
    numbers = np.ascontiguousarray(labels[::step, ::step])
    cells = numbers > 0
    rest = _clear_of(cells)
    background = rest & _clear_of(unlabelled[::step, ::step] > 0)
    separation, strengths = float("nan"), np.full(int(labels.max(initial=0)) + 1, np.nan)
    if cells.any() and rest.any():
        # Of all pixels without a label: under a wrong mask the background itself looks like unlabelled cells.
        distance = _distance(lab, cells, rest)
        separation = _youden(distance[cells], distance[rest])
    if cells.any() and background.any():
        distance = _distance(lab, cells, background)
        sums = np.bincount(numbers.ravel(), weights=distance.ravel(), minlength=len(strengths))
        pixels = np.bincount(numbers.ravel(), minlength=len(strengths))
        strengths = np.divide(sums, pixels, out=strengths, where=pixels > 0)
        strengths[0] = np.nan
    return ColourStatistics(*_mean_std(lab[cells]), *_mean_std(lab[background]), separation, strengths)


def _clear_of(taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are neither ``taken`` nor beside such pixels."""
    kernel = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    return cv2.dilate(taken.view(np.uint8), kernel) == 0


def _distance(
    lab: NDArray[np.float32], cells: NDArray[np.bool_], background: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Where each pixel lies between the background around it (0) and the mean cell (1)."""
    towards = lab[cells].mean(0) - lab[background].mean(0)
    along = (lab - background_surface(lab, background, degree=1)) @ towards
    return np.asarray(along / max(float(towards @ towards), 1e-6), np.float32)


def _mean_std(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(pixels):
        return np.full(3, np.nan), np.full(3, np.nan)
    return pixels.mean(0, dtype=np.float64), pixels.std(0, dtype=np.float64)


def _youden(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Largest excess of the share of ``positive`` above a threshold over that of ``negative``."""
    low, high = float(min(positive.min(), negative.min())), float(max(positive.max(), negative.max()))
    if high <= low:
        return 0.0
    above = np.histogram(positive, LEVELS, (low, high))[0] / positive.size
    below = np.histogram(negative, LEVELS, (low, high))[0] / negative.size
    return float(max(0.0, np.max(np.cumsum(below) - np.cumsum(above))))
