"""Size and shape of every instance of a label map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects


@dataclass(frozen=True)
class InstanceShapes:
    """Shapes of n instances, in ascending order of their labels; lengths and areas in pixels of the map.

    Attributes:
        labels: int64 (n,) value of each in the map.
        boxes: int64 (n, 4) x, y, width, height.
        areas: int64 (n,) pixels.
        solidities: float64 (n,) area divided by that of the convex hull; 1 for a convex outline.
        disc_shares: float64 (n,) area of the largest disc that fits inside divided by the instance's area: 1 for a
            disc, 0.79 for a square, half as much for two discs side by side.
        border: bool (n,) whether it touches the border of the map.
    """

    labels: NDArray[np.int64]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    solidities: NDArray[np.float64]
    disc_shares: NDArray[np.float64]
    border: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.bool_]) -> InstanceShapes:
        """The instances that a bool (n,) array names."""
        return InstanceShapes(
            self.labels[chosen],
            self.boxes[chosen],
            self.areas[chosen],
            self.solidities[chosen],
            self.disc_shares[chosen],
            self.border[chosen],
        )


def instance_shapes(labels: NDArray[np.integer]) -> InstanceShapes:
    """Measure each label of a map.

    Args:
        labels: (height, width) integers, 0 for background.
    """
    height, width = labels.shape
    rows = []
    for label, place in enumerate(find_objects(np.ascontiguousarray(labels)), start=1):
        if place is None:
            continue
        top, bottom = place[0].start, place[0].stop
        left, right = place[1].start, place[1].stop
        inside = (labels[place] == label).astype(np.uint8)
        area = int(np.count_nonzero(inside))
        border = left == 0 or top == 0 or right == width or bottom == height
        rows.append(
            (label, left, top, right - left, bottom - top, area, *_compactness(inside, area), float(border))
        )
    table = np.array(rows, dtype=np.float64).reshape(-1, 9)
    whole = table.astype(np.int64)
    return InstanceShapes(
        labels=whole[:, 0],
        boxes=whole[:, 1:5],
        areas=whole[:, 5],
        solidities=table[:, 6],
        disc_shares=table[:, 7],
        border=whole[:, 8].astype(bool),
    )


def _compactness(inside: NDArray[np.uint8], area: int) -> tuple[float, float]:
    """Solidity and share of the largest disc of one instance, uint8 (height, width), 1 inside."""
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outlines, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.fillConvexPoly(np.zeros_like(padded), cv2.convexHull(np.concatenate(outlines)), 1)
    # The distance is that from the centre of a pixel to the centre of the nearest one outside; the edge of the
    # disc runs half a pixel before that.
    radius = float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()) - 0.5
    return area / int(np.count_nonzero(hull)), min(1.0, np.pi * radius**2 / area)
