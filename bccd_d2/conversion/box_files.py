"""Readers of annotated boxes: Pascal VOC (Everingham et al. 2010), BBBC041 (Ljosa et al. 2012) and YOLO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from bccd_d2.conversion.boxes import ImageBoxes, make_boxes, parse_coordinate, shared_stem_error
from bccd_d2.conversion.dataset_spec import ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.files import read_lines, read_yaml
from bccd_d2.structures.coco import read_json

VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")
YOLO_NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names", "_darknet.labels")
"""Files that name the classes of a YOLO data set: Ultralytics, makesense and LabelImg, Darknet, Roboflow."""
YOLO_REACH = 0.5
"""How far outside the image, in its sides, a YOLO coordinate may lie; further out it was not divided by the sides."""


@dataclass(frozen=True)
class VocFolder:
    """A folder of VOC annotations, one ``STEM.xml`` per image."""

    # Where the files lie; those of images whose stem carries a folder (``train/0001``) in such folders.
    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder; expected VOC annotations, one STEM.xml per image"
            )

    def find(self, image: ImageRecord) -> ImageBoxes | None:
        """Boxes of the image, ``None`` where it has no file. Raises InputError for a file whose stem several images
        share, or as :func:`read_voc`.
        """
        path = file_of(image, self.folder, ".xml")
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
        corners.append(_voc_corners(element, where))
        names.append(name)
        difficult.append((element.findtext("difficult") or "").strip() in ("1", "true", "True"))
    return make_boxes(str(path), corners, names, difficult, _voc_size(root, path))


def _voc_corners(element: Element, where: str) -> tuple[int, int, int, int]:
    box = element.find("bndbox")
    if box is None:
        raise InputError(f"{where}: no <bndbox>, expected one")
    texts = [(box.findtext(key) or "").strip() for key in VOC_CORNERS]
    x0, y0, x1, y1 = _corners(texts, [f"{where}: {key}" for key in VOC_CORNERS], where)
    return x0 - 1, y0 - 1, x1, y1


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


@dataclass(frozen=True)
class Bbbc041Boxes:
    """Boxes of BBBC041 by the stem (the UUID) of their image."""

    path: Path  # where they were read from
    by_stem: Mapping[str, ImageBoxes] = field(repr=False)  # all boxes

    @classmethod
    def read(cls, path: Path | str) -> Bbbc041Boxes:
        """Read one JSON file, or all of a folder (the original comes as ``training.json`` and ``test.json``).
        Raises InputError as :func:`read_bbbc041`, or where there is no file, or two name the same image.
        """
        path = Path(path)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no *.json here, expected boxes in BBBC041's format")
        by_stem: dict[str, ImageBoxes] = {}
        for file in files:
            for stem, boxes in read_bbbc041(file).items():
                if stem in by_stem:
                    raise InputError(f"{boxes.source}: {stem} has boxes in {by_stem[stem].source} too")
                by_stem[stem] = boxes
        return cls(path, by_stem)

    def __reduce__(self) -> tuple[Any, ...]:
        # The boxes of the whole set would go to a worker process with every image; it reads the file once instead.
        return _read_once, (self.path,)

    def find(self, image: ImageRecord) -> ImageBoxes | None:
        """Boxes of the image, ``None`` where there is no entry for it. Raises InputError if several images share
        the stem.
        """
        stem = Path(image.stem).name
        boxes = self.by_stem.get(stem)
        if boxes is not None and stem != image.stem:
            raise shared_stem_error(image, boxes.source)
        return boxes


@lru_cache(maxsize=1)
def _read_once(path: Path) -> Bbbc041Boxes:
    return Bbbc041Boxes.read(path)


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
        stem = PurePosixPath(_get(image, "pathname", str, where).replace("\\", "/")).stem
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


@dataclass(frozen=True)
class YoloLabels:
    """Label files of a YOLO data set, one ``STEM.txt`` per image."""

    # Name by class number, from the data set's own list; without one, numbers stand for themselves.
    names: Mapping[int, str] = field(default_factory=dict)
    # Where the files lie; ``None`` for YOLO's own places, ``labels`` in place of the last ``images`` in the image's
    # path, or beside the image.
    folder: Path | None = None

    def find(self, image: ImageRecord) -> ImageBoxes | None:
        """Boxes of the image, those around the outline where a line is one; ``None`` where it has no file. Raises
        InputError as :func:`read_yolo`, or where a class has no name.
        """
        path = yolo_label_file(image.path) if self.folder is None else file_of(image, self.folder, ".txt")
        if path is None:
            return None
        corners, names = [], []
        for number, values in read_yolo(path):
            xs, ys = yolo_points(values)
            x0, x1 = round(min(xs) * image.width), round(max(xs) * image.width)
            y0, y1 = round(min(ys) * image.height), round(max(ys) * image.height)
            corners.append((x0, y0, x1, y1))
            names.append(yolo_class(self.names, number, path))
        return make_boxes(str(path), corners, names)


def yolo_label_file(image: Path) -> Path | None:
    """The label file of an image in one of YOLO's own places, ``None`` where there is none."""
    places = [image.with_suffix(".txt")]
    for folder in image.parents:
        if folder.name.lower() == "images":
            places.insert(0, folder.parent / "labels" / places[-1].relative_to(folder))
            break
    return next((place for place in places if place.is_file()), None)


