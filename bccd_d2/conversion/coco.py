"""COCO instance JSON: written, read back, decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.conversion.rle import decode_rle, decode_rle_columns
from bccd_d2.errors import InputError
from bccd_d2.files import write_json

REQUIRED_LISTS = ("images", "annotations", "categories")
FAR = 4
"""Polygon coordinates further out than this many image sides are taken for a mistake."""


def write_coco(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write a COCO document atomically.

    Args:
        path: file to write; its folder is made where missing.
        document: mapping with at least ``images``, ``annotations`` and ``categories``.

    Raises:
        InputError: one of these lists is missing.
    """
    _require_lists(document, str(path))
    write_json(Path(path), document)


def read_coco(path: Path | str) -> dict[str, Any]:
    """Read a COCO instance document.

    Raises:
        InputError: the file is no JSON or lacks ``images``, ``annotations`` or ``categories``.
    """
    document = read_json(path)
    _require_lists(document, str(path))
    return document


def read_json(path: Path | str) -> Any:
    """Read UTF-8 JSON.

    Raises:
        InputError: there is no such file or it holds no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: no JSON, no UTF-8, or a number of 10,000 digits
        raise InputError(f"{path}: not JSON ({error})") from error


def decode_segmentation(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> NDArray[np.uint8]:
    """Rasterise one COCO segmentation.

    Args:
        segmentation: compressed RLE (``counts`` str or bytes), plain RLE (``counts`` list) or a list of
            polygons ``[x0, y0, x1, y1, ...]``.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        uint8 array (height, width), 1 inside.

    Raises:
        InputError: the RLE is of another size, or the segmentation has none of these forms.
    """
    return decode_rle(_as_rle(segmentation, height, width))


def decode_columns(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> tuple[NDArray[np.uint8], int]:
    """As :func:`decode_segmentation`, in time that goes with the width of the instance and not of the image.

    Returns:
        uint8 array (height, columns), 1 inside, and the number of the first column.

    Raises:
        InputError: as :func:`decode_segmentation`.
    """
    return decode_rle_columns(_as_rle(segmentation, height, width))


def _as_rle(segmentation: Mapping[str, Any] | list[Any], height: int, width: int) -> Mapping[str, Any]:
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size") or ()) != [height, width]:
            raise InputError(f"RLE of size {segmentation.get('size')}, expected [{height}, {width}]")
        return segmentation
    _require_polygons(segmentation, max(height, width))
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))


def _require_polygons(segmentation: Any, side: int) -> None:
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(f"segmentation {str(segmentation)[:60]!r}, expected RLE or a list of polygons")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"polygon {str(polygon)[:60]!r}, expected [x0, y0, x1, y1, ...] of three points or more"
            )
        for value in polygon:
            # Rasterising takes memory in proportion to the length of the outline.
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= FAR * side:
                raise InputError(f"polygon with coordinate {value!r}, expected numbers within the image")


def _require_lists(document: Any, where: str) -> None:
    if not isinstance(document, Mapping):
        raise InputError(f"{where}: {type(document).__name__} at the top, expected a COCO object")
    for key in REQUIRED_LISTS:
        if not isinstance(document.get(key), list):
            raise InputError(f"{where}: no list {key!r}, expected a COCO instance document")
