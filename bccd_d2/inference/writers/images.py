"""Images: which cell each pixel belongs to, and the image with its cells drawn on it."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import resize_image
from bccd_d2.drawing.overlay import draw_cells
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.colours import typed_classes
from bccd_d2.io.sources import ImageSource
from bccd_d2.structures.cells import Cells

TILE = 512
MAX_PICTURE_SIDE = 4096
"""Longest side of label pictures and overlays, pixels."""
_BLOCK = 4096

# What a TIFF with 32-bit offsets can hold, with room for its tables.
_CLASSIC_TIFF_BYTES = 2**32 - 2**25

# BGR: hues a tenth of the circle apart, every other one paler.
_PALETTE = np.array(
    [
        np.rint(np.array(colorsys.hsv_to_rgb(hue / 10, (0.9, 0.5)[hue % 2], 1.0))[::-1] * 255)
        for hue in range(10)
    ],
    np.uint8,
)


def write_label_image(result: ImageResult, path: Path) -> None:
    """Write a tiled TIFF of the image's size: 0 for the background, i for the cell with ``id`` i.

    16 bits per pixel, 32 from the 65536th cell on; where cells overlap, the pixel is that of the better score.
    """
    cells = result.cells
    dtype = np.uint16 if len(cells) <= np.iinfo(np.uint16).max else np.uint32
    resolution = None
    if result.microns_per_pixel is not None:
        resolution = (10_000 / result.microns_per_pixel,) * 2
    tifffile.imwrite(
        path,
        _tiles(cells, dtype),
        shape=(cells.height, cells.width),
        dtype=dtype,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="minisblack",
        bigtiff=cells.height * cells.width * np.dtype(dtype).itemsize > _CLASSIC_TIFF_BYTES,
        resolution=resolution,
        resolutionunit="CENTIMETER" if resolution else None,
        metadata=None,
    )


def write_label_picture(result: ImageResult, path: Path) -> None:
    """Write the label image as PNG with one colour per cell on black; images above MAX_PICTURE_SIDE are shrunk."""
    cells = result.cells
    step = max(1, -(-max(cells.height, cells.width) // MAX_PICTURE_SIDE))
    picture = np.zeros((-(-cells.height // step), -(-cells.width // step), 3), np.uint8)
    colors = instance_colors(cells)
    for band, labels in _bands(cells):
        first = -(-band // step) * step
        picture[first // step : -(-(band + len(labels)) // step)] = colors[
            labels[first - band :: step, ::step]
        ]
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def instance_colors(cells: Cells) -> NDArray[np.uint8]:
    """(N + 1, 3) uint8 BGR: black, and colours that differ between neighbours, as long as there are enough."""
    chosen = np.zeros(len(cells), np.int64)
    for index, (x0, y0, x1, y1) in enumerate(cells.windows):
        before = cells.windows[:index]
        beside = (before[:, 0] <= x1) & (before[:, 2] >= x0) & (before[:, 1] <= y1) & (before[:, 3] >= y0)
        taken = np.bincount(chosen[:index][beside], minlength=len(_PALETTE))
        # The first of the least used, counted from another one for each cell, so that all colours occur.
        chosen[index] = (index + np.roll(taken, -index).argmin()) % len(_PALETTE)
    return np.concatenate([np.zeros((1, 3), np.uint8), _PALETTE[chosen]])


def _bands(cells: Cells) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """First row and (TILE or fewer, width) labels of each band of the image, so that only one is in memory."""
    order = np.argsort(cells.scores, kind="stable")
    cells = cells[order]
    for row in range(0, cells.height, TILE):
        labels = np.zeros((min(TILE, cells.height - row), cells.width), np.int32)
        for rank, part, place in cells.parts((0, row, cells.width, row + len(labels))):
            labels[place][part] = order[rank] + 1
        yield row, labels


def _tiles(cells: Cells, dtype: type[np.unsignedinteger]) -> Iterator[NDArray]:
    """Tiles in the order of a TIFF, those at the right and lower border filled up with background."""
    for _, labels in _bands(cells):
        for column in range(0, cells.width, TILE):
            tile = np.zeros((TILE, TILE), dtype)
            part = labels[:, column : column + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def write_overlay(result: ImageResult, path: Path) -> None:
    """Write a PNG with every cell outlined in the colour of its class or type, and a legend with counts.

    Images above ``MAX_PICTURE_SIDE`` are shrunk, block after block, so that a slide is never in memory as a whole.
    """
    picture = overview(result.source, MAX_PICTURE_SIDE)
    cells, names, colors = typed_classes(result)
    drawn = draw_cells(picture, cells, names, colors=colors, microns_per_pixel=result.microns_per_pixel)
    path.write_bytes(cv2.imencode(".png", drawn)[1].tobytes())


def overview(source: ImageSource, max_side: int) -> NDArray[np.uint8]:
    """The image, shrunk so that no side is above ``max_side``; (height, width, 3) uint8 BGR."""
    scale = min(1.0, max_side / max(source.height, source.width))
    if scale == 1.0:
        return source.read(0, 0, source.width, source.height)
    xs, ys = (np.append(np.arange(0, side, _BLOCK), side) for side in (source.width, source.height))
    # Blocks begin and end at whole pixels of the shrunken image.
    columns, rows = (np.maximum(1, np.rint(edges * scale)).astype(int) * (edges > 0) for edges in (xs, ys))
    picture = np.empty((rows[-1], columns[-1], 3), np.uint8)
    for y0, y1, top, bottom in zip(ys[:-1], ys[1:], rows[:-1], rows[1:]):
        for x0, x1, left, right in zip(xs[:-1], xs[1:], columns[:-1], columns[1:]):
            block = source.read(int(x0), int(y0), int(x1 - x0), int(y1 - y0))
            if bottom > top and right > left:
                picture[top:bottom, left:right] = resize_image(block, bottom - top, right - left)
    return picture
