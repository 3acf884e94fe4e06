"""The audit as one HTML page that refers to no other file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from bccd_d2.audit.pictures import Pictures
from bccd_d2.audit.words import KINDS
from bccd_d2.drawing.charts import chart_axes
from bccd_d2.drawing.pages import number, render, svg_uri

BAR, MARK = "#7f8dc4", "#e8462b"


def render_page(document: Mapping[str, Any], pictures: Mapping[str, Pictures]) -> str:
    """Render the page of a document (:func:`bccd_d2.audit.document.build_document`) with the pictures of images by
    stem.
    """
    images = {image["stem"]: image for image in document["images"]}
    outlined = {stem: drawn.outlined for stem, drawn in pictures.items() if drawn.outlined}
    details = [detail for drawn in pictures.values() for detail in drawn.details]
    return render(
        "bccd_d2.audit",
        "audit.html",
        {"swatch": _swatch, "lab": _lab, "options": _options},
        document=document,
        kinds=KINDS,
        images=images,
        worst=[(images[stem], outlined[stem]) for stem in document["worst"] if stem in outlined],
        details={kind: [svg for found, svg in details if found == kind] for kind in KINDS},
        plain={stem: drawn.plain for stem, drawn in pictures.items() if drawn.plain},
        charts={name: svg_uri(figure) for name, figure in _charts(document).items()},
        ranked=sorted(document["images"], key=lambda image: (-image["score"], image["stem"])),
    )


def _charts(document: Mapping[str, Any]) -> dict[str, Figure]:
    cells = document["cells"]
    diameter, area = cells["diameter"]["median"], cells["area"]["median"]
    area_marks = {"median": area, "twice the median": 2 * area} if area else {}
    return {
        "per_image": histogram(cells["per_image"]["histogram"], "outlined cells on an image", "images", {}),
        "diameter": histogram(
            cells["diameter"]["histogram"],
            "diameter of a disc of the same area, pixels",
            "cells",
            {"median": diameter} if diameter else {},
        ),
        "area": histogram(cells["area"]["histogram"], "area, pixels", "cells", area_marks),
        "stains": stain_scatter(document["images"]),
    }


def histogram(found: Mapping[str, Any], x_label: str, y_label: str, marks: Mapping[str, float]) -> Figure:
    """A histogram of ``edges``, ``counts`` and ``beyond`` (number of values above the last edge), with vertical
    lines at ``marks``, their values by label.
    """
    figure, axes = chart_axes(5.6, 2.6)
    axes.set(xlabel=x_label, ylabel=y_label)
    if not found["counts"]:
        axes.text(0.5, 0.5, "nothing to count", ha="center", transform=axes.transAxes)
        return figure
    edges = np.asarray(found["edges"])
    axes.bar(edges[:-1], found["counts"], 0.9 * np.diff(edges), align="edge", color=BAR)
    axes.set_xlim(edges[0], edges[-1])
    for label, value in marks.items():
        if edges[0] <= value <= edges[-1]:
            axes.axvline(value, color=MARK, linestyle="--", linewidth=1.2, label=f"{label}: {value:,.0f}")
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    if found["beyond"]:
        text = f"{found['beyond']:,} beyond \N{RIGHTWARDS ARROW}"
        axes.text(1, 0.06, text, ha="right", fontsize=8, transform=axes.transAxes)
    return figure


def stain_scatter(images: Sequence[Mapping[str, Any]]) -> Figure:
    """b* of the cells over b* of the background: one disc in the cells' colour on a tile in the background's per image.

    The numbers are those of the stain groups.
    """
    figure, axes = chart_axes(6.8, 5.2)
    axes.set(
        xlabel="background, b*: blue (low) to yellow (high)", ylabel="cells, b*: blue (low) to yellow (high)"
    )
    shown = [i for i in images if None not in (*i["lab"]["cell_mean"], *i["lab"]["background_mean"])]
    if not shown:
        axes.text(0.5, 0.5, "no image with cells and background", ha="center", transform=axes.transAxes)
        return figure
    for image in shown:
        cell, background = image["lab"]["cell_mean"], image["lab"]["background_mean"]
        place = (background[2], cell[2])
        axes.plot(*place, "s", color=lab_to_hex(background), markeredgecolor="#9aa3b1", markersize=17)
        axes.plot(*place, "o", color=lab_to_hex(cell), markeredgecolor="#9aa3b1", markersize=12)
        group = (image["stain"] or "").rsplit(" ", 1)[-1]
        axes.text(*place, group, color="white", weight="bold", fontsize=8, ha="center", va="center")
    axes.margins(0.08)
    return figure


def lab_to_hex(lab: Sequence[float]) -> str:
    """``#rrggbb`` of a CIELAB colour (L* 0..100, a* and b* signed), clipped to sRGB."""
    rgb = cv2.cvtColor(np.array(lab, np.float32).reshape(1, 1, 3), cv2.COLOR_LAB2RGB).ravel()
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in np.clip(rgb, 0, 1))


def _options(text: str) -> Markup:
    """Command-line options in a sentence as ``<code>``."""
    return Markup(re.sub(r"--[a-z-]*[a-z]", r"<code>\g<0></code>", str(escape(text))))


def _lab(lab: Sequence[float | None]) -> str:
    return "CIELAB " + ", ".join(number(value, 1) for value in lab)


def _swatch(lab: Sequence[float | None]) -> str:
    known = [value for value in lab if value is not None]
    return lab_to_hex(known) if len(known) == 3 else "transparent"