def read_yolo(path: Path) -> list[tuple[int, list[float]]]:
    """Class number and coordinates of each line of a YOLO label file, as shares of the image's sides: ``cx cy w h``
    of a box, or ``x0 y0 x1 y1 ...`` of an outline. An odd last number is a score, which is dropped. Raises
    InputError for another line, or coordinates far outside of the image.
    """
    rows = []
    for line_number, line in enumerate(read_lines(path, "YOLO labels"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {line_number}"
        words = line.split()
        try:
            number, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise InputError(f"{where}: {line[:60]!r}, expected numbers: class cx cy w h") from error
        if len(values) % 2:
            del values[-1:]
        if len(values) < 4:
            raise InputError(
                f"{where}: {len(words)} numbers, expected class cx cy w h, or a class and three points or more"
            )
        if number != number or number < 0 or number != int(min(number, 1e9)):
            raise InputError(f"{where}: class {words[0]!r}, expected a whole number from 0")
        if not all(-YOLO_REACH <= value <= 1 + YOLO_REACH for value in values):
            raise InputError(
                f"{where}: {line[:60]!r}, expected coordinates as shares of the image's sides, from 0 to 1"
            )
        rows.append((int(number), values))
    return rows


def yolo_class(names: Mapping[int, str], number: int, path: Path) -> str:
    """Name of a class, or its number as text where the data set has no list of names; raises InputError where that
    lacks it.
    """
    if names and number not in names:
        raise InputError(f"{path}: class {number}, expected one of {', '.join(map(str, sorted(names)))}")
    return names.get(number, str(number))


def read_yolo_names(root: Path) -> dict[int, str]:
    """Names of the classes from the first of :data:`YOLO_NAMES` in ``root``, its ``labels`` or the folder above;
    none where there is no such file. Raises InputError for one that names no classes.
    """
    for folder in (root, root / "labels", root.parent):
        for name in YOLO_NAMES:
            path = folder / name
            if path.is_file():
                return _yolo_names(path)
    return {}


def _yolo_names(path: Path) -> dict[int, str]:
    if path.suffix != ".yaml":
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return dict(enumerate(line.strip() for line in lines if line.strip()))
    content = read_yaml(path)
    names = content.get("names") if isinstance(content, Mapping) else None
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, Mapping) or not all(str(key).isdigit() for key in pairs):
        raise InputError(f"{path}: names {str(names)[:60]!r}, expected a list of class names")
    return {int(key): str(name) for key, name in pairs.items()}


def yolo_points(values: list[float]) -> tuple[list[float], list[float]]:
    """x and y of the corners of a box (upper left, lower right) or of the points of an outline."""
    if len(values) > 4:
        return values[0::2], values[1::2]
    cx, cy, width, height = values
    return [cx - width / 2, cx + width / 2], [cy - height / 2, cy + height / 2]


def read_points(path: Path) -> list[tuple[float, float, str]]:
    """x and y in pixels and the class of each line ``x y class``, with spaces or commas between; raises InputError
    for another line.
    """
    points = []
    for number, line in enumerate(read_lines(path, "points"), start=1):
        words = line.replace(",", " ").split(maxsplit=2)
        if not words:
            continue
        if len(words) < 3:
            raise InputError(f"{path}, line {number}: {line[:60]!r}, expected x y class")
        x, y = (parse_coordinate(word, f"{path}, line {number}") for word in words[:2])
        points.append((x, y, words[2].strip()))
    return points


def file_of(image: ImageRecord, folder: Path, suffix: str) -> Path | None:
    """The file named after the image's stem in ``folder``."""
    path = folder / f"{image.stem}{suffix}"
    if path.is_file():
        return path
    flat = folder / f"{Path(image.stem).name}{suffix}"
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
