"""Cells as people mark them in other tools: outlines in GeoJSON (QuPath) and ImageJ's regions, and points."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.files import read_lines
from bccd_d2.structures.rle import decode_rle

GEOJSON_SUFFIXES = (".geojson",)
IMAGEJ_SUFFIXES = (".roi", ".zip")
MAX_COORDINATE = 2.0**24  # pixels; what lies further out is taken for a mistake
# As this project names its regions: class and number.
_NAME_WITH_CLASS = re.compile(r"(?P<name>.*[^\W\d].*)-\d+(?: \(.*\))?$")
DERIVED = ": "  # between base class and derived class in QuPath's names
_AREA_TYPES = ("POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED")


@dataclass(frozen=True)
class Outline:
    """One cell."""

    # Closed outlines, each (P, 2) x and y in pixels of the image; (0, 0) is the upper left corner of its first
    # pixel. What lies in an odd number of rings is inside, so that holes are rings like any other.
    rings: Sequence[NDArray[np.float64]]
    class_name: str | None = None  # ``None`` where the file says nothing
    score: float | None = None  # in [0, 1], likewise

    def mask(self, height: int, width: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """Pixels inside as a bool array cut down to the outline, and the (x, y) of its upper left pixel in the
        image; what lies beyond an image of ``height`` and ``width`` is cut off.
        """
        points = np.concatenate(self.rings)
        x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int), 0, [width, height]).tolist()
        x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, [width, height]).tolist()
        inside = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), bool)
        if inside.size:
            for ring in self.rings:
                flat = [(ring - [x0, y0]).ravel().tolist()]
                (rle,) = coco_mask.frPyObjects(flat, *inside.shape)
                inside ^= decode_rle(rle).astype(bool)
        return inside, (x0, y0)


class Point(NamedTuple):
    """One cell marked by a click."""

    x: float  # in pixels of the image; (0, 0) is the upper left corner of its first pixel
    y: float
    class_name: str | None  # ``None`` where the line has none
    where: str  # file and line, for messages


def read_points(path: Path) -> list[Point]:
    """Points of a text file with lines ``x y`` or ``x y class``, parted by blanks, commas or semicolons; a first line
    without numbers is a heading. Raises InputError for any other file.
    """
    points = []
    for number, line in enumerate(read_lines(path, "lines x y class"), start=1):
        fields, where = re.split(r"[\s,;]+", line.strip(), maxsplit=2), f"{path}, line {number}"
        try:
            x, y = float(fields[0]), float(fields[1])
            if not max(abs(x), abs(y)) <= MAX_COORDINATE:
                raise ValueError("no place in an image")
        except (ValueError, IndexError) as error:
            if not line.strip() or number == 1:
                continue
            raise InputError(f"{where}: {line[:60]!r}, expected 'x y [class]'") from error
        points.append(Point(x, y, fields[2] if len(fields) > 2 else None, where))
    return points


def read_outlines(path: Path) -> list[Outline]:
    """Outlines of a file, by its suffix: :func:`read_geojson` or :func:`read_imagej`."""
    return read_geojson(path) if path.suffix.lower() in GEOJSON_SUFFIXES else read_imagej(path)


def read_geojson(path: Path) -> list[Outline]:
    """Polygons and multipolygons of a GeoJSON file: a FeatureCollection, a list of features, or one of them.

    The class is ``properties.classification.name`` (QuPath), of a derived class such as ``WBC: monocyte`` the base
    class, or ``properties.class``; the score ``properties.measurements.score``. Other geometries, such as points,
    are counted in the log. Raises InputError for any other file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not GeoJSON ({error})") from error
    if isinstance(content, Mapping):
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: {type(content).__name__} for the features, expected a list")
    outlines, others = [], Counter[str]()
    for number, feature in enumerate(content):
        where = f"{path}, feature {number}"
        geometry = feature.get("geometry", feature) if isinstance(feature, Mapping) else None
        if not isinstance(geometry, Mapping):
            raise InputError(f"{where}: no geometry, expected a polygon")
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            others[str(kind)] += 1
            continue
        try:
            polygons: Any = coordinates if kind == "MultiPolygon" else [coordinates]
            rings = [_ring(ring) for polygon in polygons for ring in polygon]
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: coordinates that are no rings of [x, y] ({error})") from error
        if rings:
            outlines.append(Outline(rings, *_class_and_score(feature.get("properties"))))
    _log_others(path, others)
    return outlines


def read_imagej(path: Path) -> list[Outline]:
    """Areas of an ImageJ region (.roi), or of a zip of them as the ROI manager saves it.

    The class is what stands before the number in a name such as ``RBC-0001`` or ``RBC-0001 (teardrop)``. Lines and
    points are counted in the log. Raises InputError for any other file, or where roifile is not installed.
    """
    try:
        from roifile import ImagejRoi
    except ImportError as error:
        raise InputError('reading ImageJ regions needs roifile: pip install "bccd_d2[train]"') from error
    outlines, others = [], Counter[str]()
    try:
        for data in _regions(path):
            roi = ImagejRoi.frombytes(data)
            if roi.roitype.name not in _AREA_TYPES:
                others[roi.roitype.name.lower()] += 1
                continue
            found = roi.coordinates(multi=True)
            rings = [_ring(ring) for ring in (found if isinstance(found, list) else [found])]
            named = _NAME_WITH_CLASS.match(roi.name or "")
            outlines.append(Outline(rings, named["name"] if named else None))
    # On damaged files roifile raises whatever NumPy, struct and zlib do.
    except Exception as error:
        raise InputError(f"{path}: not an ImageJ region, nor a zip of them ({error})") from error
    _log_others(path, others)
    return outlines


def _regions(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() != ".zip":
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith(".roi") and not name.startswith("__MACOSX"):
                yield archive.read(name)


def _ring(points: Any) -> NDArray[np.float64]:
    try:
        ring = np.asarray(points, np.float64)[..., :2]
    except (TypeError, ValueError, IndexError, OverflowError):  # text, a single number, one of 400 digits
        ring = np.empty((0, 2))
    if ring.ndim != 2 or len(ring) < 3 or not (np.abs(ring) <= MAX_COORDINATE).all():
        raise ValueError(f"ring {str(points)[:60]}, expected three points or more within the image")
    return ring


def _class_and_score(properties: Any) -> tuple[str | None, float | None]:
    if not isinstance(properties, Mapping):
        return None, None
    classification, measurements = properties.get("classification"), properties.get("measurements")
    name = properties.get("class")
    if isinstance(classification, Mapping):
        names = classification.get("names")
        name = classification.get("name", names[0] if isinstance(names, list) and names else None)
    score = measurements.get("score") if isinstance(measurements, Mapping) else None
    return (
        name.partition(DERIVED)[0] if isinstance(name, str) else None,
        float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None,
    )


def _log_others(path: Path, others: Counter[str]) -> None:
    if others:
        kinds = ", ".join(f"{number} {kind}" for kind, number in others.items())
        logging.getLogger(__name__).warning("%s: not outlines of cells, left out: %s", path, kinds)
