"""Label Studio's JSON, full or JSON-MIN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    ellipse,
    parse_coordinate,
    rectangle,
    ring,
)
from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.io.find_images import SUFFIXES
from bccd_d2.structures.rle import require_size

KINDS = ("polygonlabels", "ellipselabels", "brushlabels", "rectanglelabels")


def read_label_studio_file(path: Path, images: ImageFiles, result: Imported) -> Iterator[ImportedImage]:
    """Read polygons, ellipses, brushes and rectangles; of several annotations of a task the last that is not skipped.
    Raises InputError for an image that was turned in Label Studio.
    """
    for task in read_json(path):
        data = task.get("data", task)
        image = ImportedImage(_image_name(data), path)
        done = [a for a in task.get("annotations", []) if not a.get("was_cancelled")]
        if "data" in task and not done:
            result.counts["Label Studio's tasks without an annotation, left out"] += 1
            continue
        if len(done) > 1:
            result.counts["Label Studio's annotations before the last of a task, left out"] += len(done) - 1
        for kind, region in _regions(done[-1]["result"] if done else data):
            if kind not in KINDS:
                result.counts[f"Label Studio's {kind}, left out"] += 1
                continue
            size = (int(region["original_height"]), int(region["original_width"]))
            if region.get("image_rotation"):
                raise InputError(f"{image.name}: turned in Label Studio; expected image_rotation 0")
            image.size = size
            image.cells.append(_cell(kind, region.get("value", region), *size))
        yield image


def _image_name(data: Mapping[str, Any]) -> str:
    for value in data.values():
        if isinstance(value, str):
            address = urlparse(value)
            # Files that were not uploaded are named in the query: /data/local-files/?d=folder/a.png
            name = unquote(address.query.partition("d=")[2].partition("&")[0] or address.path)
            if Path(name).suffix.lower() in SUFFIXES:
                return name.lstrip("/")
    raise InputError("a task without an image; expected the path of one in 'data'")


def _regions(found: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and region; those of JSON-MIN stand in lists among the data."""
    entries = found
    if isinstance(found, Mapping):
        entries = [
            entry
            for value in found.values()
            if isinstance(value, list)
            for entry in value
            if isinstance(entry, Mapping)
        ]
    for entry in entries:
        value = entry.get("value", entry)
        kind = next((kind for kind in KINDS if kind in value), str(entry.get("type", "entry")))
        if kind not in ("relation", "choices"):
            yield kind, entry


def _cell(kind: str, value: Mapping[str, Any], height: int, width: int) -> ImportedCell:
    """Coordinates are percentages of the image's sides."""
    names = value.get(kind)  # missing where a region was drawn without a label
    cell = ImportedCell(str(names[0]) if names else None)

    def across(key: str) -> float:
        return parse_coordinate(value[key], key) * width / 100

    def down(key: str) -> float:
        return parse_coordinate(value[key], key) * height / 100

    turned = parse_coordinate(value.get("rotation", 0), "rotation")
    if kind == "polygonlabels":
        points = [
            (parse_coordinate(x, "x") * width / 100, parse_coordinate(y, "y") * height / 100)
            for x, y in value["points"]
        ]
        cell.rings = [ring((p[0] for p in points), (p[1] for p in points))]
    elif kind == "ellipselabels":
        cell.rings = [ellipse(across("x"), down("y"), across("radiusX"), down("radiusY"), turned)]
    elif kind == "rectanglelabels":
        cell.box = rectangle(across("x"), down("y"), across("width"), down("height"), turned)
    else:
        if value.get("format") != "rle":
            raise InputError(f"brush in the format {value.get('format')!r}, expected 'rle'")
        cell.mask = (decode_brush(value["rle"], height, width), (0, 0))
    return cell


def decode_brush(packed: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Decode the run lengths of a brush, whole numbers that stand for bytes, to bool (height, width): where the
    alpha value is above 0.

    The stream of bits stands for the pixels' RGBA. After the number of values (32 bits), the bits of a value (5,
    minus 1) and those of four kinds of lengths (4 each, minus 1) come blocks: a bit for a run or not, the kind of
    length (2), the length minus 1, and the value, once for a run or else as often as the length says. Raises
    InputError for a stream of another length.
    """
    require_size(height, width)
    bits = "".join(f"{byte:08b}" for byte in bytes(packed))
    position = 0

    def take(count: int) -> int:
        nonlocal position
        if position + count > len(bits):
            raise InputError("brush that ends before its last pixel")
        position += count
        return int(bits[position - count : position], 2)

    total, value_bits = take(32), take(5) + 1
    length_bits = [take(4) + 1 for _ in range(4)]
    if total != 4 * height * width:
        raise InputError(f"brush of {total} values, expected 4 x {height} x {width}")
    values = np.zeros(total, np.uint8)
    filled = 0
    while filled < total:
        run = take(1)
        end = filled + take(length_bits[take(2)]) + 1
        if end > total:
            raise InputError("brush that goes beyond its last pixel")
        if run:
            values[filled:end] = take(value_bits) & 255
        else:
            values[filled:end] = [take(value_bits) & 255 for _ in range(filled, end)]
        filled = end
    return values.reshape(height, width, 4)[..., 3] > 0
