"""A smear report: counts, sizes, examples and quality of the fields of one smear, an HTML page on two A4 sheets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import t

from bccd_d2.cell_types.differential import Row, Tally, differential
from bccd_d2.drawing.charts import chart_axes
from bccd_d2.drawing.overlay import class_hex
from bccd_d2.drawing.pages import jpeg_uri, render, svg_uri
from bccd_d2.errors import InputError
from bccd_d2.evaluation.bootstrap import binomial_interval
from bccd_d2.inference.collect import image_cells
from bccd_d2.inference.outputs import Outputs
from bccd_d2.inference.predict_file import Images
from bccd_d2.inference.quality import FLAGS, Quality
from bccd_d2.inference.results import Counts, ImageResult, add_counts
from bccd_d2.io.images import MAX_PIXELS, open_source
from bccd_d2.io.sources import ImageSource
from bccd_d2.io.storage import local_copy
from bccd_d2.structures.cell_kinds import kind_of

REPORT = "smear_report.html"
EXAMPLES = 8
"""Of each class, drawn at random."""
_TYPE_EXAMPLES = 3
# Fields and what is flagged in them, as many as the first printed page has room for beside the notice of flags.
_LISTED_LINES, _LINES_OF_FLAG = 45, 4
_CROP_DIAMETERS = 1.5
_CROP_PIXELS = 120

Place = tuple[float, float, float]
"""Centre x, y and side of a square in pixels."""
Crops = Callable[[Sequence[Place]], list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Field:
    """One image of a smear: ``cells`` are the rows of its ``cells.csv`` by column, ``crops`` reads parts of it."""

    name: str
    counts: Counts
    quality: Quality
    cells: Sequence[Mapping[str, Any]]
    crops: Crops


def field_of(result: ImageResult) -> Field:
    """A field from a result that is in memory."""
    columns = {name: column.tolist() for name, column in result.measurements.items()}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return Field(result.name, result.counts, result.quality, rows, lambda places: crop(result.source, places))


def read_fields(images: Images, outputs: Outputs, max_pixels: int = MAX_PIXELS) -> list[Field]:
    """The fields of a batch from its output folder, which has format "csv"; images without results are left out.

    Raises :class:`InputError` if a table is not there any more.
    """
    fields = []
    for path, name in images:
        record = outputs.record(name)
        for page, image in enumerate(record["images"] if record and record["error"] is None else ()):
            rows = image_cells(outputs, image["name"])
            counts, quality = Counts(**image["counts"]), Quality(**image["quality"])
            crops = partial(_read_crops, path, page, max_pixels)
            fields.append(Field(image["name"], counts, quality, rows, crops))
    return fields


def crop(source: ImageSource, places: Sequence[Place]) -> list[NDArray[np.uint8]]:
    """Square parts (side, side, 3) RGB around points, moved inwards at the border of the image."""
    parts = []
    for x, y, side in places:
        width, height = min(round(side), source.width), min(round(side), source.height)
        left = min(max(0, round(x - width / 2)), source.width - width)
        top = min(max(0, round(y - height / 2)), source.height - height)
        parts.append(np.ascontiguousarray(source.read(left, top, width, height)[..., ::-1]))
    return parts


def _read_crops(
    path: str | Path, page: int, max_pixels: int, places: Sequence[Place]
) -> list[NDArray[np.uint8]]:
    with local_copy(path) as file, open_source(file, page=page, max_pixels=max_pixels) as source:
        return crop(source, places)


def render_report(
    fields: Sequence[Field], title: str, facts: Mapping[str, str], failures: Sequence[str] = ()
) -> str:
    """Render the page; ``facts`` such as date and model stand below the title, ``failures`` say why files are left out.

    Raises :class:`InputError` if there is no field, or an image cannot be read any more.
    """
    if not fields:
        raise InputError("a smear report needs one image with results at least")
    classes = list(fields[0].counts.cells)
    colors = [class_hex(index) for index in range(len(classes))]
    total = add_counts([field.counts for field in fields])
    flags = Counter(flag for field in fields for flag in field.quality.flags)
    edge = sum(row["touches_border"] for field in fields for row in field.cells)
    # Flagged ones first, in the order of the files.
    order = sorted(range(len(fields)), key=lambda index: not fields[index].quality.flags)
    lines = np.cumsum([1 + bool(fields[index].quality.flags) for index in order])
    shown = order[: np.searchsorted(lines, _LISTED_LINES - _LINES_OF_FLAG * len(flags), side="right")]
    return render(
        "bccd_d2.inference",
        "smear_report.html",
        {},
        title=title,
        facts=facts,
        classes=list(zip(classes, colors)),
        total=total,
        number=len(fields),
        variation=[_variation(fields, name) for name in classes],
        ratio=white_to_red(total.cells),
        area=total.area_mm2,
        flags=[(flag, FLAGS[flag], count) for flag, count in flags.items()],
        flagged=sum(bool(field.quality.flags) for field in fields),
        edge=edge,
        framed=sum(total.cells.values()) - sum(total.in_frame.values()),
        empty=[field.name for field in fields if not sum(field.counts.cells.values())],
        failures=failures,
        fields=[fields[index] for index in sorted(shown)],
        sizes=svg_uri(_sizes(fields, classes, colors)),
        per_field=svg_uri(_per_field(fields, classes, colors)),
        examples=[(name, _pictures(fields, _of_class(name), EXAMPLES)) for name in classes],
        types=_types(fields),
        examples_of=partial(_examples_of, fields),
    )


def white_to_red(cells: Mapping[str, int]) -> tuple[int, int, float, float] | None:
    """White and red cells, and the 95 % interval of red cells for each white one, whose upper limit may be infinite.

    ``None`` where the classes do not tell them apart, or there are none of both.
    """
    white, red = (
        [number for name, number in cells.items() if kind_of(name) == kind] for kind in ("white", "red")
    )
    if not white or not red or not sum(white) + sum(red):
        return None
    low, high = binomial_interval(sum(white), sum(white) + sum(red))
    return sum(white), sum(red), (1 - high) / high, (1 - low) / low if low > 0 else math.inf


def _variation(fields: Sequence[Field], name: str) -> dict[str, Any]:
    """Cells of a class per field: mean, deviation, range; and their density with the interval that fields give."""
    numbers = np.array([field.counts.cells[name] for field in fields], float)
    areas = [field.counts.area_mm2 for field in fields]
    found: dict[str, Any] = {
        "name": name,
        "cells": int(numbers.sum()),
        "mean": float(numbers.mean()),
        "sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
        "low": int(numbers.min()),
        "high": int(numbers.max()),
        "density": None,
        "interval": None,
    }
    if all(areas):
        framed = np.array([field.counts.in_frame[name] for field in fields], float)
        area = np.array(areas, float)
        found["density"] = float(framed.sum() / area.sum())
        if len(fields) > 1:
            # Of a ratio of sums, by the residuals of the fields (Cochran 1977, section 6.4).
            residuals = framed - found["density"] * area
            error = residuals.std(ddof=1) / (np.sqrt(len(fields)) * area.mean())
            half = float(t.ppf(0.975, len(fields) - 1) * error)
            found["interval"] = (max(0.0, found["density"] - half), found["density"] + half)
    return found


def _sizes(fields: Sequence[Field], classes: Sequence[str], colors: Sequence[str]) -> Figure:
    """Histogram of the diameters of whole cells, in microns where all fields know them."""
    unit = "um" if all(field.counts.area_mm2 for field in fields) else "px"
    found = {
        name: np.array(
            [row[f"equivalent_diameter_{unit}"] for field in fields for row in field.cells if row["class"] == name
             and not row["touches_border"]]
        )
        for name in classes
    }  # fmt: skip
    figure, axes = chart_axes(4.6, 2.3)
    axes.set(
        xlabel=f"diameter of a disc of the same area, {'µm' if unit == 'um' else 'pixels'}", ylabel="cells"
    )
    values = np.concatenate(list(found.values()))
    if not len(values):
        axes.text(0.5, 0.5, "no whole cells", ha="center", transform=axes.transAxes)
        return figure
    edges = np.linspace(0, max(float(np.percentile(values, 99.5)) * 1.1, 1e-3), 41)
    for (name, sizes), color in zip(found.items(), colors):
        if len(sizes):
            label = f"{name}: median {np.median(sizes):.3g}"
            axes.hist(sizes, edges.tolist(), color=color, alpha=0.6, label=label)
    _legend(figure)
    return figure


def _per_field(fields: Sequence[Field], classes: Sequence[str], colors: Sequence[str]) -> Figure:
    figure, axes = chart_axes(4.6, 2.3)
    axes.set(xlabel="field, in the order of the files", ylabel="cells")
    for name, color in zip(classes, colors):
        numbers = [field.counts.cells[name] for field in fields]
        axes.plot(
            range(1, len(fields) + 1), numbers, ".-", color=color, label=name, linewidth=0.8, markersize=5
        )
    flagged = [index for index, field in enumerate(fields, start=1) if field.quality.flags]
    axes.plot(
        flagged, [0] * len(flagged), "x", color="#c0392b", markersize=5, label="flagged" if flagged else None
    )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """Above the axes, where it hides nothing."""
    figure.legend(
        fontsize=7.5, frameon=False, ncols=4, loc="outside upper left", handlelength=1.2, columnspacing=1.2
    )


def _types(fields: Sequence[Field]) -> list[tuple[str, list[Row]]]:
    """The rows of :func:`differential` by kind of cell, with examples."""
    tally = Tally()
    for field in fields:
        tally.add(field.cells)
    rows: dict[str, list[Row]] = {}
    for row in differential(tally):
        rows.setdefault(str(row["cells_of"]), []).append(row)
    return list(rows.items())


def _examples_of(fields: Sequence[Field], row: Row) -> list[str]:
    """Pictures of cells of the type or subtype that a row of the differential is of."""
    name, _, subtype = str(row["item"]).partition(": ")
    return _pictures(
        fields,
        lambda cell: (
            kind_of(cell["class"]) == row["cells_of"]
            and cell.get("type") == name
            and subtype in ("", cell.get("subtype"))
        ),
        _TYPE_EXAMPLES,
    )


def _of_class(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: row["class"] == name


def _pictures(fields: Sequence[Field], wanted: Callable[[Mapping[str, Any]], bool], most: int) -> list[str]:
    """Data URIs of cells drawn at random, the same for the same results; whole ones where there are any."""
    rows = [(index, row) for index, field in enumerate(fields) for row in field.cells if wanted(row)]
    rows = [entry for entry in rows if not entry[1]["touches_border"]] or rows
    if not rows:
        return []
    picked = np.random.default_rng(0).permutation(len(rows))[:most]
    # All examples at one magnification.
    side = _CROP_DIAMETERS * float(np.percentile([row["equivalent_diameter_px"] for _, row in rows], 90))
    pictures = []
    for index, row in sorted((rows[k] for k in picked.tolist()), key=lambda entry: entry[0]):
        place = (row["x_px"], row["y_px"], max(side, 8.0))
        pictures += [jpeg_uri(part, _CROP_PIXELS) for part in fields[index].crops([place])]
    return pictures
