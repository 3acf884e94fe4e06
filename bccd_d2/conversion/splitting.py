"""Cutting components that hold several touching cells, by a watershed on the distance to the background.

The watershed on the distance transform goes back to Vincent and Soille (1991); h-maxima are those of Soille,
Morphological Image Analysis (2003). Lengths are given in units of the median cell diameter of the image, so
that one setting serves every magnification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

CutMethod = Literal["h-maxima", "min-distance"]
CUT_METHODS: tuple[CutMethod, ...] = ("h-maxima", "min-distance")
SMOOTHING = 0.01
"""Sigma, in median cell diameters, of what smooths the distance map."""
MIN_COMPONENT = 1.2
"""Components below this many median cell areas are taken for one cell."""
MIN_PIECE = 0.25
"""A cut that leaves a piece below this many median cell areas is taken back."""


@dataclass(frozen=True)
class CutRule:
    """How touching cells are told apart.

    Attributes:
        method: ``h-maxima``: a cell is a peak of the distance map that rises by ``distance`` above the
            saddle to any higher one. ``min-distance``: peaks are at least ``distance`` apart.
        distance: in median cell diameters of the image.
    """

    method: CutMethod = "h-maxima"
    distance: float = 0.01

    def __post_init__(self) -> None:
        if self.method not in CUT_METHODS:
            raise InputError(f"cut method {self.method!r}, expected {' or '.join(CUT_METHODS)}")
        if not 0 < self.distance < 10:
            raise InputError(f"cut distance {self.distance}, expected more than 0 median cell diameters")


def cut_touching(
    labels: NDArray[np.int32], rule: CutRule, median_area: float
) -> tuple[NDArray[np.int32], int, int]:
    """Cut labels that look like several cells.

    Args:
        labels: int32 (height, width), 0 for background, labels 1..n without gaps.
        rule: see :class:`CutRule`.
        median_area: of one cell, in pixels; the median diameter is that of a disc of this area.

    Returns:
        ``(labels, cut, added)``: a map in which the first piece of a cut label keeps it and the others are
        numbered from n + 1, how many labels were cut, and how many labels that added.
    """
    labels = np.ascontiguousarray(labels)
    areas = np.bincount(labels.ravel(), minlength=1)
    diameter = 2 * np.sqrt(median_area / np.pi)
    number = len(areas)
    cut = 0
    boxes = _boxes(labels, number)
    result = labels.copy()
    for label in np.flatnonzero(areas > MIN_COMPONENT * median_area):
        if label == 0:
            continue
        rows, columns = boxes[label]
        inside = labels[rows, columns] == label
        pieces = _pieces(inside, rule, diameter)
        count = int(pieces.max())
        if count < 2 or np.bincount(pieces[inside]).take(range(1, count + 1)).min() < MIN_PIECE * median_area:
            continue
        window = result[rows, columns]
        for piece in range(2, count + 1):
            window[pieces == piece] = number
            number += 1
        cut += 1
    return result, cut, number - len(areas)


def _pieces(inside: NDArray[np.bool_], rule: CutRule, diameter: float) -> NDArray[np.int32]:
    """Pieces 1..k of one component, int32 of the shape of ``inside``."""
    # Imported where needed: scikit-image and SciPy take longer to load than many a conversion, which needs neither.
    from skimage.feature import peak_local_max
    from skimage.measure import label as label_regions
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # Smoothed a little: the ragged outline of a hand-drawn mask makes peaks that are no cells.
    distance = cv2.GaussianBlur(
        cv2.distanceTransform(padded, cv2.DIST_L2, 5), (0, 0), max(1.0, SMOOTHING * diameter)
    )
    distance = np.where(padded, distance, 0)[1:-1, 1:-1]
    step = rule.distance * diameter
    if rule.method == "h-maxima":
        markers = label_regions(h_maxima(distance, step), connectivity=2)
    else:
        markers = np.zeros(inside.shape, np.int32)
        peaks = peak_local_max(
            distance, min_distance=max(1, round(step)), labels=inside.astype(np.int32), exclude_border=False
        )
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=inside)


def _boxes(labels: NDArray[np.int32], count: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each label."""
    from scipy.ndimage import find_objects

    found = find_objects(labels, max_label=max(count - 1, 0))
    return [(slice(0, 0), slice(0, 0)), *(box or (slice(0, 0), slice(0, 0)) for box in found)]
