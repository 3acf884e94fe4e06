"""GeoJSON as QuPath imports and exports it."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bccd_d2.inference.result import ImageResult
from bccd_d2.reporting.overlay import class_color
from bccd_d2.structures.polygons import Ring, mask_to_rings

# What QuPath keeps elsewhere than among an object's measurements.
_NO_MEASUREMENTS = ("id", "class")


def geojson_features(result: ImageResult) -> Iterator[dict[str, Any]]:
    """One feature a cell: a detection object of QuPath.

    The geometry is a Polygon with its holes, or a MultiPolygon where the mask has several parts, along the edges of
    the mask's pixels: (0, 0) is the upper left corner of the image, y points down. Measurements that are not known
    are left out. Ids are the same whenever the same image is predicted.
    """
    table = {name: column.tolist() for name, column in result.measurements.items()}
    for index, (mask, window) in enumerate(zip(result.cells.masks, result.cells.windows.tolist())):
        parts = [[_closed(ring) for ring in part] for part in mask_to_rings(mask, window[0], window[1])]
        category, number = table["class"][index], table["id"][index]
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
                "classification": {
                    "name": category,
                    "color": list(class_color(int(result.cells.classes[index]), result.colors))[::-1],
                },
                "measurements": measurements,
            },
        }


def write_geojson(result: ImageResult, path: Path) -> None:
    """Write the features as a FeatureCollection, one a line."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, feature in enumerate(geojson_features(result)):
            file.write(",\n" if index else "\n")
            json.dump(feature, file, ensure_ascii=False, allow_nan=False)
        file.write("\n]}\n")


def _closed(ring: Ring) -> Ring:
    return [*ring, ring[0]]
