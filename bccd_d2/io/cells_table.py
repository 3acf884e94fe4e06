"""Reads ``cells.csv`` as the prediction writes it, or as a person has corrected it with a spreadsheet."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from typing import Any

from bccd_d2.errors import InputError

CELLS, COUNTS = "cells.csv", "counts.csv"
"""Names of the tables of a batch: one row per cell, and one per image and class."""

CellRow = dict[str, Any]
_FLAG = "touches_border"
_NUMBERS = ("x_px", "y_px", "equivalent_diameter_px", "equivalent_diameter_um")
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


def read_cells(lines: Iterable[str], where: str, columns: Sequence[str] = ()) -> list[CellRow]:
    """One row per cell: texts without spaces around them, positions and diameters as float, NaN where they are empty,
    and ``touches_border`` as bool; ``where`` says of each row where it stands.

    Raises InputError, which names ``where`` the lines come from, if one of ``columns`` is not there, or a value of a
    row is no number or no truth value.
    """
    reader = csv.DictReader(lines)
    found = reader.fieldnames or []
    if missing := [name for name in columns if name not in found]:
        hint = "; tools/predict.py --types writes it" if missing == ["type"] else ""
        raise InputError(f"{where}: no column {', '.join(missing)}{hint}; found {', '.join(found) or 'none'}")
    rows: list[CellRow] = []
    try:
        entries = list(reader)
    except csv.Error as error:
        raise InputError(f"{where}: expected a CSV table, cannot read it ({error})") from error
    for number, entry in enumerate(entries, start=2):
        row: CellRow = {name: (entry[name] or "").strip() for name in found}
        row["where"] = f"{where}, line {number}"
        for name in set(_NUMBERS).intersection(found):
            try:
                row[name] = float(row[name] or math.nan)
            except ValueError as error:
                raise InputError(f"{row['where']}: expected a number, found {name} {row[name]!r}") from error
        if _FLAG in row:
            if (text := row[_FLAG].lower()) not in _TRUTH:
                raise InputError(f"{row['where']}: expected True or False, found {_FLAG} {row[_FLAG]!r}")
            row[_FLAG] = _TRUTH[text]
        rows.append(row)
    return rows
