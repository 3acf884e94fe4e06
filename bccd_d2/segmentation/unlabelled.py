"""Pixels that look like cells but carry no mask.

Annotators often leave out cells that the image border cuts. To a model such a cell is background, to an evaluation
it is a false positive; as a region to ignore it is neither. What a cell looks like is learned from the labelled
cells of the same image, so that stain and illumination need no settings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.segmentation.background import background_surface
from bccd_d2.structures.cell_size import disc_diameter

WORKING_DIAMETER = 24
"""Median cell diameter in pixels at which the search runs: a shrunken image loses noise, not cells."""
RIM = 0.10
"""Width of the rim around labelled cells, in median cell diameters, that is not searched: masks are drawn a little
too small or too large."""
EDGE = 0.5  # contrast, as a share of the threshold, down to which a region is grown: its edge is blurred
OPENING = 0.20
"""Diameter, in median cell diameters, of what a region must contain; thinner streaks are no cells."""
EDGE_GAP, EDGE_REACH = 0.075, 0.25
"""The ring that a region is compared with begins and ends this far from it, in median cell diameters: beyond the
blurred rim of a cell, and before haze has faded."""
MIN_RING = 5  # fewer pixels of such a ring say nothing
MIN_AREA = 0.15
"""Smallest region, as a share of the image's median cell area; small enough for a cell that is mostly outside."""
CERTAINTY = 0.5  # where between background (0) and the image's labelled cells (1) the threshold lies
STEP = 0.5
"""How far a region must step out of what lies just around it, the labelled cells doing so by 1: stained haze and cells
far out of focus fade into the background."""


def find_unlabelled(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Regions that look like the labelled cells and are not labelled: int32 (height, width), 0 or the number 1..k
    of a region, never on a labelled pixel; all 0 where the image has no labelled cell to learn from.

    ``image`` is uint8 (height, width, 3) RGB, ``labels`` int32 (height, width), 0 where there is no cell.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    if areas.size == 0:
        return np.zeros(labels.shape, np.int32)
    diameter = disc_diameter(float(np.median(areas)))
    height, width = labels.shape
    scale = min(1.0, WORKING_DIAMETER / diameter)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    labelled = cv2.resize((labels > 0).view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
    near = cv2.dilate(labelled.view(np.uint8), _disc(2 * RIM * diameter * scale)).view(bool)
    if near.all() or not labelled.any():
        return np.zeros(labels.shape, np.int32)
    contrast = _contrast(small.astype(np.float32), labelled, near)
    threshold = CERTAINTY * float(np.median(contrast[labelled]))
    seen = ((contrast > threshold) & ~near).view(np.uint8)
    candidates = _fill(cv2.morphologyEx(seen, cv2.MORPH_OPEN, _disc(OPENING * diameter * scale)))
    candidates[near] = 0
    count, regions, stats, _ = cv2.connectedComponentsWithStats(candidates, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= MIN_AREA * np.median(areas) * scale**2
    keep[0] = False
    clear = ~near & (candidates == 0)
    for region in np.flatnonzero(keep):
        x, y, w, h = stats[region, : cv2.CC_STAT_AREA]
        reach = round(EDGE_REACH * diameter * scale) + 1
        view = np.s_[max(0, y - reach) : y + h + reach, max(0, x - reach) : x + w + reach]
        step = _step(contrast[view], regions[view] == region, clear[view], diameter * scale)
        keep[region] = step >= STEP * np.median(contrast[labelled])
    lookup = np.zeros(count, np.int32)
    lookup[keep] = np.arange(1, int(keep.sum()) + 1)
    # What the opening and the rim took from a region comes back as far as it differs from the background.
    core = lookup[regions].astype(np.float32)
    grown = cv2.dilate(core, _disc(2 * RIM * diameter * scale))
    grown = np.where((core > 0) | (contrast > EDGE * threshold), grown, 0)
    full = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    full[labels > 0] = 0
    return full


def _contrast(
    lab: NDArray[np.float32], labelled: NDArray[np.bool_], near: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """How far each pixel is from the background towards the cells: 0 is background, about 1 the median cell."""
    cells = np.median(lab[labelled], axis=0)
    along = np.zeros(labelled.shape, np.float32)
    background = ~near
    for _ in range(4):
        surface = background_surface(lab, background)
        direction = cells - np.median(surface[labelled], axis=0)
        along = ((lab - surface) @ direction / max(float(direction @ direction), 1e-6)).astype(np.float32)
        # Unlabelled cells are among these pixels; they must not bend the surface.
        background = ~near & (along < 0.3)
        if not background.any():
            background = ~near
    return along


def _step(
    contrast: NDArray[np.float32], inside: NDArray[np.bool_], clear: NDArray[np.bool_], diameter: float
) -> float:
    """How much more contrast a region has than the clear background around it; infinite where cells shut it in."""
    region = inside.view(np.uint8)
    near = cv2.dilate(region, _disc(2 * EDGE_GAP * diameter)).view(bool)
    around = cv2.dilate(region, _disc(2 * EDGE_REACH * diameter)).view(bool) & ~near & clear
    if np.count_nonzero(around) < MIN_RING:
        return np.inf
    return float(np.median(contrast[inside]) - np.median(contrast[around]))


def _fill(mask: NDArray) -> NDArray:
    """``mask`` without its holes: the pale middle of a red cell is part of it."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, cv2.FILLED)


def _disc(diameter: float) -> NDArray:
    side = max(1, 2 * round((diameter - 1) / 2) + 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
