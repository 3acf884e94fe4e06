"""Annotated boxes of Pascal VOC (Everingham et al. 2010) and of BBBC041 (Ljosa et al. 2012)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bccd_d2.conversion.importers.common import ImportedCell, ImportedImage, parse_coordinate, part_of
from bccd_d2.errors import InputError
from bccd_d2.files import read_json, read_xml

VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path) -> ImportedImage:
    """Read one VOC annotation, named after its image whatever it says; raises InputError for anything else.

    VOC counts pixels from 1 and includes the last one; the boxes returned count from 0 and are half-open.
    """
    root = read_xml(path, "a VOC annotation")
    if root.tag != "annotation":
        raise InputError(f"{path}: <{root.tag}> at the top, expected a VOC <annotation>")
    image = ImportedImage(str(path.with_suffix("")), path, part=part_of(path.parent.name))
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"{path}: object {number}"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{where}: no <name>, expected a category")
        box = element.find("bndbox")
        if box is None:
            raise InputError(f"{where}: no <bndbox>, expected one")
        texts = [(box.findtext(key) or "").strip() for key in VOC_CORNERS]
        x0, y0, x1, y1 = _corners(texts, [f"{where}: {key}" for key in VOC_CORNERS], where)
        difficult = (element.findtext("difficult") or "").strip() in ("1", "true", "True")
        image.cells.append(ImportedCell(name, box=(x0 - 1, y0 - 1, x1, y1), unsure=difficult))
    height, width = (
        int(parse_coordinate((root.findtext(f"size/{key}") or "0").strip(), f"{path}: size: {key}"))
        for key in ("height", "width")
    )
    image.size = (height, width) if height and width else None  # some tools write 0 for unknown
    return image


def read_bbbc041(path: Path) -> Iterator[ImportedImage]:
    """Read BBBC041's list with one entry per image; raises InputError for another file::

        [{"image": {"pathname": "/images/UUID.png", "shape": {"r": 1200, "c": 1600, "channels": 3}},
          "objects": [{"bounding_box": {"minimum": {"r": 0, "c": 0}, "maximum": {"r": 98, "c": 101}},
                       "category": "red blood cell"}]}]

    The maximum of a box is taken as the first row and column after it: boxes at the border reach the image's size.
    """
    document = read_json(path)
    if not isinstance(document, list):
        raise InputError(f"{path}: {type(document).__name__} at the top, expected BBBC041's list of images")
    for number, entry in enumerate(document):
        where = f"{path}: entry {number}"
        described = _get(entry, "image", Mapping, where)
        image = ImportedImage(_get(described, "pathname", str, where), path)
        where = f"{where} ({image.name})"
        if described.get("shape") is not None:
            shape = _get(described, "shape", Mapping, where)
            height, width = (int(parse_coordinate(shape.get(key), f"{where}: shape: {key}")) for key in "rc")
            image.size = (height, width)
        for index, item in enumerate(_get(entry, "objects", list, where)):
            here = f"{where}: object {index}"
            box = _get(item, "bounding_box", Mapping, here)
            ends = [
                (_get(box, end, Mapping, here), end, key) for end in ("minimum", "maximum") for key in "cr"
            ]
            places = [f"{here}: {end}: {key}" for _, end, key in ends]
            corners = _corners([corner.get(key) for corner, _, key in ends], places, here)
            image.cells.append(ImportedCell(_get(item, "category", str, here), box=corners))
        yield image


def _corners(values: list[Any], places: list[str], where: str) -> tuple[int, int, int, int]:
    """Whole pixels of x0, y0, x1, y1, rounded outwards."""
    x0, y0, x1, y1 = map(parse_coordinate, values, places)
    if x1 < x0 or y1 < y0:
        raise InputError(
            f"{where}: box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}), expected minimum before maximum"
        )
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _get(content: Any, key: str, kind: type, where: str) -> Any:
    """``content[key]``, which must be of ``kind``."""
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, kind):
        found = f"{key!r}: {str(value)[:40]!r}" if value is not None else f"no {key!r}"
        expected = "a list" if kind is list else "a text" if kind is str else "an object"
        raise InputError(f"{where}: {found}, expected {expected}")
    return value
