"""Images of an evaluation with the outlines of truth and predictions, in the colour of their error bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bccd_d2.drawing.pages import Outline, jpeg_uri, number, outline_path, svg_picture
from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.error_bins import BINS, CORRECT, IGNORED, ImageErrors
from bccd_d2.io.images import read_image
from bccd_d2.reporting.sources import EvaluatedPart
from bccd_d2.reporting.wording import BIN_COLORS
from bccd_d2.structures.cells import Cells

SIDE, LONGEST, THUMBNAIL = 1000, 1100, 150
"""Longest side in pixels of an image in a figure, on the page, and of a thumbnail."""
IN_FIGURE = 4
"""Images in the figures of the best and of the worst cases."""
SHOWN = 12
"""Default number of images on the page; a 1600x1200 smear takes about 0.25 MB."""


@dataclass(frozen=True)
class Case:
    """One image to show."""

    image: NDArray[np.uint8]  # (height, width, 3) uint8, RGB, native size
    cells: EvaluationImage  # its truth and predictions
    errors: ImageErrors  # their bins
    title: str  # a line above


@dataclass(frozen=True)
class Shown:
    """One image on the page."""

    number: int  # rank among all images of the part, 1 for the worst
    record: Mapping[str, Any]  # of ``evaluation.per_image``
    svg: Markup  # the image with its outlines
    thumbnail: str  # data URI of a small JPEG


def ranking(part: EvaluatedPart) -> list[int]:
    """Indices of the images that can be read, lowest IoU first; of equal ones the lower F1 first."""

    def badness(index: int) -> tuple[float, float]:
        record = part.evaluation.per_image[index]
        return record["iou"], 1.0 if record["f1"] is None else record["f1"]  # None without true cells

    shown = [index for index, image in enumerate(part.source.dataset.images) if image.path is not None]
    return sorted(shown, key=badness)


def choose(ranked: Sequence[int], shown: int) -> list[int]:
    """At most ``shown`` of the images, in order: two thirds of them the worst, the rest the best."""
    if len(ranked) <= shown:
        return list(ranked)
    worst = shown - shown // 3
    return [*ranked[:worst], *ranked[len(ranked) - (shown - worst) :]]


def read_case(part: EvaluatedPart, index: int) -> Case:
    """Read an image of a part from its file."""
    image = part.source.dataset.images[index]
    assert image.path is not None, "ranking() leaves out images without a file"
    record = part.evaluation.per_image[index]
    name = image.file_name.rsplit("/", 1)[-1]
    title = f"{part.name}: {name}\nIoU {record['iou']:.3f}, {record['true_positives']} of {record['cells']} cells found"
    return Case(read_image(image.path, "RGB"), image, part.evaluation.image_errors[index], title)


def shown_cases(part: EvaluatedPart, shown: int) -> list[Shown]:
    """The images of a part for the page, at most ``shown``."""
    ranked = ranking(part)
    ranks = {index: rank for rank, index in enumerate(ranked, start=1)}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for record in part.evaluation.per_cell:
        by_image.setdefault(record["image_id"], []).append(record)
    pictures = []
    for index in choose(ranked, shown):
        case = read_case(part, index)
        outlines = _outlines(case.cells, by_image.get(case.cells.image_id, []))
        svg = svg_picture(case.image, outlines, case.cells.file_name, LONGEST)
        thumbnail = jpeg_uri(case.image, THUMBNAIL, quality=70)
        pictures.append(Shown(ranks[index], part.evaluation.per_image[index], svg, thumbnail))
    return pictures


def _outlines(image: EvaluationImage, records: Iterable[Mapping[str, Any]]) -> Iterator[Outline]:
    """Each cell of ``evaluation.per_cell``; CSS classes are ``t`` or ``p`` and the bin."""
    # Errors above correct cells, and predictions above truth, so that hovering meets the interesting outline.
    order = sorted(records, key=lambda r: (r["bin"] not in (CORRECT, IGNORED), r["kind"] == "prediction"))
    for record in order:
        annotated = record["kind"] == "truth"
        cells = image.truth if annotated else image.predictions
        x0, y0 = cells.windows[record["index"], :2].tolist()
        css = f"{'t' if annotated else 'p'} {record['bin'].replace(' ', '-')}"
        score = "" if record["score"] is None else f", score {record['score']:.2f}"
        title = (
            f"{'annotated' if annotated else 'predicted'} {record['class']}{score}: {record['bin']}; area "
            f"{number(record['area_px'])} px, diameter {number(record['diameter_px'])} px, best IoU {record['iou']:.2f}"
        )
        yield Outline(css, outline_path(cells.masks[record["index"]], x0, y0), title)


def case_figures(parts: Sequence[EvaluatedPart]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the best and of the worst images of all parts, of those whose files exist."""
    ranked = [
        (part.evaluation.per_image[index]["iou"], part, index) for part in parts for index in ranking(part)
    ]
    ranked.sort(key=lambda entry: entry[0])
    if not ranked:
        return
    for name, title, chosen in (
        ("best_images", "Best images by IoU", ranked[::-1][:IN_FIGURE]),
        ("worst_images", "Worst images by IoU", ranked[:IN_FIGURE]),
    ):
        cases = [read_case(part, index) for _, part, index in chosen]
        yield name, case_grid(cases, f"{title}: {len(cases)} of {len(ranked)}")


def case_grid(cases: Sequence[Case], title: str) -> Figure:
    """One image or more in two columns, true cells dashed and predictions solid, in the colour of their error bin."""
    columns = min(2, len(cases))
    rows = -(-len(cases) // columns)
    height, width = cases[0].image.shape[:2]
    panel = 7.2
    size = (panel * columns, rows * (panel * height / width + 0.35) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    present: Counter[str | None] = Counter()
    for axes, case in zip(grid, cases):
        _show(axes, case)
        present.update([*case.errors.true_bins, *case.errors.predicted_bins])
    handles = [
        Line2D([], [], color=BIN_COLORS[name], linewidth=1.2 if name == CORRECT else 2.2, label=name)
        for name in BINS
        if present[name]
    ]
    handles.append(Line2D([], [], color="0.3", linestyle="--", label="annotated"))
    handles.append(Line2D([], [], color="0.3", linestyle="-", label="predicted"))
    figure.suptitle(title, fontsize=13)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=10
    )
    return figure


def _show(axes: Axes, case: Case) -> None:
    height, width = case.image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(case.image, size, interpolation=cv2.INTER_AREA)
    axes.imshow(small, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axes.set_title(case.title, fontsize=10)
    sides = (
        (case.cells.truth, case.errors.true_bins, "--"),
        (case.cells.predictions, case.errors.predicted_bins, "-"),
    )
    for cells, bins, style in sides:
        for name in BINS:
            lines = [line for i, found in enumerate(bins) if found == name for line in _contours(cells, i)]
            if lines:
                fine = name in (CORRECT, IGNORED)
                axes.add_collection(
                    LineCollection(
                        lines,
                        colors=BIN_COLORS[name],
                        linewidths=0.9 if fine else 1.9,
                        linestyles=style,
                        zorder=2 + (not fine),
                    )
                )


def _contours(cells: Cells, index: int) -> Iterator[NDArray[np.float64]]:
    """Closed contours of a cell, each (P, 2) x and y in native pixels."""
    mask, corner = cells.masks[index].astype(np.uint8), tuple(cells.windows[index, :2].tolist())
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=corner)
    for contour in found:
        yield np.concatenate([contour, contour[:1]]).reshape(-1, 2).astype(np.float64)
