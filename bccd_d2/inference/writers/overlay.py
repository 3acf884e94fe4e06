"""The image with its cells drawn on it, for the eye."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import resize_image
from bccd_d2.inference.result import ImageResult
from bccd_d2.inference.writers.labels import MAX_PICTURE_SIDE
from bccd_d2.io.sources import ImageSource
from bccd_d2.reporting.overlay import draw_cells

_BLOCK = 4096


def write_overlay(result: ImageResult, path: Path) -> None:
    """Write a PNG with every cell outlined in its class's colour, and a legend with counts.

    Images above ``MAX_PICTURE_SIDE`` are shrunk, block after block, so that a slide is never in memory as a whole.
    """
    picture = overview(result.source, MAX_PICTURE_SIDE)
    drawn = draw_cells(
        picture,
        result.cells,
        result.class_names,
        colors=result.colors,
        microns_per_pixel=result.microns_per_pixel,
    )
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
