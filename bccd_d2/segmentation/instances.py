"""From a semantic mask to one label a cell, at the mask's native size: shrinking a mask first welds touching cells
together, which only a line of 1 to 3 pixels keeps apart.

Components that hold several cells are split by a watershed on the distance transform (Vincent and Soille 1991) with
h-maxima (Soille 2003) as markers, in units of the image's median cell diameter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.structures.cell_size import disc_diameter
from bccd_d2.structures.rle import find_runs

MIN_AREA = 100
"""Smallest component kept, in pixels: real cells cover 5,000 to 10,000, annotation specks a few dozen."""

SMOOTHING = 0.01  # sigma, in median cell diameters, of what smooths the distance map
MIN_COMPONENT = 1.2  # components below this many median cell areas are taken for one cell
MIN_PIECE = 0.25  # a cut that leaves a piece below this many median cell areas is taken back


@dataclass(frozen=True)
class InstanceRule:
    """How instances are made of a mask."""

    min_area: int = MIN_AREA  # pixels; smaller instances are dropped as specks
    min_area_relative: float = 0.0  # so are those below this share of the image's median instance area
    connectivity: int = 8  # or 4, which keeps pixels apart that touch by a corner only
    fill_holes: int = 0  # pixels; background up to this size that one instance encloses is added to it
    # Touching cells are cut apart: a cell is a peak of the distance map that rises by this many median cell diameters
    # above the saddle to any higher one.
    cut: float | None = None

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("min_area", self.min_area >= 1, "at least 1 pixel"),
            ("min_area_relative", 0 <= self.min_area_relative < 1, "a share from 0 to below 1"),
            ("connectivity", self.connectivity in (4, 8), "4 or 8"),
            ("fill_holes", self.fill_holes >= 0, "0 or more pixels"),
            ("cut", self.cut is None or 0 < self.cut < 10, "median cell diameters above 0"),
        ):
            if not fits:
                raise InputError(f"{name} {getattr(self, name)}, expected {expected}")


class LabelledInstances(NamedTuple):
    """Instances of one mask."""

    labels: NDArray[np.int32]  # (height, width), 0 for background and 1..n for instances
    counts: Counter[str]  # what became of the components of the mask, by name


def label_instances(mask: NDArray, rule: InstanceRule = InstanceRule()) -> LabelledInstances:
    """Give each connected component of a mask its own label and drop the specks.

    ``mask`` is (height, width) uint8 or bool at native size, not 0 where there are cells; another shape raises
    ValueError. Labels run without gaps from 1, in column order of each component's first pixel.
    """
    return clean_instances(_components(mask, rule.connectivity), rule)


def label_classes(classes: NDArray[np.uint8], rule: InstanceRule) -> LabelledInstances:
    """Label the components of each class of a semantic mask, uint8 (height, width) with 0 for background; classes
    that touch stay apart. :func:`class_of_labels` tells the class of each label.
    """
    present = np.flatnonzero(np.bincount(classes.ravel(), minlength=1))
    labels = np.zeros(classes.shape, np.int32)
    for value in present[present > 0]:
        inside = classes == value
        components = _components(inside, rule.connectivity)
        components[inside] += int(labels.max())
        labels[inside] = components[inside]
    return clean_instances(labels, rule)


def class_of_labels(labels: NDArray[np.int32], classes: NDArray[np.uint8]) -> dict[int, int]:
    """Commonest class of the pixels of each label, background left out where a filled hole put it inside."""
    inside = (labels > 0) & (classes > 0)
    kinds = int(classes.max(initial=0)) + 1
    counted = np.bincount(
        labels[inside].astype(np.int64) * kinds + classes[inside],
        minlength=(int(labels.max(initial=0)) + 1) * kinds,
    ).reshape(-1, kinds)
    return {label: int(counted[label].argmax()) for label in range(1, len(counted)) if counted[label].any()}


def clean_instances(labels: NDArray, rule: InstanceRule) -> LabelledInstances:
    """Fill holes, drop specks, cut touching cells and number what is left by ascending original label.

    ``labels`` holds (height, width) integers of any kind, 0 for background, each other value one instance.
    """
    runs = find_runs(labels)
    present, inverse = np.unique(runs.values, return_inverse=True)
    # Instance maps may hold any numbers; from here on they are 1..n, and 0 is there even if no pixel has it.
    if not (present.size and present[0] == 0):
        present, inverse = np.concatenate(([0], present)), inverse + 1
    areas = np.bincount(inverse, weights=runs.stops - runs.starts, minlength=present.size)
    components = present.size - 1
    keep = areas >= rule.min_area
    keep[0] = False
    median = float(np.median(areas[keep])) if keep.any() else 0.0
    keep &= areas >= rule.min_area_relative * median
    kept = int(keep.sum())
    lookup = np.zeros(present.size, np.int32)
    lookup[keep] = np.arange(1, kept + 1, dtype=np.int32)
    if kept == present[-1]:  # nothing dropped, and the labels run from 1 already
        compact = labels.astype(np.int32, copy=False)
    else:
        compact = replace(runs, values=inverse.astype(np.int32)).relabelled(lookup)
    holes = cut = added = 0
    if rule.fill_holes:
        compact, holes = _fill_holes(compact, rule)
    if rule.cut is not None and kept:
        compact, cut, added = cut_touching(compact, rule.cut, median)
    counts = {"components": components, "specks dropped": components - kept, "holes filled": holes}
    counts |= {"components cut apart": cut, "instances added by cuts": added}
    return LabelledInstances(compact, Counter(counts))


def _components(mask: NDArray, connectivity: int) -> NDArray[np.int32]:
    if mask.ndim != 2:
        raise ValueError(f"mask of shape {mask.shape}, expected (height, width)")
    # Labelled transposed, because the run-length code that follows walks down the columns.
    columns = np.ascontiguousarray((mask if mask.dtype in (np.uint8, bool) else mask != 0).T).view(np.uint8)
    # Without statistics, which take three times as long as the labels; runs give them for nothing.
    _, labels = cv2.connectedComponents(columns, connectivity=connectivity, ltype=cv2.CV_32S)
    return labels.T.astype(np.int32, copy=False)


def _fill_holes(labels: NDArray[np.int32], rule: InstanceRule) -> tuple[NDArray[np.int32], int]:
    """Give background that one label alone encloses to that label; holes between several labels stay."""
    filled = np.array(labels, order="C")
    height, width = filled.shape
    background = (filled == 0).view(np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(
        background, connectivity=4 if rule.connectivity == 8 else 8, ltype=cv2.CV_32S
    )
    shape = cv2.MORPH_CROSS if rule.connectivity == 8 else cv2.MORPH_RECT
    kernel = cv2.getStructuringElement(shape, (3, 3))
    holes = 0
    for region in range(1, count):
        x, y, w, h, area = stats[region]
        if area > rule.fill_holes or x == 0 or y == 0 or x + w == width or y + h == height:
            continue
        rows, columns = slice(y - 1, y + h + 1), slice(x - 1, x + w + 1)
        hole = (regions[rows, columns] == region).view(np.uint8)
        ring = (cv2.dilate(hole, kernel) > hole) & (regions[rows, columns] == 0)
        around = np.unique(labels[rows, columns][ring])
        if around.size == 1 and around[0] > 0:
            filled[rows, columns][hole.astype(bool)] = around[0]
            holes += 1
    return filled, holes


def cut_touching(
    labels: NDArray[np.int32], depth: float, median_area: float
) -> tuple[NDArray[np.int32], int, int]:
    """Cut labels, int32 (height, width) 1..n without gaps, that look like several cells.

    ``depth`` is the ``cut`` of :class:`InstanceRule`, ``median_area`` that of one cell in pixels. Returns a map in
    which the first piece of a cut label keeps it and the others are numbered from n + 1, how many labels were cut, and
    how many labels that added.
    """
    from scipy.ndimage import find_objects

    areas = np.bincount(labels.ravel(), minlength=1)
    diameter = disc_diameter(median_area)
    windows = find_objects(labels)
    result = np.array(labels, order="C")
    number, cut = len(areas), 0
    for label in np.flatnonzero(areas[1:] > MIN_COMPONENT * median_area) + 1:
        window = windows[label - 1]
        inside = labels[window] == label
        pieces = _pieces(inside, depth, diameter)
        sizes = np.bincount(pieces[inside])[1:]
        if len(sizes) < 2 or sizes.min() < MIN_PIECE * median_area:
            continue
        for piece in range(2, len(sizes) + 1):
            result[window][pieces == piece] = number
            number += 1
        cut += 1
    return result, cut, number - len(areas)


def _pieces(inside: NDArray[np.bool_], depth: float, diameter: float) -> NDArray[np.int32]:
    """Pieces 1..k of one component, int32 of the shape of ``inside``."""
    # Imported where needed: scikit-image takes longer to load than many a conversion, which does not need it.
    from skimage.measure import label as label_regions
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    padded = np.pad(inside.view(np.uint8), 1)
    # Smoothed a little: the ragged outline of an annotated mask makes peaks that are no cells.
    distance = cv2.GaussianBlur(
        cv2.distanceTransform(padded, cv2.DIST_L2, 5), (0, 0), max(1.0, SMOOTHING * diameter)
    )
    distance = np.where(padded, distance, 0)[1:-1, 1:-1]
    markers = label_regions(h_maxima(distance, depth * diameter), connectivity=2)
    return watershed(-distance, markers, mask=inside)
