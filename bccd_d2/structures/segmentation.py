"""COCO segmentations, polygons or RLE, as RLE and as masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.structures.rle import decode_rle, decode_rle_columns

FAR = 4  # polygon coordinates further out than this many image sides are taken for a mistake
MAX_SIDE = 2**24
MAX_OUTLINE = 1_000_000  # pixels along the polygons of one instance; pycocotools takes 120 bytes for each


def decode_segmentation(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> NDArray[np.uint8]:
    """Rasterise a COCO segmentation, RLE (compressed or plain) or a list of polygons ``[x0, y0, x1, y1, ...]``, to
    uint8 (height, width), 1 inside. Raises InputError where it is of another size or form.
    """
    return decode_rle(as_rle(segmentation, height, width))


def decode_columns(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> tuple[NDArray[np.uint8], int]:
    """As :func:`decode_segmentation`, but only the columns that the instance covers: uint8 (height, columns) and
    the number of the first.
    """
    return decode_rle_columns(as_rle(segmentation, height, width))


def as_rle(segmentation: Mapping[str, Any] | list[Any], height: int, width: int) -> Mapping[str, Any]:
    """One COCO segmentation as RLE, whose lengths :func:`bccd_d2.structures.rle.run_lengths` checks. Raises
    InputError as :func:`decode_segmentation`.
    """
    if isinstance(segmentation, Mapping):
        size = segmentation.get("size")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise InputError(f"RLE of size {size}, expected [{height}, {width}]")
        return segmentation
    _require_polygons(segmentation, height, width)
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))


def _require_polygons(segmentation: Any, height: int, width: int) -> None:
    """What can be given to pycocotools, which counts with 32 bits and takes memory by the length of an outline."""
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(f"segmentation {str(segmentation)[:60]!r}, expected RLE or a list of polygons")
    side = max(height, width)
    if side > MAX_SIDE or height * width >= 2**32:
        raise InputError(f"polygons in an image of {width}x{height} pixels, expected RLE in one so large")
    length = 0.0
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"polygon {str(polygon)[:60]!r}, expected [x0, y0, x1, y1, ...] of three points or more"
            )
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= FAR * side:
                raise InputError(f"polygon with coordinate {value!r}, expected numbers within the image")
        points = np.array(polygon, np.float64).reshape(-1, 2)
        length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if length > MAX_OUTLINE:
        raise InputError(f"polygons with an outline of {length:.0f} pixels, expected at most {MAX_OUTLINE}")
