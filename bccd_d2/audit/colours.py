"""Colours of cells and glass in one image, and whether its mask lies where the cells are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.unlabelled import glass_surface

SAMPLED_PIXELS = 60_000
"""Statistics use a regular sample of about this many pixels, some hundred a cell."""
RIM = 2
"""Pixels of the sample beside a mask that are neither cell nor glass."""
LEVELS = 512


@dataclass(frozen=True)
class ColourStatistics:
    """CIELAB colours (L* 0..100, a* and b* signed) of one image.

    Attributes:
        cell_mean: float64 (3,) of the labelled pixels; not a number where there are none.
        cell_std: float64 (3,).
        glass_mean: float64 (3,) of pixels that neither carry a label nor look like an unlabelled cell.
        glass_std: float64 (3,).
        separation: how well a threshold on the colour tells labelled pixels from all others, as the share of the
            former beyond it less that of the latter (Youden, "Index for rating diagnostic tests", Cancer 3, 1950):
            1 where cells and only cells are labelled, near 0 where the mask might lie anywhere.
        strengths: float64 (labels.max() + 1,), by label, how far the mean colour of the instance lies on the way from
            the glass around it (0) to the typical cell (1).
    """

    cell_mean: NDArray[np.float64]
    cell_std: NDArray[np.float64]
    glass_mean: NDArray[np.float64]
    glass_std: NDArray[np.float64]
    separation: float
    strengths: NDArray[np.float64]


def colour_statistics(
    image: NDArray[np.uint8], labels: NDArray[np.int32], unlabelled: NDArray[np.int32]
) -> ColourStatistics:
    """Measure the colours of one image.

    Args:
        image: uint8 (height, width, 3) RGB.
        labels: int32 (height, width) labelled cells, 0 elsewhere.
        unlabelled: int32 (height, width), not 0 on what looks like a cell and has no label.
    """
    step = max(1, int(np.sqrt(labels.size / SAMPLED_PIXELS)))
    sample = np.ascontiguousarray(image[::step, ::step]).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(sample, cv2.COLOR_RGB2LAB), np.float32)
    numbers = np.ascontiguousarray(labels[::step, ::step])
    cells = numbers > 0
    rest = _clear_of(cells)
    glass = rest & _clear_of(unlabelled[::step, ::step] > 0)
    cell_mean, cell_std = _statistics(lab[cells])
    glass_mean, glass_std = _statistics(lab[glass])
    separation, strengths = float("nan"), np.full(int(labels.max(initial=0)) + 1, np.nan)
    if cells.any() and rest.any():
        # Everything without a label, since under a wrong mask the glass itself looks like unlabelled cells.
        separation = _youden(*(_distance(lab, cells, rest)[where] for where in (cells, rest)))
    if cells.any() and glass.any():
        distance = _distance(lab, cells, glass)
        sums = np.bincount(numbers.ravel(), weights=distance.ravel(), minlength=len(strengths))
        pixels = np.bincount(numbers.ravel(), minlength=len(strengths))
        strengths = np.divide(sums, pixels, out=strengths, where=pixels > 0)
        strengths[0] = np.nan
    return ColourStatistics(cell_mean, cell_std, glass_mean, glass_std, separation, strengths)


def _clear_of(taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are neither ``taken`` nor beside such pixels."""
    kernel = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    return cv2.dilate(taken.view(np.uint8), kernel) == 0


def _distance(
    lab: NDArray[np.float32], cells: NDArray[np.bool_], glass: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """How far each pixel lies on the way from the glass around it (0) to the mean cell (1)."""
    towards = lab[cells].mean(0) - lab[glass].mean(0)
    return np.asarray(
        (lab - glass_surface(lab, glass, degree=1)) @ towards / max(float(towards @ towards), 1e-6),
        np.float32,
    )


def _statistics(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of (n, 3) pixels, not a number where there are none."""
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
