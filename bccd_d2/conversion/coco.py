"""COCO instance JSON: written, read back, decoded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError

REQUIRED_LISTS = ("images", "annotations", "categories")
CELL_CATEGORIES = [{"id": 1, "name": "cell"}]


def write_json(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write UTF-8 JSON beside ``path`` and move it into place, so that no half file is ever seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
        beside.chmod(0o644)  # mkstemp makes files that only their owner can read
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_coco(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write a COCO document atomically.

    Args:
        path: file to write; its folder is made where missing.
        document: mapping with at least ``images``, ``annotations`` and ``categories``.

    Raises:
        InputError: one of these lists is missing.
    """
    _require_lists(document, str(path))
    write_json(path, document)


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    if isinstance(segmentation, Mapping) and "counts" in segmentation:
        if list(segmentation.get("size", ())) != [height, width]:
            raise InputError(f"RLE of size {segmentation.get('size')}, expected [{height}, {width}]")
        rle = dict(segmentation)
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
    elif isinstance(segmentation, list) and segmentation:
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        raise InputError(f"segmentation {str(segmentation)[:60]}, expected RLE or a list of polygons")
    return coco_mask.decode(rle)


def _require_lists(document: Any, where: str) -> None:
    if not isinstance(document, Mapping):
        raise InputError(f"{where}: {type(document).__name__} at the top, expected a COCO object")
    for key in REQUIRED_LISTS:
        if not isinstance(document.get(key), list):
            raise InputError(f"{where}: no list {key!r}, expected a COCO instance document")
