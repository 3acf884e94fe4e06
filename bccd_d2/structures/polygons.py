"""Outlines of masks as COCO polygons that rasterise back to the same pixels, holes included; masks of outlines.

The outline follows the edges between pixels, not their centres, so nothing is lost by half a pixel. COCO knows no
holes; a hole is joined to its outline by a seam that is walked forth and back, which every even-odd fill cancels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.structures.rle import decode_rle

Ring = list[tuple[int, int]]


def mask_to_polygons(mask: NDArray, x: int = 0, y: int = 0) -> list[list[int]]:
    """COCO polygons ``[x0, y0, x1, y1, ...]`` of a (height, width) mask, not 0 inside, one for each connected part.

    Coordinates are those of pixel edges: the pixel in row r and column c is the square from (c, r) to (c + 1, r +
    1). ``x`` and ``y`` are added, for a mask that was cut out of an image.
    """
    polygons = []
    for part in mask_to_rings(mask, x, y):
        joined: Ring = []
        for ring in part:
            joined = _join(joined, ring)
        polygons.append([value for point in joined for value in point])
    return polygons


def fill_rings(
    rings: Sequence[NDArray[np.float64]], height: int, width: int
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Pixels that lie in an odd number of closed rings, each (P, 2) x and y in pixels of an image, coordinates as in
    :func:`mask_to_polygons`: a bool array cut down to the rings, and the (x, y) of its upper left pixel in the image;
    what lies beyond an image of ``height`` and ``width`` is cut off.
    """
    points = np.concatenate(rings)
    x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int), 0, [width, height]).tolist()
    x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, [width, height]).tolist()
    inside = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), bool)
    if inside.size:
        for ring in rings:
            (rle,) = coco_mask.frPyObjects([(ring - [x0, y0]).ravel().tolist()], *inside.shape)
            inside ^= decode_rle(rle).astype(bool)
    return inside, (x0, y0)


def mask_to_rings(mask: NDArray, x: int = 0, y: int = 0) -> list[list[Ring]]:
    """Outlines of a mask, coordinates as in :func:`mask_to_polygons`: for each 4-connected part its outer ring and
    then those of its holes, corners only, the first of which is not repeated.

    Every ring is simple, and two of them meet in single points at most, so that a part is a valid polygon with
    holes in the sense of the OGC.
    """
    count, parts = cv2.connectedComponents((np.asarray(mask) != 0).astype(np.uint8), connectivity=4)
    return [
        [[(px + x, py + y) for px, py in ring] for ring in _rings(parts == part)] for part in range(1, count)
    ]


def _rings(inside: NDArray[np.bool_]) -> list[Ring]:
    """Closed outlines of a 4-connected part, corners only, the outer one first."""
    padded = np.pad(inside, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # Directed pixel edges with the inside on their right; (dx, dy) is the neighbour beyond the edge.
    for dx, dy, start, end in (
        (0, -1, (0, 0), (1, 0)),
        (1, 0, (1, 0), (1, 1)),
        (0, 1, (1, 1), (0, 1)),
        (-1, 0, (0, 1), (0, 0)),
    ):
        beyond = np.roll(padded, (-dy, -dx), axis=(0, 1))
        for row, column in zip(*np.nonzero((padded & ~beyond)[1:-1, 1:-1])):
            following[int(column) + start[0], int(row) + start[1]].append(
                (int(column) + end[0], int(row) + end[1])
            )
    rings = []
    while following:
        # The topmost, then leftmost point lies on the outer outline.
        first = min(following, key=lambda point: (point[1], point[0]))
        ring: Ring = []
        point, direction = first, (1, 0)
        while point in following:
            choices = following[point]
            # Where two outlines touch at a corner, a hole and the outer one or two holes, the turn away from the
            # inside keeps them apart; the other one would make a single ring of them that touches itself.
            choice = (
                choices[0] if len(choices) == 1 else min(choices, key=lambda p: _turn(direction, point, p))
            )
            choices.remove(choice)
            if not choices:
                del following[point]
            new_direction = (choice[0] - point[0], choice[1] - point[1])
            if new_direction != direction or not ring:
                ring.append(point)
            point, direction = choice, new_direction
        rings.append(ring)
    return rings


def _turn(direction: tuple[int, int], point: tuple[int, int], target: tuple[int, int]) -> int:
    """Positive for a turn to the right, in image coordinates with y downwards."""
    return direction[0] * (target[1] - point[1]) - direction[1] * (target[0] - point[0])


def _join(polygon: Ring, ring: Ring) -> Ring:
    """Insert ``ring`` into ``polygon`` by a seam between their nearest corners."""
    if not polygon:
        return ring
    a, b = np.array(polygon), np.array(ring)
    distance = ((a[:, None, :] - b[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    return polygon[: i + 1] + ring[j:] + ring[: j + 1] + polygon[i:]
