"""ImageJ regions of interest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi, roiwrite

from bccd_d2.inference.result import ImageResult
from bccd_d2.reporting.overlay import class_color
from bccd_d2.structures.polygons import mask_to_rings

# Commands of the paths that ImageJ keeps composite regions as.
_MOVE_TO, _LINE_TO, _CLOSE = 0.0, 1.0, 4.0
_OPAQUE = 255
_MAX_GROUP = 255
# Beyond this ImageJ's 16-bit corners wrap; the path itself is in floating point.
_LARGEST_CORNER = 60_535


def write_rois(result: ImageResult, path: Path) -> None:
    """Write a zip that ImageJ's ROI manager opens: one region a cell, named by class and ``id``, in its class's colour.

    A mask in one piece is a traced polygon along the pixels' edges; one with holes or in several parts is a composite.
    The ROI group is the class, counted from 1.
    """
    cells = result.cells
    regions = []
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows.tolist())):
        rings = [ring for part in mask_to_rings(mask, window[0], window[1]) for ring in part]
        category = int(cells.classes[index])
        name = f"{result.class_names[category]}-{index + 1:04d}".replace("/", "_")
        simple = len(rings) == 1 and max(window) <= _LARGEST_CORNER
        roi = ImagejRoi.frompoints(rings[0], name=name) if simple else _composite(rings, window, name)
        if simple:
            roi.roitype = ROI_TYPE.TRACED
            # frompoints counts the last pixel edge as a pixel.
            roi.right, roi.bottom = window[2], window[3]
        blue, green, red = class_color(category, result.colors)
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
