"""Cuts an image into overlapping tiles, and merges what was found in them so that each cell is there once and whole.

A detector does not say exactly the same of a cell in two tiles: the outline differs by a pixel, a clump is one cell
here and two there. So ownership by the centre alone, which suffices for StarDist's big images, would lose a cell whose
centre lies on this side of a border in one tile and on the other in the next, or count it twice. Here tiles are
compared where they overlap:

- A tile owns the cells whose centre lies in its core. It may also report cells a little outside, but such a cell counts
  only if a neighbour reports the same: if their masks agree (IoU above 0.3) where the tiles overlap.
- Of two reports of one cell, that of the tile which shows it whole is kept, then that of its owner, then the better
  score. Cells of one class of which one holds most of the other exclude each other, too.
- A cell larger than the overlap is cut by the border of every tile that shows it. Pieces that agree are joined.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bccd_d2.structures.cells import Cells, concatenate

# Masks of two cells never share as much; those of one small cell in two tiles may share no more.
_SAME_CELL_IOU = 0.3
_CONTAINED_SHARE = 0.7
# A tile may report cells this share of the overlap outside its core.
_MARGIN_SHARE = 0.25
# A box that ends as close to the border of its tile, in pixels, counts as cut: networks do not predict to the pixel.
_TOUCH = 4
# A tile is empty where no level differs by so much within the neighbourhood, in network pixels, after averaging.
_LEAST_CONTRAST = 15
_NEIGHBOURHOOD = 60
_AVERAGED_SIDE = 4


@dataclass(frozen=True)
class Tile:
    """A part of an image, in its native pixels.

    The cells whose centre lies in ``core`` (``x0, y0, x1, y1``) are this tile's. The cores of all tiles share the plane
    out: their borders run through the middle of the overlaps, and the outermost reach to infinity.
    """

    x: int  # left column
    y: int  # upper row
    width: int
    height: int
    core: tuple[float, float, float, float]
    column: int = 0  # number of the tile from the left
    row: int = 0  # number of the tile from above


def plan_tiles(height: int, width: int, size: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Tiles that cover an image, row by row.

    All tiles of an image have one size, at most ``size`` and no larger than as many tiles need to cover it; an image of
    no more pixels than one tile is one tile. At least ``overlap`` (less than ``size``) of a tile lies in its neighbour,
    too. Those of a line are ``multiple`` pixels of the image, a whole number of the network's features, or a multiple
    of it apart, so that the grid of features lies alike in all of them, but for the last, which ends where the image
    ends.
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


def is_empty(image: NDArray[np.uint8]) -> bool:
    """Whether an image (height, width, 3) uint8, as the network sees it, shows nothing but background, however bright,
    tinted or unevenly lit.

    It is empty if, averaged over squares of 4 px, no place differs from another within 60 px by as much as the palest
    cells do: in docs/inference.md are the contrasts of real ones.
    """
    small = cv2.resize(
        image, None, fx=1 / _AVERAGED_SIDE, fy=1 / _AVERAGED_SIDE, interpolation=cv2.INTER_AREA
    )
    window = np.ones((_NEIGHBOURHOOD // _AVERAGED_SIDE,) * 2, np.uint8)
    return bool((cv2.dilate(small, window) - cv2.erode(small, window)).max() < _LEAST_CONTRAST)


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


def candidates(cells: Cells, tile: Tile, height: int, width: int, overlap: float) -> Cells:
    """The cells of one tile, given in its pixels, that :func:`merge_tiles` may need, in pixels of the image.

    ``height`` and ``width`` are those of the image, ``overlap`` that of the tiles in its pixels.
    """
    offset = np.array([tile.x, tile.y, tile.x, tile.y])
    windows = cells.windows + offset
    moved = replace(cells, height=height, width=width, windows=windows, boxes=cells.boxes + offset)
    return moved[_in_core(windows, tile, _MARGIN_SHARE * overlap)]


def merge_tiles(tiles: Sequence[Tile], found: Sequence[Cells]) -> Cells:
    """The cells of an image, best score first, from the :func:`candidates` of each of its :func:`plan_tiles`."""
    cells = concatenate(found)
    own = np.concatenate([_in_core(part.windows, tile) for part, tile in zip(found, tiles)])
    cut = np.concatenate([_is_cut(part, tile) for part, tile in zip(found, tiles)])
    same, excluded = _compare_neighbours(tiles, found)
    reported = [i for i in range(len(cells)) if own[i] or same[i]]
    kept: set[int] = set()
    for i in sorted(reported, key=lambda i: (cut[i], not own[i], -cells.scores[i])):
        pieces = same[i] if cut[i] else set()
        if all(j not in kept or (cut[j] and j in pieces) for j in excluded[i]):
            kept.add(i)
    chosen = sorted(kept)
    position = {i: index for index, i in enumerate(chosen)}
    merged = _join(cells[chosen], [(position[i], position[j]) for i in chosen for j in same[i] & kept])
    alone = sum(bool(cut[i]) and not same[i] for i in chosen)
    if alone:
        logging.getLogger(__name__).warning(
            "%d cells end at the border of a tile and no other tile shows the rest; a larger overlap may help",
            alone,
        )
    return merged[np.argsort(-merged.scores, kind="stable")]


def _in_core(windows: NDArray[np.int64], tile: Tile, margin: float = 0.0) -> NDArray[np.bool_]:
    """(N,) whether the centre of each window, in pixels of the image, lies in the tile's core or close to it."""
    x, y = (windows[:, :2] + windows[:, 2:]).T / 2
    x0, y0, x1, y1 = tile.core
    return (x >= x0 - margin) & (x < x1 + margin) & (y >= y0 - margin) & (y < y1 + margin)


