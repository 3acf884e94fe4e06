"""Tables: one row per cell, one row per class."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from bccd_d2.inference.quality import Quality
from bccd_d2.inference.results import Counts, ImageResult

DECIMALS = 4
COUNT_COLUMNS = (
    "image",
    "class",
    "cells",
    "share",
    "cells_in_frame",
    "share_in_frame",
    "area_mm2",
    "cells_per_mm2",
    "diameter_px",
    "diameter_from",
    "flags",
)
QUALITY_COLUMNS = ("image", *(field.name for field in fields(Quality)))
ALL_CLASSES, ALL_IMAGES = "all", "all images"


def write_cells(result: ImageResult, path: Path) -> None:
    """Write the columns of :func:`bccd_d2.inference.measurements.measure_cells` after one of the image's name."""
    table = result.measurements
    rows = zip(*(column.tolist() for column in table.values()))
    write_csv(path, ["image", *table], ([result.name, *row] for row in rows))


def write_label_classes(result: ImageResult, path: Path) -> None:
    """Write id, class and score of each cell: what a label image does not hold."""
    table = result.measurements
    columns = ["id", "class", "score"]
    write_csv(path, columns, zip(*(table[name].tolist() for name in columns)))


def count_rows(image: str, counts: Counts, flags: Sequence[str] = ()) -> list[list[str | int | float | None]]:
    """One row per class and one for all classes, in the order of :data:`COUNT_COLUMNS`.

    Shares are of all cells; ``None`` where nothing was counted or the area is not known.
    """
    totals = (sum(counts.cells.values()), sum(counts.in_frame.values()))
    classes = [(name, number, counts.in_frame[name]) for name, number in counts.cells.items()]
    return [
        [
            image,
            name,
            number,
            number / totals[0] if totals[0] else None,
            framed,
            framed / totals[1] if totals[1] else None,
            counts.area_mm2,
            framed / counts.area_mm2 if counts.area_mm2 else None,
            counts.diameter_px,
            counts.diameter_from,
            "; ".join(flags),
        ]
        for name, number, framed in [*classes, (ALL_CLASSES, *totals)]
    ]


def quality_row(image: str, quality: Quality) -> list[str | float | None]:
    """One row in the order of :data:`QUALITY_COLUMNS`."""
    *values, flags = vars(quality).values()
    return [image, *values, "; ".join(flags)]


def write_csv(path: Path, header: Any, rows: Any) -> None:
    """Write a table as CSV in UTF-8; fractions are rounded, ``None`` and NaN are empty fields."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_field(value) for value in row] for row in rows)


def _field(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else round(float(value), DECIMALS)
    return "" if value is None else value
