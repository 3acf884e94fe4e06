"""Images with the outlines of what is doubtful, as SVG over an embedded JPEG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.audit.measure import Examined, examine_pair
from bccd_d2.audit.verdicts import Kind, Suspect
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.layout import ImageMaskPair
from bccd_d2.errors import InputError
from bccd_d2.reporting.pages import Outline, circle_path, outline_path, svg_picture

LARGE, SMALL, CROP = 1000, 320, 240
"""Longest side of embedded pictures in pixels: an image with outlines, a plain thumbnail, a detail."""
DETAIL_MARGIN = 0.6
"""A detail shows this much around its subject, in lengths of the subject."""
MAX_OUTLINED = 400
"""Suspects outlined on one image, the largest first: a mask full of specks would make a page that no browser opens."""


@dataclass(frozen=True)
class PictureOrder:
    """What to draw of one pair.

    Attributes:
        pair: where it lies.
        suspects: all of them where ``outlined`` is set.
        typical_area: of a cell, in pixels; details show at least one and a half cells.
        outlined: draw the whole image with outlines.
        plain: draw a small thumbnail without.
        details: suspects to draw one by one.
    """

    pair: ImageMaskPair
    suspects: Sequence[Suspect] = ()
    typical_area: float = 0.0
    outlined: bool = False
    plain: bool = False
    details: Sequence[Suspect] = ()


@dataclass
class Pictures:
    """SVG elements as text: the outlined image, the plain one, and one a detail."""

    stem: str
    outlined: Markup | None = None
    plain: Markup | None = None
    details: list[tuple[Kind, Markup]] = field(default_factory=list)


def draw_pictures(order: PictureOrder, spec: DatasetSpec) -> Pictures | str:
    """Draw what is ordered; a fault of the files comes back as text."""
    try:
        examined = examine_pair(order.pair, spec)
    except (InputError, OSError) as error:
        return str(error)
    height, width = examined.labels.shape
    whole = (0, 0, width, height)
    pictures = Pictures(order.pair.stem)
    if order.outlined:
        pictures.outlined = _outlined(examined, whole, order.suspects, LARGE, order.pair.stem)
    if order.plain:
        pictures.plain = svg_picture(examined.image, [], order.pair.stem, SMALL)
    for suspect in order.details:
        title = f"{order.pair.stem}: {suspect.why}"
        view = _surroundings(suspect, order.typical_area, width, height)
        svg = _outlined(examined, view, [suspect], CROP, title)
        pictures.details.append((suspect.kind, svg))
    return pictures


def _surroundings(
    suspect: Suspect, typical_area: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """A square around a suspect, moved into the image: x, y, width, height."""
    x, y, w, h = suspect.box
    cell = 0.0 if math.isnan(typical_area) else 2 * math.sqrt(typical_area / math.pi)
    side = min(round(max(max(w, h) * (1 + 2 * DETAIL_MARGIN), 1.6 * cell, 16)), width, height)
    left = min(max(x + w // 2 - side // 2, 0), width - side)
    top = min(max(y + h // 2 - side // 2, 0), height - side)
    return left, top, side, side


def _outlined(
    examined: Examined,
    view: tuple[int, int, int, int],
    suspects: Sequence[Suspect],
    longest: int,
    title: str,
) -> Markup:
    """A part of the image with the outlines of suspects, and thin ones of all other cells."""
    named = {suspect.label for suspect in suspects if _map_of(examined, suspect) is examined.labels}
    # Neighbours that touch are outlined one by one: a common outline would hide that they are apart.
    others = "".join(
        outline_path(examined.labels[place] == label, place[1].start, place[0].start)
        for label, place in enumerate(find_objects(examined.labels), start=1)
        if place is not None and label not in named and _meets(place, view)
    )
    outlines = [Outline("cell", others)]
    for suspect in sorted(suspects, key=lambda suspect: -suspect.area)[:MAX_OUTLINED]:
        x, y, width, height = suspect.box
        if suspect.kind == "speck":
            radius = max(max(view[2:]) / (60 if longest == LARGE else 12), width, height)
            path = circle_path(x + width / 2, y + height / 2, radius)
        else:
            inside = _map_of(examined, suspect)[y : y + height, x : x + width] == suspect.label
            path = outline_path(inside, x, y)
        outlines.append(Outline(suspect.kind, path, suspect.why))
    return svg_picture(examined.image, outlines, title, longest, view)


def _map_of(examined: Examined, suspect: Suspect) -> NDArray[np.int32]:
    """The map that a suspect's label belongs to."""
    if suspect.kind in ("unlabelled", "cut_unlabelled"):
        return examined.unlabelled
    return examined.specks if suspect.kind == "speck" else examined.labels


def _meets(place: tuple[slice, slice], view: tuple[int, int, int, int]) -> bool:
    x, y, width, height = view
    rows, columns = place
    return rows.start < y + height and rows.stop > y and columns.start < x + width and columns.stop > x
