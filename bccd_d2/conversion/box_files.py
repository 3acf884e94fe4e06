"""Readers of annotated boxes, Pascal VOC (Everingham et al. 2010) and BBBC041 (Ljosa et al. 2012)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from bccd_d2.conversion.boxes import ImageBoxes, make_boxes, parse_coordinate, shared_stem_error
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.io.coco_images import image_path
from bccd_d2.structures.names import normalise_path

VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find_voc(folder: Path, image: ImageRecord) -> ImageBoxes | None:
    """Boxes of an image from a folder of VOC annotations, one ``STEM.xml`` per image; those of images whose stem
    carries a folder (``train/0001``) lie in such folders. ``None`` where the image has no file. Raises InputError for
    a file whose stem several images share, or as :func:`read_voc`.
    """
    path = file_of(image, folder, ".xml")
    return None if path is None else read_voc(path)


def read_xml(path: Path, expected: str) -> Element:
    """Root of an XML file, which messages call ``expected``. Raises InputError for a file that is empty, no XML, or
    declares entities (which can expand to gigabytes).
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file, expected {expected}")
    try:
        root = parse(path, forbid_dtd=False).getroot()
    except DefusedXmlException as error:
        raise InputError(
            f"{path}: XML that declares entities or fetches files, refused ({error!r})"
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise InputError(f"{path}: not XML ({error})") from error
    if root is None:
        raise InputError(f"{path}: nothing at the top, expected {expected}")
    return root


def read_voc(path: Path | str) -> ImageBoxes:
    """Read one VOC annotation; raises InputError for anything else.

    VOC counts pixels from 1 and includes the last one; the boxes returned count from 0 and are half-open.
    """
    path = Path(path)
    root = read_xml(path, "a VOC annotation")
    if root.tag != "annotation":
        raise InputError(f"{path}: <{root.tag}> at the top, expected a VOC <annotation>")
    corners, names, difficult = [], [], []
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
        corners.append((x0 - 1, y0 - 1, x1, y1))
        names.append(name)
        difficult.append((element.findtext("difficult") or "").strip() in ("1", "true", "True"))
    return make_boxes(str(path), corners, names, difficult, _voc_size(root, path))


def _voc_size(root: Element, path: Path) -> tuple[int, int] | None:
    """``(height, width)``; ``None`` where the file has no size, or 0 as some tools write for unknown."""
    size = root.find("size")
    if size is None:
        return None
    height, width = (
        int(parse_coordinate((size.findtext(key) or "0").strip(), f"{path}: size: {key}"))
        for key in ("height", "width")
    )
    return (height, width) if height and width else None


def find_bbbc041(path: Path, image: ImageRecord) -> ImageBoxes | None:
    """Boxes of an image from one of BBBC041's JSON files, or a folder of them, ``None`` where there is no entry for it.
    Raises InputError as :func:`read_bbbc041_files`, or where several images share the stem.
    """
    stem = Path(image.stem).name
    boxes = read_bbbc041_files(path).get(stem)
    if boxes is not None and stem != image.stem:
        raise shared_stem_error(image, boxes.source)
    return boxes


@lru_cache(maxsize=1)  # each worker process reads the boxes of all images once
def read_bbbc041_files(path: Path) -> dict[str, ImageBoxes]:
    """Boxes by stem (the UUID) of one JSON file, or of all in a folder (the original comes as ``training.json`` and
    ``test.json``). Raises InputError as :func:`read_bbbc041`, or where there is no file, or two name the same image.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no *.json here, expected boxes in BBBC041's format")
    by_stem: dict[str, ImageBoxes] = {}
    for file in files:
        for stem, boxes in read_bbbc041(file).items():
            if stem in by_stem:
                raise InputError(f"{boxes.source}: {stem} has boxes in {by_stem[stem].source} too")
            by_stem[stem] = boxes
    return by_stem


def read_bbbc041(path: Path | str) -> dict[str, ImageBoxes]:
    """Read boxes by stem of the image from BBBC041's list with one entry per image::

        [{"image": {"pathname": "/images/UUID.png", "shape": {"r": 1200, "c": 1600, "channels": 3}},
          "objects": [{"bounding_box": {"minimum": {"r": 0, "c": 0}, "maximum": {"r": 98, "c": 101}},
                       "category": "red blood cell"}]}]

    The maximum of a box is taken as the first row and column after it: boxes at the border reach the image's size.
    Raises InputError for another file, or one that holds an image twice.
    """
    document = read_json(path)
    if not isinstance(document, list):
        raise InputError(f"{path}: {type(document).__name__} at the top, expected BBBC041's list of images")
    found: dict[str, ImageBoxes] = {}
    for number, entry in enumerate(document):
        where = f"{path}: entry {number}"
        image = _get(entry, "image", Mapping, where)
        stem = PurePosixPath(normalise_path(_get(image, "pathname", str, where))).stem
        if not stem:
            raise InputError(f"{where}: pathname without a file name, expected one")
        if stem in found:
            raise InputError(f"{where}: {stem} occurs twice, expected one entry per image")
        found[stem] = _bbbc041_entry(str(path), entry, image, f"{where} ({stem})")
    return found


def _bbbc041_entry(source: str, entry: Any, image: Mapping[str, Any], where: str) -> ImageBoxes:
    size = None
    if image.get("shape") is not None:
        shape = _get(image, "shape", Mapping, where)
        height, width = (int(parse_coordinate(shape.get(key), f"{where}: shape: {key}")) for key in "rc")
        size = (height, width)
    corners, names = [], []
    for index, item in enumerate(_get(entry, "objects", list, where)):
        here = f"{where}: object {index}"
        names.append(_get(item, "category", str, here))
        box = _get(item, "bounding_box", Mapping, here)
        ends = [(_get(box, end, Mapping, here), end, key) for end in ("minimum", "maximum") for key in "cr"]
        values = [corner.get(key) for corner, _, key in ends]
        corners.append(_corners(values, [f"{here}: {end}: {key}" for _, end, key in ends], here))
    return make_boxes(source, corners, names, size=size)


def file_of(image: ImageRecord, folder: Path, suffix: str) -> Path | None:
    """The file named after the image's stem in ``folder``."""
    path = image_path(folder, f"{image.stem}{suffix}")
    if path.is_file():
        return path
    flat = image_path(folder, f"{Path(image.stem).name}{suffix}")
    if flat.is_file():
        raise shared_stem_error(image, str(flat))
    return None


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
