"""The VGG Image Annotator's JSON, project and CSV (version 2), and its project (version 3)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    class_of_attributes,
    ellipse,
    parse_coordinate,
    part_of,
    ring,
)
from bccd_d2.errors import InputError
from bccd_d2.files import read_json

PROJECT_3 = frozenset({"attribute", "file", "metadata", "view"})
"""Keys of a project of version 3."""
_SHAPES_3 = {
    1: ("point", ("cx", "cy")),
    2: ("rect", ("x", "y", "width", "height")),
    3: ("circle", ("cx", "cy", "r")),
    4: ("ellipse", ("cx", "cy", "rx", "ry")),
    5: ("line", ()),
    6: ("polyline", ()),
    7: ("polygon", ()),
    8: ("extreme points of a rectangle", ()),
    9: ("extreme points of a circle", ()),
}
"""Shapes of version 3 by number, as version 2 names them and their numbers."""
CSV_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


def read_via_file(path: Path, images: ImageFiles, result: Imported) -> Iterable[ImportedImage]:
    """Read polygons, circles, ellipses and rectangles; points and lines are counted. Raises InputError for regions
    with several attributes of which none is the class.
    """
    by_name: dict[str, ImportedImage] = {}
    for name, shape, attributes in _rows(path):
        image = by_name.setdefault(name, ImportedImage(name, path, part=part_of(path.parent.name)))
        if not shape:
            continue
        cell = _cell(shape, class_of_attributes(attributes, f"{path}: {name}"))
        if cell is None:
            result.counts[f"VIA's {shape.get('name')}, left out"] += 1
        else:
            image.cells.append(cell)
    return by_name.values()


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """File name, shape and attributes of each region; an image without regions once without a shape."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                shape, attributes = (json.loads(row[column] or "{}") for column in CSV_COLUMNS[1:])
                yield row[CSV_COLUMNS[0]], shape, attributes
        return
    document = read_json(path)
    if document.keys() >= PROJECT_3:
        yield from _rows_of_project_3(document)
        return
    for entry in document.get("_via_img_metadata", document).values():
        regions = entry["regions"]
        yield entry["filename"], {}, None
        for region in regions.values() if isinstance(regions, Mapping) else regions:
            yield entry["filename"], region["shape_attributes"], region.get("region_attributes")


def _rows_of_project_3(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """As :func:`_rows`. A region belongs to a view, which shows files; its attributes have numbers."""
    names = {}
    for view, content in document["view"].items():
        files = [document["file"][str(one)] for one in content["fid_list"]]
        if len(files) != 1:
            raise InputError(f"view {view} of {len(files)} files, expected one image")
        names[view] = files[0].get("src") or files[0]["fname"]
        yield names[view], {}, None
    for region in document["metadata"].values():
        numbers = region["xy"]
        if not numbers:  # of the whole image, or a time
            continue
        kind, keys = _SHAPES_3[numbers[0]]
        shape: dict[str, Any] = {"name": kind, **dict(zip(keys, numbers[1:], strict=bool(keys)))}
        if kind == "polygon":
            shape |= {"all_points_x": numbers[1::2], "all_points_y": numbers[2::2]}
        attributes = {}
        for key, value in region["av"].items():
            attribute = document["attribute"][key]
            options = attribute.get("options") or {}
            attributes[attribute["aname"]] = options.get(value, value)
        yield names[str(region["vid"])], shape, attributes


def _cell(shape: Mapping[str, Any], class_name: str | None) -> ImportedCell | None:
    kind = shape["name"]
    cell = ImportedCell(class_name)

    def side(key: str) -> float:
        return parse_coordinate(shape[key], f"{kind}: {key}")

    if kind == "polygon":
        cell.rings = [ring(shape["all_points_x"], shape["all_points_y"])]
    elif kind == "circle":
        cell.rings = [ellipse(side("cx"), side("cy"), side("r"), side("r"))]
    elif kind == "ellipse":
        turned = math.degrees(parse_coordinate(shape.get("theta", 0), "theta"))
        cell.rings = [ellipse(side("cx"), side("cy"), side("rx"), side("ry"), turned)]
    elif kind == "rect":
        cell.box = (side("x"), side("y"), side("x") + side("width"), side("y") + side("height"))
    else:
        return None
    return cell
