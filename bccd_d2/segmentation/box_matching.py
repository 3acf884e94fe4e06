"""Which component of a mask an annotated box means, and cutting a component that several boxes share.

A cell fills the ellipse inscribed in its box; the corners often belong to its neighbours. So a box claims the
component that fills most of its ellipse, weighted by how much of that component lies inside the box at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

MIN_FILL = 0.2
"""Least share of a box's ellipse that its components fill; real cells fill 0.5 and more, strangers slip below."""
MOSTLY_INSIDE = 0.7
"""A component with less of it inside its only box is taken for several cells, of which one has a box."""
MIN_INSIDE = 0.9  # least share of a component inside a box to be taken for a piece of the cell in it

SEED = 0.7
"""Radius of the seed of a box, in half sides of the box. Where seeds overlap, the nearer box has the pixel."""
BEYOND = 1.2  # how far from the centre of every box, in half sides, the rest of a component begins


@dataclass
class BoxMatch:
    """Boxes joined with components."""

    claimed: NDArray[np.int32]  # (n,) component claimed by each box, 0 for none
    inside: NDArray[np.float64]  # (n,) share of the claimed component that lies in the box, 0 for none
    areas: NDArray[np.int64]  # pixels of each label from 0
    by_component: dict[int, list[int]] = field(default_factory=dict)  # boxes that claim each component
    # Box by component, for components that no box claims but that lie inside a box.
    pieces: dict[int, int] = field(default_factory=dict)


def match_boxes(labels: NDArray[np.integer], corners: NDArray[np.int64]) -> BoxMatch:
    """Join boxes, (N, 4) x0, y0, x1, y1 inside the image, with the components of a (height, width) label map, 0 for
    background.
    """
    areas = np.bincount(labels.ravel(order="K"), minlength=1)
    claimed = np.zeros(len(corners), np.int32)
    inside = np.zeros(len(corners))
    fills = np.zeros(len(corners))
    shares: dict[int, tuple[float, int]] = {}
    contents = []
    for box, (x0, y0, x1, y1) in enumerate(corners):
        window = labels[y0:y1, x0:x1]
        ellipse = inscribed_ellipse(y1 - y0, x1 - x0)
        found, counts = np.unique(window, return_counts=True)
        found, counts = found[found > 0], counts[found > 0]
        filled = np.bincount(window[ellipse], minlength=len(areas))[found] / max(int(ellipse.sum()), 1)
        share = counts / areas[found]
        contents.append((found, filled, share))
        if found.size:
            best = int((filled * np.sqrt(share)).argmax())
            claimed[box], inside[box], fills[box] = found[best], share[best], filled[best]
    taken = set(claimed[fills >= MIN_FILL].tolist())
    for box, (found, filled, share) in enumerate(contents):
        for component, part, fill in zip(found.tolist(), share.tolist(), filled.tolist()):
            if component in taken or part < MIN_INSIDE:
                continue
            if part > shares.get(component, (0.0, 0))[0]:
                shares[component] = (part, box)
            if component != claimed[box]:
                fills[box] += fill
    missed = fills < MIN_FILL
    claimed[missed], inside[missed] = 0, 0
    match = BoxMatch(claimed, inside, areas)
    for box, component in enumerate(claimed.tolist()):
        if component:
            match.by_component.setdefault(component, []).append(box)
    for component, (_, box) in sorted(shares.items()):
        if component not in match.by_component and claimed[box]:
            match.pieces[component] = box
    return match


def inscribed_ellipse(height: int, width: int) -> NDArray[np.bool_]:
    """Pixels of a (height, width) box whose centres lie in the ellipse inscribed in it."""
    rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in (height, width))
    return rows[:, None] ** 2 + columns[None, :] ** 2 <= 1


def cut_by_boxes(inside: NDArray[np.bool_], boxes: NDArray, min_rest: float = np.inf) -> NDArray[np.int32]:
    """Cut a component, bool (height, width), into one connected piece a box, and what lies beyond the boxes.

    ``boxes`` are (n, 4) x0, y0, x1, y1 in pixels of ``inside``, half-open. A pixel belongs to the box whose centre is
    nearest, in half sides of that box, along a way inside the component. A part outside all boxes of at least
    ``min_rest`` pixels becomes a piece of its own. Returns int32 (height, width), 0 outside, 1..n for the boxes, then
    the rest; a box whose seeds are all taken by its neighbours may come out empty.
    """
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
    return watershed(distance, markers, mask=inside)


def _half_sides(shape: tuple[int, ...], box: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of each row (height, 1) and column (1, width) from the centre of a box, in half sides of it."""
    x0, y0, x1, y1 = (float(side) for side in box)
    down = np.abs(np.arange(shape[0], dtype=np.float32) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    across = np.abs(np.arange(shape[1], dtype=np.float32) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    return down[:, None], across[None, :]
