"""Which images of the audit are shown, and their pictures with the outlines of issues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.audit.issues import ImageIssues, Issue, Kind
from bccd_d2.audit.measure import Examined, examine_pair
from bccd_d2.audit.words import KINDS
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.pairs import ImageMaskPair
from bccd_d2.drawing.pages import Outline, circle_path, outline_path, svg_picture
from bccd_d2.structures.cell_size import disc_diameter

LARGE, SMALL, CROP = 1000, 320, 240
"""Longest side of embedded pictures in pixels: an image with outlines, a thumbnail, a detail."""
DETAIL_MARGIN = 0.6  # a detail shows this much around its issue, in lengths of the issue
MAX_OUTLINED = 400
"""Issues outlined on one image, the largest first: a mask full of specks would make the page too large for browsers."""
EXAMPLES = 8  # details shown of each kind of issue
SHOWN_PAIRS = 12  # pairs of similar images shown as thumbnails; the JSON lists all


@dataclass(frozen=True)
class PictureOrder:
    """What to draw of one pair."""

    pair: ImageMaskPair  # where it lies
    found: ImageIssues  # its issues
    outlined: bool  # draw the whole image with outlines
    plain: bool  # draw a thumbnail without outlines
    details: Sequence[Issue]  # issues to draw one by one


@dataclass
class Pictures:
    """SVG elements: the outlined image, the thumbnail, and one per detail."""

    outlined: Markup | None = None
    plain: Markup | None = None
    details: list[tuple[Kind, Markup]] = field(default_factory=list)


def picture_orders(
    pairs: Sequence[ImageMaskPair], issues: Sequence[ImageIssues], document: Mapping[str, Any]
) -> list[PictureOrder]:
    """What to draw, by image: the worst images, examples of each kind of issue, stains and similar images."""
    worst = set(document["worst"])
    similar = [pair["images"] for pair in document["similar"]["pairs"][:SHOWN_PAIRS]]
    plain = {stem for stems in similar for stem in stems} | {group["example"] for group in document["stains"]}
    details: dict[str, list[Issue]] = {}
    for kind in KINDS:
        for stem, issue in _examples(kind, pairs, issues):
            details.setdefault(stem, []).append(issue)
    return [
        PictureOrder(pair, found, pair.stem in worst, pair.stem in plain, details.get(pair.stem, []))
        for pair, found in zip(pairs, issues)
        if pair.stem in worst | plain | details.keys()
    ]


def _examples(
    kind: Kind, pairs: Sequence[ImageMaskPair], issues: Sequence[ImageIssues]
) -> list[tuple[str, Issue]]:
    """One issue of each of the images with most issues of a kind: the largest, of merged cells the likeliest pair."""
    examples = []
    for pair, found in zip(pairs, issues):
        of_kind = [issue for issue in found.issues if issue.kind == kind]
        aim = 2 * found.typical_area if kind == "merged" else math.inf
        if of_kind:
            best = min(of_kind, key=lambda issue: (abs(issue.area - aim), -issue.area))
            examples.append((len(of_kind), pair.stem, best))
    examples.sort(key=lambda example: (-example[0], example[1]))
    return [(stem, issue) for _, stem, issue in examples[:EXAMPLES]]


def draw_pictures(order: PictureOrder, spec: DatasetSpec) -> Pictures:
    """Draw an order; raises InputError as :func:`bccd_d2.audit.measure.examine_pair`."""
    examined = examine_pair(order.pair, spec)
    height, width = examined.labels.shape
    stem = order.pair.stem
    pictures = Pictures()
    if order.outlined:
        whole = (0, 0, width, height)
        pictures.outlined = _outlined(examined, whole, order.found.issues, LARGE, stem)
    if order.plain:
        pictures.plain = svg_picture(examined.image, [], stem, SMALL)
    for issue in order.details:
        view = _surroundings(issue, order.found.typical_area, width, height)
        svg = _outlined(examined, view, [issue], CROP, f"{stem}: {issue.why}")
        pictures.details.append((issue.kind, svg))
    return pictures


def _surroundings(issue: Issue, typical_area: float, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around an issue, at least 1.6 typical cells wide, moved into the image: x, y, width, height."""
    x, y, w, h = issue.box
    cell = 0.0 if math.isnan(typical_area) else disc_diameter(typical_area)
    side = min(round(max(max(w, h) * (1 + 2 * DETAIL_MARGIN), 1.6 * cell, 16)), width, height)
    left = min(max(x + w // 2 - side // 2, 0), width - side)
    top = min(max(y + h // 2 - side // 2, 0), height - side)
    return left, top, side, side


def _outlined(
    examined: Examined, view: tuple[int, int, int, int], issues: Sequence[Issue], longest: int, title: str
) -> Markup:
    """A part of the image with the outlines of issues, and thin ones of all other cells."""
    x0, y0, columns, rows = view
    with_issue = {issue.label for issue in issues if _map_of(examined, issue) is examined.labels}
    # Touching cells are outlined one by one: a common outline would hide that they are apart.
    others = "".join(
        outline_path(examined.labels[place] == label, place[1].start, place[0].start)
        for label, place in enumerate(find_objects(examined.labels), start=1)
        if place is not None
        and label not in with_issue
        and (place[0].start < y0 + rows and place[0].stop > y0)
        and (place[1].start < x0 + columns and place[1].stop > x0)
    )
    outlines = [Outline("cell", others)]
    for issue in sorted(issues, key=lambda issue: -issue.area)[:MAX_OUTLINED]:
        x, y, width, height = issue.box
        if issue.kind == "speck":  # too small to be seen without a ring around it
            ring = max(max(columns, rows) / (60 if longest == LARGE else 12), width, height)
            path = circle_path(x + width / 2, y + height / 2, ring)
        else:
            inside = _map_of(examined, issue)[y : y + height, x : x + width] == issue.label
            path = outline_path(inside, x, y)
        outlines.append(Outline(issue.kind, path, issue.why))
    return svg_picture(examined.image, outlines, title, longest, view)


def _map_of(examined: Examined, issue: Issue) -> NDArray[np.int32]:
    """The map that an issue's label belongs to."""
    if issue.kind in ("unlabelled", "cut_unlabelled"):
        return examined.unlabelled
    return examined.specks if issue.kind == "speck" else examined.labels
