"""What the typed cells of a smear come to: the differential count, grades of red cells and their size.

None of this is a diagnosis. Intervals say how far chance alone moves a percentage at the number of cells counted
(Rümke 1985); they do not cover errors of the classifier or an uneven smear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2

from bccd_d2.cell_types.classifier import OTHER
from bccd_d2.evaluation.bootstrap import binomial_interval
from bccd_d2.structures.cell_kinds import kind_of

NOTE = "for research; no diagnosis"
ERYTHROBLAST = "erythroblast"
"""No white cell, though a detector finds it as one: it is counted beside them."""

# Per cent of white cells in adults, as textbooks give them; laboratories set their own.
REFERENCE_RANGES: dict[str, tuple[float, float]] = {
    "neutrophil segmented": (40, 75),
    "neutrophil band": (0, 6),
    "lymphocyte": (20, 45),
    "monocyte": (2, 10),
    "eosinophil": (1, 6),
    "basophil": (0, 1),
    "immature granulocyte": (0, 0),
    ERYTHROBLAST: (0, 0),
}

# ICSH 2015 (Palmer et al., Int J Lab Hematol 37:287): per cent of red cells from which a shape is few, above which it
# is moderate, and above which it is many. Only schistocytes have a grade "few"; of others, less is not reported.
_LARGE, _SHAPE = (11.0, 20.0), (5.0, 20.0)
GRADES: dict[str, tuple[float, float]] = {
    "macrocyte": _LARGE,
    "microcyte": _LARGE,
    "hypochromic": _LARGE,
    "spherocyte": _SHAPE,
    "target cell": _SHAPE,
    "stomatocyte": _SHAPE,
    "elliptocyte": _SHAPE,
    "teardrop": _SHAPE,
    "burr cell": _SHAPE,
    "schistocyte": (1.0, 2.0),
}

COLUMNS = (
    "cells_of", "item", "cells", "of", "value", "unit", "low_95", "high_95", "reference_low", "reference_high",
    "grade", "note",
)  # fmt: skip
Row = dict[str, str | int | float | None]


def poisson_interval(cells: int) -> tuple[float, float]:
    """Exact 95 % interval of the mean of a count (Garwood 1936)."""
    low = float(chi2.ppf(0.025, 2 * cells)) / 2 if cells else 0.0
    return low, float(chi2.ppf(0.975, 2 * cells + 2)) / 2


def grade(item: str, percent: float) -> str:
    """ "few", "moderate" or "many" of ICSH 2015; empty where it has no grade for a shape or for so few cells."""
    if item not in GRADES:
        return ""
    moderate, many = GRADES[item]
    if percent > many:
        return "many"
    if percent >= moderate:
        return "moderate"
    return "few" if item == "schistocyte" and percent > 0 else ""


@dataclass
class Tally:
    """Typed cells of one or more images without those cut by the edge: numbers by kind ("white" or "red") and type, by
    type and subtype, and the diameters of the red cells, in microns where these are known.
    """

    types: dict[str, Counter[str]] = field(default_factory=lambda: {"white": Counter(), "red": Counter()})
    subtypes: Counter[tuple[str, str]] = field(default_factory=Counter)
    diameters_px: list[float] = field(default_factory=list)
    diameters_um: list[float] = field(default_factory=list)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count rows of ``cells.csv``, see :func:`bccd_d2.io.cells_table.read_cells`."""
        for row in rows:
            kind = kind_of(row["class"])
            if kind not in self.types or row["touches_border"]:
                continue
            if kind == "red":
                self.diameters_px.append(row["equivalent_diameter_px"])
                if np.isfinite(microns := row.get("equivalent_diameter_um", np.nan)):
                    self.diameters_um.append(microns)
            if row.get("type"):
                self.types[kind][row["type"]] += 1
                if row.get("subtype"):
                    self.subtypes[row["type"], row["subtype"]] += 1


def differential(tally: Tally) -> list[Row]:
    """The rows of ``differential.csv``, with :data:`COLUMNS` as keys.

    White cells are in per cent of the white cells that have a type, without :data:`OTHER` and erythroblasts; these are
    in per cent of all white cells, and per 100 white cells with a type. Red cells are in per cent of the red cells
    that have a type.
    """
    rows: list[Row] = []
    for kind, counts in tally.types.items():
        total = sum(counts.values())
        if not total:
            continue
        typed = total - counts[OTHER] - (counts[ERYTHROBLAST] if kind == "white" else 0)
        order = [name for name in (*REFERENCE_RANGES, *GRADES) if name in counts]
        for name in [*order, *sorted(set(counts) - set(order) - {OTHER})]:
            if name == ERYTHROBLAST and kind == "white":
                scale = 100 / typed if typed else np.nan
                low, high = poisson_interval(counts[name])
                row = _row(kind, name, counts[name], typed, scale * counts[name], "per 100 white cells")
                row |= {"low_95": scale * low, "high_95": scale * high}
            else:
                row = _share(kind, name, counts[name], typed)
            if kind == "white" and name in REFERENCE_RANGES:
                row["reference_low"], row["reference_high"] = REFERENCE_RANGES[name]
            if kind == "red" and row["value"] is not None:
                row["grade"] = grade(name, float(row["value"]))
            rows.append(row)
            finer = {subtype: n for (group, subtype), n in sorted(tally.subtypes.items()) if group == name}
            rows += [_share(kind, f"{name}: {subtype}", n, typed) for subtype, n in finer.items()]
        rows.append(_share(kind, OTHER, counts[OTHER], total))
    return rows + _sizes(tally)


def _sizes(tally: Tally) -> list[Row]:
    """Mean diameter of the red cells and its coefficient of variation, in microns where each image has them."""
    if len(tally.diameters_px) < 2:
        return []
    micron = len(tally.diameters_um) == len(tally.diameters_px)
    values = np.array(tally.diameters_um if micron else tally.diameters_px)
    number, mean, deviation = len(values), float(values.mean()), float(values.std(ddof=1))
    half = 1.96 * deviation / number**0.5
    unit = "um" if micron else "px"
    diameter = _row("red", "mean diameter", number, number, mean, unit)
    variation = _row(
        "red", "coefficient of variation of the diameter", number, number, 100 * deviation / mean, "%"
    )
    return [diameter | {"low_95": mean - half, "high_95": mean + half}, variation]


def _share(kind: str, item: str, cells: int, of: int) -> Row:
    low, high = binomial_interval(cells, of)
    row = _row(kind, item, cells, of, 100 * cells / of if of else None, "%")
    return row | {"low_95": 100 * low, "high_95": 100 * high}


def _row(kind: str, item: str, cells: int, of: int, value: float | None, unit: str) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"cells_of": kind, "item": item, "cells": cells, "of": of, "value": value, "unit": unit}
    return row | {"note": NOTE}


def as_text(rows: Iterable[Row]) -> str:
    """The differential as lines for a terminal."""
    lines = []
    for row in rows:
        if row["value"] is None:
            continue
        text = f"  {row['cells_of']:5} {row['item']:42} {row['cells']:>6} {row['value']:7.1f} {row['unit']}"
        if row["low_95"] is not None:
            text += f" ({row['low_95']:.1f} to {row['high_95']:.1f})"
        if row["reference_low"] is not None:
            text += f", adults {row['reference_low']:g} to {row['reference_high']:g}"
        if row["grade"]:
            text += f", {row['grade']}"
        lines.append(text)
    return "\n".join([f"types ({NOTE}; 95 % intervals are of counting alone):", *lines])
