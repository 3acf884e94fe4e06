"""CVAT's own XML ("CVAT for images 1.1")."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

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
from bccd_d2.files import read_xml
from bccd_d2.structures.rle import require_size


def read_cvat_file(path: Path, images: ImageFiles, result: Imported) -> Iterator[ImportedImage]:
    """Read polygons, ellipses, masks and boxes; points, lines and skeletons are counted. Raises InputError for an
    export of a video.
    """
    root = read_xml(path, "an export of CVAT")
    if root.find("track") is not None:
        raise InputError("tracks of a video, expected an export as 'CVAT for images 1.1'")
    for name in root.findall("./meta//labels/label/name"):
        if name.text and name.text not in result.classes:
            result.classes.append(name.text)
    for element in root.findall("image"):
        size = (int(element.attrib["height"]), int(element.attrib["width"]))
        image = ImportedImage(element.attrib["name"], path, size=size)
        image.part = part_of(element.get("subset", "")) or part_of(Path(image.name).parent.name)
        for shape in element:
            cell = _cell(shape)
            if cell is not None:
                image.cells.append(cell)
            elif shape.tag != "tag":
                result.counts[f"CVAT's {shape.tag}, left out"] += 1
        yield image


def _cell(shape: Element) -> ImportedCell | None:
    def side(key: str) -> float:
        return parse_coordinate(shape.attrib[key], f"{shape.tag}: {key}")

    cell = ImportedCell(shape.get("label"))
    if shape.tag == "polygon":
        points = [point.split(",") for point in shape.attrib["points"].split(";") if point]
        cell.rings = [ring((p[0] for p in points), (p[1] for p in points))]
    elif shape.tag == "ellipse":
        turned = parse_coordinate(shape.get("rotation", "0"), "rotation")
        cell.rings = [ellipse(side("cx"), side("cy"), side("rx"), side("ry"), turned)]
    elif shape.tag == "box":
        x0, y0, x1, y1 = side("xtl"), side("ytl"), side("xbr"), side("ybr")
        turned = parse_coordinate(shape.get("rotation", "0"), "rotation")  # about the middle
        cosine, sine = abs(math.cos(math.radians(turned))), abs(math.sin(math.radians(turned)))
        across, down = (x1 - x0) * cosine + (y1 - y0) * sine, (x1 - x0) * sine + (y1 - y0) * cosine
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        cell.box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
    elif shape.tag == "mask":
        lengths = [int(length) for length in shape.attrib["rle"].split(",")]
        height, width = int(side("height")), int(side("width"))
        require_size(height, width)
        if min(lengths) < 0 or sum(lengths) != height * width:
            raise InputError(f"mask of {sum(lengths)} pixels, expected {height} x {width}")
        inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
        cell.mask = (inside, (int(side("left")), int(side("top"))))
    else:
        return None
    return cell
