"""Images with the cells to point at: an embedded JPEG with SVG outlines of truth and prediction above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from bccd_d2.evaluation.taxonomy import CORRECT, IGNORED
from bccd_d2.io.images import read_rgb
from bccd_d2.reporting.cases import Case
from bccd_d2.reporting.page_words import number
from bccd_d2.reporting.part import EvaluatedPart
from bccd_d2.reporting.pictures import dump, jpeg_uri, outline_path
from bccd_d2.structures.cells import Cells

LONGEST, THUMBNAIL = 1100, 150
"""Longest side in pixels of the embedded pictures."""
SHOWN = 12
"""Images that a report shows unless told otherwise; a 1600x1200 smear takes about 0.25 MB."""


@dataclass(frozen=True)
class Shown:
    """One image on the page.

    Attributes:
        number: its place among all images of the part, 1 for the worst.
        record: of ``evaluation.per_image``.
        svg: the image with its outlines.
        thumbnail: data URI of a small JPEG.
    """

    number: int
    record: Mapping[str, Any]
    svg: str
    thumbnail: str


def ranking(part: EvaluatedPart) -> list[int]:
    """Indices of the images that can be read, worst IoU first; of equal ones the lower F1 first."""

    def badness(index: int) -> tuple[float, float, int]:
        record = part.evaluation.per_image[index]
        f1 = record["f1"]
        return record["iou"], 1.0 if isinstance(f1, str) else f1, index

    return sorted(
        (i for i, image in enumerate(part.source.dataset.images) if image.path is not None), key=badness
    )


def choose(ranked: Sequence[int], shown: int) -> list[int]:
    """At most so many, in order: two thirds of them the worst, the rest the best."""
    if len(ranked) <= shown:
        return list(ranked)
    worst = shown - shown // 3
    return [*ranked[:worst], *ranked[len(ranked) - (shown - worst) :]]


def case(part: EvaluatedPart, index: int) -> Case:
    """An image with its cells, read from its file."""
    image = part.source.dataset.images[index]
    assert image.path is not None, "ranking() leaves out images that are not there"
    record = part.evaluation.per_image[index]
    name = image.file_name.rsplit("/", 1)[-1]
    title = f"{part.name}: {name}\nIoU {record['iou']:.3f}, {record['true_positives']} of {record['cells']} cells found"
    return Case(read_rgb(image.path), image, part.evaluation.image_errors[index], title)


def show(part: EvaluatedPart, shown: int) -> list[Shown]:
    """Draw the images that the page shows."""
    ranked = ranking(part)
    places = {index: place for place, index in enumerate(ranked, start=1)}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for record in part.evaluation.per_cell:
        by_image.setdefault(record["image_id"], []).append(record)
    pictures = []
    for index in choose(ranked, shown):
        drawn = case(part, index)
        height, width = drawn.image.shape[:2]
        svg = overlay(drawn, by_image.get(drawn.cells.image_id, []))
        thumbnail = jpeg_uri(drawn.image, (0, 0, width, height), THUMBNAIL, quality=70)
        pictures.append(Shown(places[index], part.evaluation.per_image[index], svg, thumbnail))
    return pictures


def overlay(drawn: Case, records: Iterable[Mapping[str, Any]]) -> str:
    """An ``<svg>`` of the image; each outline knows what it is (``<title>``) and its bin (its class).

    Args:
        drawn: the image and its cells.
        records: of ``evaluation.per_cell``, of this image.
    """
    height, width = drawn.image.shape[:2]
    name = drawn.cells.file_name
    svg = Element(
        "svg", {"viewBox": f"0 0 {width} {height}", "class": "picture", "role": "img", "aria-label": name}
    )
    frame = {"x": "0", "y": "0", "width": str(width), "height": str(height)}
    ElementTree.SubElement(
        svg, "image", {**frame, "href": jpeg_uri(drawn.image, (0, 0, width, height), LONGEST)}
    )
    # What is right lies below what is wrong, and truth below prediction, so that the interesting outline is pointed at.
    order = sorted(records, key=lambda r: (r["bin"] not in (CORRECT, IGNORED), r["kind"] == "prediction"))
    for record in order:
        cells: Cells = drawn.cells.truth if record["kind"] == "truth" else drawn.cells.predictions
        x0, y0 = cells.windows[record["index"], :2].tolist()
        path = outline_path(cells.masks[record["index"]], x0, y0)
        css = f"{'t' if record['kind'] == 'truth' else 'p'} {record['bin'].replace(' ', '-')}"
        group = ElementTree.SubElement(svg, "g", {"class": css})
        ElementTree.SubElement(group, "title").text = describe(record)
        ElementTree.SubElement(group, "path", {"d": path})
    return dump(svg)


def describe(record: Mapping[str, Any]) -> str:
    """What a cell is, in one line."""
    what = "annotated" if record["kind"] == "truth" else "predicted"
    score = "" if record["score"] is None else f", score {record['score']:.2f}"
    return (
        f"{what} {record['class']}{score}: {record['bin']}; area {number(record['area_px'])} px, "
        f"diameter {number(record['diameter_px'])} px, best IoU {record['iou']:.2f}"
    )
