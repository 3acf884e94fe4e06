"""Tables: one row a cell, one row a class."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from bccd_d2.inference.result import ImageResult

DECIMALS = 4


def write_cells(result: ImageResult, path: Path) -> None:
    """Write the measurements of each cell as CSV in UTF-8, the image's name in the first column.

    Columns are those of :func:`bccd_d2.inference.measurements.measure_cells`; what is not known is an empty field.
    """
    table = result.measurements
    rows = zip(*(column.tolist() for column in table.values()))
    write_csv(path, ["image", *table], ([result.name, *row] for row in rows))


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
