"""How an image is cut into overlapping tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Tile:
    """A part of an image, in its native pixels.

    Attributes:
        x: left column.
        y: upper row.
        width: columns.
        height: rows.
        core: ``x0, y0, x1, y1``: the part of the plane whose cells are this tile's. The cores of all tiles share the
            plane out: their borders run through the middle of the overlaps, and the outermost reach to infinity.
        column: number of the tile from the left.
        row: number of the tile from above.
    """

    x: int
    y: int
    width: int
    height: int
    core: tuple[float, float, float, float]
    column: int = 0
    row: int = 0


def plan_tiles(height: int, width: int, size: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Tiles that cover an image, row by row.

    All tiles of an image have one size, no larger than as many tiles need to cover it. Those of a line are ``multiple``
    pixels or a multiple of it apart, so that the grid of features lies alike in all of them, but for the last,
    which ends where the image ends.

    Args:
        height: of the image.
        width: of the image.
        size: largest side of a tile; an image of no more pixels than one tile is one tile.
        overlap: at least so much of a tile lies in its neighbour, too; less than ``size``.
        multiple: pixels of the image that are a whole number of the network's features.
    """
    if height * width <= size * size:
        return [Tile(0, 0, width, height, (-math.inf, -math.inf, math.inf, math.inf))]
    (xs, tile_width), (ys, tile_height) = (_line(side, size, overlap, multiple) for side in (width, height))
    cores_x, cores_y = _cores(xs, tile_width), _cores(ys, tile_height)
    return [
        Tile(x, y, tile_width, tile_height, (x0, y0, x1, y1), column, row)
        for row, (y, (y0, y1)) in enumerate(zip(ys, cores_y))
        for column, (x, (x0, x1)) in enumerate(zip(xs, cores_x))
    ]


def _line(length: int, size: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Where the tiles of a line start, and how long they are."""
    if length <= size:
        return [0], length
    step = max(1, size - overlap)
    if step < multiple:
        multiple = 1
    number = math.ceil((length - overlap) / (step // multiple * multiple))
    # Evenly spread: with tiles of full size the last of a line would do much of its neighbour's work again.
    step = math.ceil((length - overlap) / number / multiple) * multiple
    size = min(size, step + overlap)
    return [step * index for index in range(number - 1)] + [length - size], size


def _cores(starts: list[int], size: int) -> list[tuple[float, float]]:
    borders = [(start + size + following) / 2 for start, following in pairwise(starts)]
    return list(zip([-math.inf, *borders], [*borders, math.inf]))
