"""QuPath's GeoJSON and ImageJ's regions (.roi, or zips of them), one file per image."""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedCell, ImportedImage, part_of
from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.structures.rle import MAX_SIDE

GEOJSON_SUFFIXES = (".geojson", ".json")
IMAGEJ_SUFFIXES = (".roi", ".zip")
DERIVED = ": "  # between base class and derived class in QuPath's names
# As this project names its regions: class and number.
_NAME_WITH_CLASS = re.compile(r"(?P<name>.*[^\W\d].*)-\d+(?: \(.*\))?$")
_ROI_SET = re.compile(r"[-_ ]?(roi[-_ ]?set|rois?|annotations?|detections?|cells)$", re.IGNORECASE)
"""What people and programs put behind the image's name."""
_AREA_TYPES = ("POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED")


def read_outline_files(files: list[Path], images: ImageFiles, result: Imported) -> None:
    """Read all files, each named after its image; those of single regions (.roi) after it or lying in a folder that
    is.
    """
    names = _image_names(files, images)
    of_regions: dict[str, ImportedImage] = {}
    for path in files:
        name = names.get(path) or images.only or path.stem
        image = ImportedImage(name, path, part=part_of(path.parent.name))
        if path.suffix.lower() == ".roi":
            image = of_regions.setdefault(name, image)
        with result.reading(path, "outlines"):
            cells = read_outlines(path)
            if not image.cells:
                result.images.append(image)
            image.cells += cells


def _image_names(files: list[Path], images: ImageFiles) -> dict[Path, str]:
    """The image of each file that has one."""
    found: dict[Path, str] = {}
    for of_folder in (False, True):
        for pattern in ("", _ROI_SET):
            names = {
                path: re.sub(pattern, "", str(path.parent if of_folder else path.with_suffix("")))
                for path in files
                if path not in found and (not of_folder or path.suffix.lower() == ".roi")
            }
            matched = images.match(names.values(), str(images.folder))
            found |= {path: matched[name] for path, name in names.items() if name in matched}
    return found


def read_outlines(path: Path) -> list[ImportedCell]:
    """Cells of a file, by its suffix: :func:`read_geojson` or :func:`read_imagej`."""
    return read_geojson(path) if path.suffix.lower() in GEOJSON_SUFFIXES else read_imagej(path)


def read_geojson(path: Path) -> list[ImportedCell]:
    """Polygons and multipolygons of a GeoJSON file: a FeatureCollection, a list of features, or one of them.

    The class is ``properties.classification.name`` (QuPath), of a derived class such as ``WBC: monocyte`` the base
    class, or ``properties.class``; the score ``properties.measurements.score``. Other geometries, such as points,
    are counted in the log. Raises InputError for any other file.
    """
    content = read_json(path)
    if isinstance(content, Mapping):
        content = content.get("features", [content])
    if not isinstance(content, list):
        raise InputError(f"{path}: {type(content).__name__} for the features, expected a list")
    cells, others = [], Counter[str]()
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
            cells.append(_with_properties(ImportedCell(rings=rings), feature.get("properties")))
    _log_others(path, others)
    return cells


def read_imagej(path: Path) -> list[ImportedCell]:
    """Areas of an ImageJ region (.roi), or of a zip of them as the ROI manager saves it.

    The class is what stands before the number in a name such as ``RBC-0001`` or ``RBC-0001 (teardrop)``. Lines and
    points are counted in the log. Raises InputError for any other file, or where roifile is not installed.
    """
    try:
        from roifile import ImagejRoi
    except ImportError as error:
        raise InputError('reading ImageJ regions needs roifile: pip install "bccd_d2[train]"') from error
    cells, others = [], Counter[str]()
    try:
        for data in _regions(path):
            roi = ImagejRoi.frombytes(data)
            if roi.roitype.name not in _AREA_TYPES:
                others[roi.roitype.name.lower()] += 1
                continue
            found = roi.coordinates(multi=True)
            rings = [_ring(ring) for ring in (found if isinstance(found, list) else [found])]
            named = _NAME_WITH_CLASS.match(roi.name or "")
            cells.append(ImportedCell(named["name"] if named else None, rings=rings))
    # On damaged files roifile raises whatever NumPy, struct and zlib do.
    except Exception as error:
        raise InputError(f"{path}: not an ImageJ region, nor a zip of them ({error})") from error
    _log_others(path, others)
    return cells


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
    if ring.ndim != 2 or len(ring) < 3 or not (np.abs(ring) <= MAX_SIDE).all():
        raise ValueError(f"ring {str(points)[:60]}, expected three points or more within the image")
    return ring


def _with_properties(cell: ImportedCell, properties: Any) -> ImportedCell:
    """The cell with class and score of a feature, where it has them."""
    if not isinstance(properties, Mapping):
        return cell
    classification, measurements = properties.get("classification"), properties.get("measurements")
    name = properties.get("class")
    if isinstance(classification, Mapping):
        names = classification.get("names")
        name = classification.get("name", names[0] if isinstance(names, list) and names else None)
    score = measurements.get("score") if isinstance(measurements, Mapping) else None
    if isinstance(name, str):
        cell.class_name = name.partition(DERIVED)[0]
    if isinstance(score, int | float) and 0 <= score <= 1:
        cell.score = float(score)
    return cell


def _log_others(path: Path, others: Counter[str]) -> None:
    if others:
        kinds = ", ".join(f"{number} {kind}" for kind, number in others.items())
        logging.getLogger(__name__).warning("%s: not outlines of cells, left out: %s", path, kinds)
