"""Building blocks of the HTML pages: templates, numbers in words, images with outlines, charts as SVG.

A page refers to no other file: images are embedded as JPEG, charts and outlines as SVG.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import cv2
import matplotlib
import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

QUALITY = 78
"""Of embedded JPEGs."""
_TOLERANCE = 1.0  # pixels of the image to within which outlines are simplified
DASH = "\N{EN DASH}"


def number(value: float | None, decimals: int = 0) -> str:
    """With thousands separated: ``4,347``; a dash for ``None``."""
    return DASH if value is None else f"{value:,.{decimals}f}"


def count(value: int, one: str, many: str) -> str:
    """``1 cell``, ``4,347 cells``."""
    return f"{number(value)} {one if value == 1 else many}"


def join(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def render(package: str, template: str, filters: dict[str, Any], **values: Any) -> str:
    """Render a template of a package's folder ``templates``; text is escaped, a name without a value is an error.

    Templates may include those of ``bccd_d2.drawing`` and use the functions ``count`` and ``join`` and the filter
    ``number``.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("bccd_d2.drawing")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters, number=number)
    environment.globals.update(count=count, join=join)
    return environment.get_template(template).render(values)


class Outline(NamedTuple):
    """A shape on an image."""

    css: str  # its CSS classes
    path: str  # SVG path data in pixels of the image
    title: str = ""  # shown on hover; empty for none


def svg_picture(
    image: NDArray[np.uint8],
    outlines: Iterable[Outline],
    title: str,
    longest: int,
    view: tuple[int, int, int, int] | None = None,
) -> Markup:
    """An ``<svg>`` of a (height, width, 3) uint8 RGB image, embedded as JPEG of at most ``longest`` pixels a side.

    The last outline is drawn on top; ``title`` is for screen readers; ``view`` (x, y, width, height) shows only that
    part.
    """
    x, y, width, height = view or (0, 0, image.shape[1], image.shape[0])
    svg = Element(
        "svg",
        {"viewBox": f"{x} {y} {width} {height}", "class": "picture", "role": "img", "aria-label": title},
    )
    frame = {"x": str(x), "y": str(y), "width": str(width), "height": str(height)}
    uri = jpeg_uri(image[y : y + height, x : x + width], longest)
    ElementTree.SubElement(svg, "image", {**frame, "href": uri})
    for outline in outlines:
        group = ElementTree.SubElement(svg, "g", {"class": outline.css})
        if outline.title:
            ElementTree.SubElement(group, "title").text = outline.title
        ElementTree.SubElement(group, "path", {"d": outline.path})
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def outline_path(mask: NDArray[np.bool_], x: int, y: int) -> str:
    """SVG path around the pixels of a bool (h, w) mask, moved by (x, y); empty for an empty mask."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = []
    for outline in outlines:
        points = cv2.approxPolyDP(outline, _TOLERANCE, closed=True).reshape(-1, 2)
        corners = " ".join(f"{px + x + 0.5:g} {py + y + 0.5:g}" for px, py in points)
        parts.append(f"M{corners}Z")
    return "".join(parts)


def circle_path(x: float, y: float, radius: float) -> str:
    """SVG path of a circle."""
    r = f"{radius:.1f}"
    return f"M{x - radius:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * radius:.1f} 0a{r} {r} 0 1 0 {-2 * radius:.1f} 0Z"


def jpeg_uri(image: NDArray[np.uint8], longest: int, quality: int = QUALITY) -> str:
    """An RGB image as the data URI of a JPEG, shrunk to at most ``longest`` pixels a side."""
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode an image of {width}x{height} pixels")
    return _uri("image/jpeg", data.tobytes())


def svg_uri(figure: Figure) -> str:
    """A chart as the data URI of an SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bccd_d2"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")
