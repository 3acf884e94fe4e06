"""Images with the outlines of truth and prediction, errors in the colour of their bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.taxonomy import BINS, ImageErrors
from bccd_d2.reporting.bins import BIN_COLORS
from bccd_d2.structures.cells import Cells

SIDE = 1000
"""Longest side in pixels of an image in a figure."""


@dataclass(frozen=True)
class Case:
    """One image to show.

    Attributes:
        image: (height, width, 3) uint8, RGB, native size.
        cells: what is true and what was predicted on it.
        errors: their bins.
        title: a line above.
    """

    image: NDArray[np.uint8]
    cells: EvaluationImage
    errors: ImageErrors
    title: str


def case_grid(cases: Sequence[Case], title: str) -> Figure:
    """Images in two columns, true cells dashed and predictions solid, in the colour of their error bin.

    Args:
        cases: at least one.
        title: of the figure.
    """
    columns = min(2, len(cases))
    rows = -(-len(cases) // columns)
    height, width = cases[0].image.shape[:2]
    panel = 7.2
    size = (panel * columns, rows * (panel * height / width + 0.35) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    present: Counter[str] = Counter()
    for axes, case in zip(grid, cases):
        _show(axes, case)
        present.update(case.errors.true_bins)
        present.update(name for name in case.errors.predicted_bins if name is not None)
    handles = [
        Line2D([], [], color=BIN_COLORS[name], linewidth=1.2 if name == "correct" else 2.2, label=name)
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
            chosen = [index for index, found in enumerate(bins) if found == name]
            if not chosen:
                continue
            lines = [line for index in chosen for line in outlines(cells, index)]
            fine = name in ("correct", "ignored")
            axes.add_collection(
                LineCollection(
                    lines,
                    colors=BIN_COLORS[name],
                    linewidths=0.9 if fine else 1.9,
                    linestyles=style,
                    zorder=2 + (not fine),
                )
            )


def outlines(cells: Cells, index: int) -> Iterator[NDArray[np.float64]]:
    """Closed outlines of a cell, (P, 2) x and y in native pixels each."""
    x0, y0 = cells.windows[index, :2]
    found, _ = cv2.findContours(
        cells.masks[index].astype(np.uint8),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_NONE,
        offset=(int(x0), int(y0)),
    )
    for outline in found:
        yield np.concatenate([outline, outline[:1]]).reshape(-1, 2).astype(np.float64)
