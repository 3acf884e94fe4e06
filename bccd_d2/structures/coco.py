"""COCO instance JSON: written, read back, decoded."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.files import write_json
from bccd_d2.structures.rle import decode_rle, decode_rle_columns

logger = logging.getLogger(__name__)
PARTS = ("train", "val", "test")
"""What a data set is split into; each has a COCO JSON of its own."""
REQUIRED_LISTS = ("images", "annotations", "categories")
FAR = 4
"""Polygon coordinates further out than this many image sides are taken for a mistake."""
MAX_SIDE = 2**24
MAX_OUTLINE = 1_000_000
"""Pixels along the polygons of one instance; pycocotools takes 120 bytes for each."""


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
    """Read a COCO instance document; what annotation tools are known to get wrong is repaired, and said in the log.

    Raises:
        InputError: the file is no JSON, lacks ``images``, ``annotations`` or ``categories``, or see
            :func:`check_entries`.
    """
    from bccd_d2.structures.coco_repair import log_repairs, repair_coco  # which decodes with this module

    document = read_json(path)
    _require_lists(document, str(path))
    document, repairs = repair_coco(document)
    log_repairs(path, repairs)
    check_entries(document, str(path))
    return document


def image_root(document: Mapping[str, Any], path: Path) -> Path:
    """Folder that ``file_name`` is relative to: as ``info.image_root`` says, seen from the folder above annotations/.

    Args:
        document: that was read from ``path``.
        path: of the JSON.

    Raises:
        InputError: ``info`` says something else than a path.
    """
    info = document.get("info") or {}
    written = info.get("image_root", "") if isinstance(info, Mapping) else None
    if not isinstance(written, str):
        raise InputError(f"{path}: info {str(info)[:60]!r}, expected an object with the path 'image_root'")
    if not written:
        from bccd_d2.structures.coco_repair import find_image_folder

        return find_image_folder(document, path) or path.parent.parent
    return path.parent.parent / written


def read_json(path: Path | str) -> Any:
    """Read JSON in UTF-8, with a byte order mark or without, or in the cp1252 of Windows.

    Raises:
        InputError: there is no such file or it holds no JSON.
    """
    try:
        content = Path(path).read_bytes()
        try:
            return json.loads(content.decode("utf-8-sig"))
        except UnicodeDecodeError:
            document = json.loads(content.decode("cp1252"))
            logger.warning("%s: not UTF-8, read as cp1252", path)
            return document
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    # ValueError: no JSON, no UTF-8, or a number of 10,000 digits
    except (ValueError, RecursionError) as error:
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
    return decode_rle(as_rle(segmentation, height, width))


def decode_columns(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> tuple[NDArray[np.uint8], int]:
    """As :func:`decode_segmentation`, in time that goes with the width of the instance and not of the image.

    Returns:
        uint8 array (height, columns), 1 inside, and the number of the first column.

    Raises:
        InputError: as :func:`decode_segmentation`.
    """
    return decode_rle_columns(as_rle(segmentation, height, width))


def as_rle(segmentation: Mapping[str, Any] | list[Any], height: int, width: int) -> Mapping[str, Any]:
    """One COCO segmentation as RLE, whose lengths :func:`bccd_d2.structures.rle.run_lengths` checks.

    Raises:
        InputError: as :func:`decode_segmentation`.
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


def check_entries(document: Mapping[str, Any], where: str) -> None:
    """Refuse a document whose entries lack what every reader of COCO files goes by.

    Args:
        document: with the lists ``images``, ``annotations`` and ``categories``.
        where: what messages call it.

    Raises:
        InputError: a category lacks a number or a name, or shares them; an image lacks its number, name or size, or
            shares the number; an annotation is of no such image or category, or has no segmentation.
    """
    if not document["categories"]:
        raise InputError(f"{where}: no categories")
    expected: dict[str, dict[str, type]] = {
        "categories": {"id": int, "name": str},
        "images": {"id": int, "file_name": str, "height": int, "width": int},
    }
    numbers: dict[str, set[int]] = {}
    for key, kinds in expected.items():
        seen = numbers[key] = set()
        for entry in document[key]:
            for name, kind in kinds.items():
                value = entry.get(name) if isinstance(entry, Mapping) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise InputError(
                        f"{where}: one of the {key} has {name} {value!r}, expected {kind.__name__}"
                    )
            if entry["id"] in seen:
                raise InputError(f"{where}: two of the {key} have the id {entry['id']}")
            seen.add(entry["id"])
    names = [category["name"] for category in document["categories"]]
    if len(set(names)) < len(names):
        raise InputError(f"{where}: categories {names}, expected each name once")
    for image in document["images"]:
        if image["height"] < 1 or image["width"] < 1:
            raise InputError(f"{where}: image {image['id']} of {image['height']} x {image['width']} pixels")
    for annotation in document["annotations"]:
        _check_annotation(annotation, where, numbers["images"], numbers["categories"])


def unlabeled_categories(document: Mapping[str, Any], image: Mapping[str, Any], where: str) -> list[str]:
    """Names of the classes that are not annotated in an image, or not completely.

    ``unlabeled_categories`` of the image wins over that of ``info``.

    Raises:
        InputError: it is no list of names of categories.
    """
    listed = [category["name"] for category in document["categories"]]
    names = {**(document.get("info") or {}), **image}.get("unlabeled_categories", [])
    if not isinstance(names, list) or not all(name in listed for name in names):
        raise InputError(
            f"{where}, image {image.get('file_name')!r}: unlabeled_categories {names!r}, expected a list of names "
            f"among {', '.join(listed)}"
        )
    return names


def is_among(value: Any, numbers: Container[Any]) -> bool:
    """Whether ``value``, which may be anything that JSON can hold, is one of the numbers."""
    return isinstance(value, int | float) and value in numbers


def _check_annotation(annotation: Any, where: str, images: set[int], classes: set[int]) -> None:
    if not isinstance(annotation, Mapping):
        raise InputError(f"{where}: {type(annotation).__name__} among the annotations, expected an object")
    name = f"{where}, annotation {annotation.get('id')!r}"
    if not is_among(annotation.get("image_id"), images):
        raise InputError(f"{name}: image {annotation.get('image_id')!r} is not among the images")
    if not is_among(annotation.get("category_id"), classes):
        raise InputError(
            f"{name}: category {annotation.get('category_id')!r}, expected one of {sorted(classes)}"
        )
    if not annotation.get("segmentation"):
        raise InputError(f"{name}: no segmentation")
    if not isinstance(annotation.get("id", 0), int | float | str):
        raise InputError(f"{name}: expected a number for an id")


def _require_lists(document: Any, where: str) -> None:
    if not isinstance(document, Mapping):
        raise InputError(f"{where}: {type(document).__name__} at the top, expected a COCO object")
    for key in REQUIRED_LISTS:
        if not isinstance(document.get(key), list):
            raise InputError(f"{where}: no list {key!r}, expected a COCO instance document")
