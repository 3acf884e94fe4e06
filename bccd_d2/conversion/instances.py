"""From a semantic mask to one label a cell, at the mask's native size.

Masks are labelled before anything is resized: touching cells are kept apart by a line of 1 to 3 pixels, and
shrinking the mask first welds them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_AREA = 100
"""Smallest component kept, in pixels: real cells cover 5,000 to 10,000, annotation specks a few dozen."""


@dataclass(frozen=True)
class InstanceCounts:
    """What became of the components of one mask."""

    components: int = 0
    kept: int = 0
    specks: int = 0

    def __add__(self, other: InstanceCounts) -> InstanceCounts:
        return InstanceCounts(
            self.components + other.components, self.kept + other.kept, self.specks + other.specks
        )


class LabelledInstances(NamedTuple):
    """Label map int32 (height, width), 0 for background and 1..n for instances, with the counts behind it."""

    labels: NDArray[np.int32]
    counts: InstanceCounts


def label_instances(
    mask: NDArray[np.uint8], *, min_area: int = MIN_AREA, connectivity: int = 8
) -> LabelledInstances:
    """Give each connected component of a mask its own label and drop the specks.

    Args:
        mask: (height, width) uint8 or bool, not 0 where there are cells, at native size.
        min_area: components of fewer pixels are dropped.
        connectivity: 4 or 8; pixels that touch by a corner only belong together under 8.

    Returns:
        ``(labels, counts)``; the labels run without gaps from 1, in column order of each component's first
        pixel.

    Raises:
        ValueError: the mask is not two-dimensional or ``connectivity`` is neither 4 nor 8.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask of shape {mask.shape}, expected (height, width)")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity {connectivity}, expected 4 or 8")
    # Labelled transposed, because the run-length code that follows walks down the columns.
    columns = np.ascontiguousarray(mask.T.view(np.uint8) if mask.dtype == bool else mask.T)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        columns, connectivity=connectivity, ltype=cv2.CV_32S
    )
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False
    kept = int(keep.sum())
    if kept < count - 1:
        lookup = np.zeros(count, np.int32)
        lookup[keep] = np.arange(1, kept + 1, dtype=np.int32)
        labels = lookup[labels]
    return LabelledInstances(
        labels.T.astype(np.int32, copy=False), InstanceCounts(count - 1, kept, count - 1 - kept)
    )