def _is_cut(cells: Cells, tile: Tile) -> NDArray[np.bool_]:
    """(N,) whether each box ends at a border of the tile behind which the image goes on."""
    x0, y0, x1, y1 = cells.boxes.T
    right, lower = tile.x + tile.width, tile.y + tile.height
    return np.asarray(
        ((x0 < tile.x + _TOUCH) & (tile.x > 0))
        | ((y0 < tile.y + _TOUCH) & (tile.y > 0))
        | ((x1 > right - _TOUCH) & (right < cells.width))
        | ((y1 > lower - _TOUCH) & (lower < cells.height))
    )


def _compare_neighbours(
    tiles: Sequence[Tile], found: Sequence[Cells]
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """By cell, counted over all tiles: the cells of other tiles that are the same, and all that exclude it."""
    first = np.cumsum([0, *(len(part) for part in found)])
    same: dict[int, set[int]] = defaultdict(set)
    excluded: dict[int, set[int]] = defaultdict(set)
    for a, b in _neighbours(tiles):
        for i, j, is_same in _compare(found[a], tiles[a], found[b], tiles[b]):
            one, other = int(first[a] + i), int(first[b] + j)
            excluded[one].add(other)
            excluded[other].add(one)
            if is_same:
                same[one].add(other)
                same[other].add(one)
    return same, excluded


def _neighbours(tiles: Sequence[Tile]) -> Iterator[tuple[int, int]]:
    """Indices of tiles side by side or corner to corner, each pair once."""
    places = {(tile.row, tile.column): index for index, tile in enumerate(tiles)}
    for (row, column), index in places.items():
        for place in ((row, column + 1), (row + 1, column - 1), (row + 1, column), (row + 1, column + 1)):
            if place in places:
                yield index, places[place]


def _compare(a: Cells, tile_a: Tile, b: Cells, tile_b: Tile) -> Iterator[tuple[int, int, bool]]:
    """Indices of the cells of two tiles that exclude each other, and whether they are the same cell."""
    rectangle = (
        max(tile_a.x, tile_b.x),
        max(tile_a.y, tile_b.y),
        min(tile_a.x + tile_a.width, tile_b.x + tile_b.width),
        min(tile_a.y + tile_a.height, tile_b.y + tile_b.height),
    )
    x0, y0, x1, y1 = rectangle

    def near(windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.flatnonzero(
            (windows[:, 0] < x1) & (windows[:, 2] > x0) & (windows[:, 1] < y1) & (windows[:, 3] > y0)
        )

    near_a, near_b = near(a.windows), near(b.windows)
    a, b = a[near_a], b[near_b]
    shared = a.intersections(b)
    union = _areas_in(a, rectangle)[:, None] + _areas_in(b, rectangle)[None] - shared
    is_same = shared > _SAME_CELL_IOU * union
    contained = shared > _CONTAINED_SHARE * np.minimum(a.areas[:, None], b.areas[None])
    excluded = is_same | (contained & (a.classes[:, None] == b.classes[None]))
    for i, j in np.argwhere(excluded):
        yield int(near_a[i]), int(near_b[j]), bool(is_same[i, j])


def _areas_in(cells: Cells, rectangle: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """(N,) pixels of each mask inside a rectangle of the image."""
    areas = np.zeros(len(cells), np.int64)
    for index, part, _ in cells.parts(rectangle):
        areas[index] = np.count_nonzero(part)
    return areas


def _join(cells: Cells, links: Sequence[tuple[int, int]]) -> Cells:
    """The cells with those that are linked made one: all their pixels, the box around them, the best one's class."""
    if not links:
        return cells
    number = len(cells)
    graph = coo_array((np.ones(len(links)), np.array(links).T), shape=(number, number))
    count, group = connected_components(graph, directed=False)
    windows, masks, boxes, best = [], [], [], []
    for index in range(count):
        members = np.flatnonzero(group == index)
        window = np.concatenate(
            [cells.windows[members, :2].min(axis=0), cells.windows[members, 2:].max(axis=0)]
        )
        mask = np.zeros((window[3] - window[1], window[2] - window[0]), bool)
        for member in members.tolist():
            x0, y0, x1, y1 = cells.windows[member] - [*window[:2], *window[:2]]
            mask[y0:y1, x0:x1] |= cells.masks[member]
        windows.append(window)
        masks.append(mask)
        boxes.append([*cells.boxes[members, :2].min(axis=0), *cells.boxes[members, 2:].max(axis=0)])
        best.append(members[cells.scores[members].argmax()])
    return replace(cells[best], windows=np.array(windows), masks=masks, boxes=np.array(boxes))
