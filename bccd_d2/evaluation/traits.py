"""What may make a cell hard: its size, how close the next one is, how little it stands out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.structures.cells import Cells

RING_START, RING_END = 2, 8
"""The ring that a cell is compared with begins and ends this many native px from it: beyond the blurred rim."""
MIN_RING = 20
"""Fewer pixels of a ring say nothing."""
CONTRAST_NAMES = ("low", "medium", "high")


def diameters(areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Diameters in px of discs with these areas."""
    return np.sqrt(4 / np.pi * areas)


def gaps(cells: Cells, reach: float) -> NDArray[np.float64]:
    """(N,) pixels of background between each cell and the next one, at the narrowest place.

    0 for cells that touch or overlap; infinite where no other cell is within ``reach`` px.
    """
    result = np.full(len(cells), np.inf)
    margin = int(np.ceil(reach)) + 1
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows)):
        if not mask.any():
            continue
        others, (x, y) = _others_around(cells, index, margin)
        if others.any():
            distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            inside = distance[window[1] - y : window[3] - y, window[0] - x : window[2] - x][mask]
            gap = max(0.0, float(inside.min()) - 1)
            if gap <= reach:
                result[index] = gap
    return result


def contrasts(cells: Cells, green: NDArray[np.uint8]) -> list[float | None]:
    """How much darker each cell is than a ring around it, free of other cells; in levels of 255, ``None`` if crowded.

    Args:
        cells: of the image.
        green: (height, width) its green channel, where stained cells stand out most.
    """
    result: list[float | None] = []
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows)):
        others, (x, y) = _others_around(cells, index, RING_END)
        own = np.zeros(others.shape, np.uint8)
        own[window[1] - y : window[3] - y, window[0] - x : window[2] - x] = mask
        distance = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring = (distance > RING_START) & (distance <= RING_END) & ~others
        levels = green[y : y + others.shape[0], x : x + others.shape[1]]
        if not mask.any() or np.count_nonzero(ring) < MIN_RING:
            result.append(None)
        else:
            result.append(float(levels[ring].mean() - levels[own > 0].mean()))
    return result


def contrast_edges(contrast: Sequence[float | None]) -> tuple[float, float] | None:
    """What parts the thirds of those that have a contrast; ``None`` where none has."""
    known = [value for value in contrast if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    return float(low), float(high)


def contrast_bin(contrast: float | None, edges: tuple[float, float] | None) -> str | None:
    """Name of the third that a contrast falls in; ``None`` where it is not known."""
    if contrast is None or edges is None:
        return None
    return CONTRAST_NAMES[int(np.searchsorted(edges, contrast))]


def _others_around(cells: Cells, index: int, margin: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Pixels of all other cells in the window of one cell grown by ``margin``, and its upper left corner (x, y)."""
    x0, y0 = np.maximum(cells.windows[index, :2] - margin, 0)
    x1, y1 = np.minimum(cells.windows[index, 2:] + margin, [cells.width, cells.height])
    others = np.zeros((y1 - y0, x1 - x0), bool)
    low = np.maximum(cells.windows[:, :2], [x0, y0])
    high = np.minimum(cells.windows[:, 2:], [x1, y1])
    for other in np.flatnonzero((high > low).all(axis=1)).tolist():
        if other != index:
            (left, top), (right, bottom) = low[other], high[other]
            origin = cells.windows[other, :2]
            part = cells.masks[other][
                top - origin[1] : bottom - origin[1], left - origin[0] : right - origin[0]
            ]
            others[top - y0 : bottom - y0, left - x0 : right - x0] |= part
    return others, (int(x0), int(y0))
