"""Outlines along the edges of the pixels: GeoJSON as QuPath reads and writes it, and ImageJ regions of interest."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi, roiwrite

from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.colours import cell_color
from bccd_d2.structures.polygons import Ring, mask_to_rings

# What QuPath keeps elsewhere than among an object's measurements.
_NO_MEASUREMENTS = ("id", "class", "type", "subtype")

# Commands of the paths that ImageJ keeps composite regions as.
_MOVE_TO, _LINE_TO, _CLOSE = 0.0, 1.0, 4.0
_OPAQUE = 255
_MAX_GROUP = 255
# Beyond this ImageJ's 16-bit corners wrap; the path itself is in floating point.
_LARGEST_CORNER = 60_535


def geojson_features(result: ImageResult) -> Iterator[dict[str, Any]]:
    """One feature per cell: a detection object of QuPath, of class ``CLASS``, or ``CLASS: TYPE`` where it has a type.

    The geometry is a Polygon with its holes, or a MultiPolygon where the mask has several parts, along the edges of the
    mask's pixels: (0, 0) is the upper left corner of the image, y points down. Measurements that are not known are left
    out. Ids are the same whenever the same image is predicted.
    """
    table = {name: column.tolist() for name, column in result.measurements.items()}
    for index, (mask, window) in enumerate(zip(result.cells.masks, result.cells.windows.tolist())):
        parts = [[_closed(ring) for ring in part] for part in mask_to_rings(mask, window[0], window[1])]
        category, number = result.name_of(index), table["id"][index]
        measurements = {
            name: float(column[index])
            for name, column in table.items()
            if name not in _NO_MEASUREMENTS and not math.isnan(column[index])
        }
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{result.name}#{number}")),
            "geometry": {"type": "Polygon", "coordinates": parts[0]}
            if len(parts) == 1
            else {"type": "MultiPolygon", "coordinates": parts},
            "properties": {
                "objectType": "detection",
                "name": f"{category} {number}",
                "classification": {"name": category, "color": list(cell_color(result, index))[::-1]},
                "measurements": measurements,
            },
        }


def write_geojson(result: ImageResult, path: Path) -> None:
    """Write the features as a FeatureCollection, one per line."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, feature in enumerate(geojson_features(result)):
            file.write(",\n" if index else "\n")
            json.dump(feature, file, ensure_ascii=False, allow_nan=False)
        file.write("\n]}\n")


def _closed(ring: Ring) -> Ring:
    return [*ring, ring[0]]


def write_rois(result: ImageResult, path: Path) -> None:
    """Write a zip for ImageJ's ROI manager: one region per cell, named by class, ``id`` and type, in its colour.

    A mask in one piece is a traced polygon along the pixels' edges; one with holes or in several parts is a composite.
    The ROI group is the class, counted from 1.
    """
    cells = result.cells
    regions = []
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows.tolist())):
        rings = [ring for part in mask_to_rings(mask, window[0], window[1]) for ring in part]
        category = int(cells.classes[index])
        kind = result.types.names[index] if result.types is not None else ""
        name = f"{result.class_names[category]}-{index + 1:04d}{f' ({kind})' if kind else ''}".replace(
            "/", "_"
        )
        simple = len(rings) == 1 and max(window) <= _LARGEST_CORNER
        roi = ImagejRoi.frompoints(rings[0], name=name) if simple else _composite(rings, window, name)
        if simple:
            roi.roitype = ROI_TYPE.TRACED
            # frompoints counts the last pixel edge as a pixel.
            roi.right, roi.bottom = window[2], window[3]
        blue, green, red = cell_color(result, index)
        roi.stroke_color = bytes((_OPAQUE, red, green, blue))
        roi.group = min(category + 1, _MAX_GROUP)
        regions.append(roi)
    roiwrite(path, regions, mode="w")


def _composite(rings: list[list[tuple[int, int]]], window: list[int], name: str) -> ImagejRoi:
    steps: list[float] = []
    for ring in rings:
        for command, (x, y) in zip([_MOVE_TO, *[_LINE_TO] * (len(ring) - 1)], ring):
            steps += (command, x, y)
        steps.append(_CLOSE)
    roi = ImagejRoi()
    roi.roitype = ROI_TYPE.RECT
    roi.name = name
    roi.options = ROI_OPTIONS.OVERLAY_BACKGROUNDS | ROI_OPTIONS.OVERLAY_LABELS
    roi.left, roi.top, roi.right, roi.bottom = (min(value, _LARGEST_CORNER) for value in window)
    roi.multi_coordinates = np.array(steps, np.float32)
    roi.shape_roi_size = len(steps)
    return roi
