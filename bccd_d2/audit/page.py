"""The audit as one HTML page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from bccd_d2.audit.charts import Dot, Mark, histogram, lab_to_hex, scatter
from bccd_d2.audit.pictures import Pictures
from bccd_d2.audit.words import KINDS
from bccd_d2.reporting.pages import number, render


def render_page(document: Mapping[str, Any], pictures: Mapping[str, Pictures]) -> str:
    """Render the page.

    Args:
        document: see :func:`bccd_d2.audit.document.build_document`.
        pictures: by stem, as far as they were drawn.

    Returns:
        An HTML document that refers to no other file.
    """
    images = {image["stem"]: image for image in document["images"]}
    return render(
        "bccd_d2.audit",
        "page.html",
        {"swatch": _swatch, "lab": _lab, "options": _options},
        document=document,
        kinds=KINDS,
        images=images,
        worst=[
            (images[stem], pictures[stem].outlined)
            for stem in document["worst"]
            if stem in pictures and pictures[stem].outlined
        ],
        details={kind: _details(kind, pictures.values()) for kind in KINDS},
        plain={stem: drawn.plain for stem, drawn in pictures.items() if drawn.plain},
        charts={name: Markup(svg) for name, svg in _charts(document).items()},
        ranked=sorted(document["images"], key=lambda image: (-image["score"], image["stem"])),
    )


def _charts(document: Mapping[str, Any]) -> dict[str, str]:
    cells = document["cells"]
    typical, largest = cells["diameter"]["median"], cells["area"]["median"]
    return {
        "per_image": histogram(
            **cells["per_image"]["histogram"], x_label="outlined cells on an image", what="images"
        ),
        "diameter": histogram(
            **cells["diameter"]["histogram"],
            x_label="diameter of a disc of the same area, pixels",
            what="cells",
            marks=[Mark(typical, f"median {typical:.0f}")] if typical else [],
        ),
        "area": histogram(
            **cells["area"]["histogram"],
            x_label="area, pixels",
            what="cells",
            marks=[Mark(largest, f"median {largest:,.0f}"), Mark(2 * largest, "twice the median")]
            if largest
            else [],
        ),
        "stains": scatter(
            _dots(document["images"]),
            x_label="glass: bluer ← b* → yellower",
            y_label="cells: bluer ↓ b* ↑ yellower",
        ),
    }


def _dots(images: Sequence[Mapping[str, Any]]) -> list[Dot]:
    dots = []
    for image in images:
        cell, glass = image["lab"]["cell_mean"], image["lab"]["glass_mean"]
        if None in cell or None in glass:
            continue
        group = image["stain"] or ""
        dots.append(
            Dot(
                x=glass[2],
                y=cell[2],
                fill=lab_to_hex(cell),
                ground=lab_to_hex(glass),
                label=group.rsplit(" ", 1)[-1],
                title=f"{image['stem']} ({group})" if group else image["stem"],
            )
        )
    return dots


def _details(kind: str, pictures: Any) -> list[Markup]:
    return [svg for drawn in pictures for found, svg in drawn.details if found == kind]


def _options(text: str) -> Markup:
    """Command-line options in a sentence, set as code that does not break."""
    return Markup(re.sub(r"--[a-z-]*[a-z]", r"<code>\g<0></code>", str(escape(text))))


def _lab(lab: Sequence[float | None]) -> str:
    return "CIELAB " + ", ".join(number(value, 1) for value in lab)


def _swatch(lab: Sequence[float | None]) -> str:
    known = [value for value in lab if value is not None]
    return lab_to_hex(known) if len(known) == 3 else "transparent"
