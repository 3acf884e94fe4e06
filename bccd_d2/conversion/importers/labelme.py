"""LabelMe's JSON, one file per image."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    ellipse,
    parse_coordinate,
    part_of,
    ring,
)
from bccd_d2.errors import InputError
from bccd_d2.files import read_json


def read_labelme_file(path: Path, images: ImageFiles, result: Imported) -> list[ImportedImage]:
    """Read polygons (those of one label and ``group_id`` are one cell), circles, masks and rectangles; points and
    lines are counted.
    """
    document = read_json(path)
    image = ImportedImage(document["imagePath"], path, part=part_of(path.parent.name))
    if not isinstance(image.name, str):
        raise InputError(f"imagePath {image.name!r}, expected a file name")
    # An image is renamed with its JSON more often than in it.
    if not images.match([image.name], str(path)):
        image.name = path.stem
    if document.get("imageHeight") and document.get("imageWidth"):
        image.size = (int(document["imageHeight"]), int(document["imageWidth"]))
    groups: dict[Any, ImportedCell] = {}
    for shape in document["shapes"]:
        cell = _cell(shape)
        if cell is None:
            result.counts[f"LabelMe's {shape.get('shape_type')}, left out"] += 1
            continue
        group = shape.get("group_id")
        known = groups.get((cell.class_name, group)) if group is not None else None
        if known is not None and known.rings and cell.rings:
            known.rings = [*known.rings, *cell.rings]
            continue
        groups[cell.class_name, group] = cell
        image.cells.append(cell)
    return [image]


def _cell(shape: Mapping[str, Any]) -> ImportedCell | None:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    cell = ImportedCell(None if shape["label"] is None else str(shape["label"]))
    xs, ys = [parse_coordinate(p[0], "x") for p in points], [parse_coordinate(p[1], "y") for p in points]
    if kind == "polygon":
        cell.rings = [ring(xs, ys)]
    elif kind == "circle":
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        cell.rings = [ellipse(xs[0], ys[0], radius, radius)]
    elif kind == "rectangle":
        cell.box = (min(xs), min(ys), max(xs), max(ys))
    elif kind == "mask":
        try:
            encoded = np.frombuffer(base64.b64decode(shape["mask"], validate=True), np.uint8)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"mask that is no base64 ({error})") from error
        image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) if encoded.size else None
        if image is None:
            raise InputError("mask that is no image")
        cell.mask = (image > 0, (round(min(xs)), round(min(ys))))
    else:
        return None
    return cell
