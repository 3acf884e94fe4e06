"""How many cells of each class there are: in an image, in all of them, and for an area of the smear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.inference.measurements import BORDER_MARGIN
from bccd_d2.structures.cells import Cells

COUNT_COLUMNS = (
    "image",
    "class",
    "cells",
    "share",
    "cells_in_frame",
    "share_in_frame",
    "area_mm2",
    "cells_per_mm2",
)
ALL_CLASSES, ALL_IMAGES = "all", "all images"


@dataclass(frozen=True)
class Counts:
    """Numbers of cells by class of one image, or of several together.

    Attributes:
        cells: by class name, all that were found.
        in_frame: by class name, those of the unbiased counting frame, see :func:`in_counting_frame`.
        area_mm2: of the image or images; ``None`` where it is not known.
    """

    cells: Mapping[str, int]
    in_frame: Mapping[str, int]
    area_mm2: float | None = None


def in_counting_frame(cells: Cells) -> NDArray[np.bool_]:
    """Which cells count when the image stands for a part of the smear: not those at its right or lower border.

    Gundersen's unbiased counting frame (Gundersen 1977), which a haemocytometer's rule follows as well: of the cells
    that the border cuts, those on the left and upper one belong to this field, those on the right and lower one to the
    next. So each cell of a smear cut into fields belongs to one of them, and the number N over the area of the image,
    width x height, is an unbiased density, where counting all cells overstates it by about the share
    (w / width + h / height) for cells of size w x h.

    Returns:
        (N,) bool.
    """
    right, bottom = cells.windows[:, 2], cells.windows[:, 3]
    return (right < cells.width - BORDER_MARGIN) & (bottom < cells.height - BORDER_MARGIN)


def count_cells(cells: Cells, class_names: Sequence[str], microns_per_pixel: float | None = None) -> Counts:
    """Count the cells of one image.

    Args:
        cells: with a pixel at least each.
        class_names: by class index.
        microns_per_pixel: ``None`` where it is not known.
    """
    found, framed = (
        np.bincount(classes, minlength=len(class_names)).tolist()
        for classes in (cells.classes, cells.classes[in_counting_frame(cells)])
    )
    area = None
    if microns_per_pixel is not None:
        area = cells.height * cells.width * microns_per_pixel**2 / 1e6
    return Counts(dict(zip(class_names, found)), dict(zip(class_names, framed)), area)


def add_counts(parts: Iterable[Counts]) -> Counts:
    """The counts of several images together; their area is known if that of each is."""
    cells: dict[str, int] = {}
    in_frame: dict[str, int] = {}
    area: float | None = 0.0
    for part in parts:
        for name in part.cells:
            cells[name] = cells.get(name, 0) + part.cells[name]
            in_frame[name] = in_frame.get(name, 0) + part.in_frame[name]
        area = None if area is None or part.area_mm2 is None else area + part.area_mm2
    return Counts(cells, in_frame, area)


def count_rows(image: str, counts: Counts) -> list[list[str | int | float | None]]:
    """One row a class and one for all classes, in the order of :data:`COUNT_COLUMNS`.

    Shares are of all cells, the differential count; ``None`` where nothing was counted or the area is not known.
    """
    totals = (sum(counts.cells.values()), sum(counts.in_frame.values()))
    classes = [(name, number, counts.in_frame[name]) for name, number in counts.cells.items()]
    return [
        [
            image,
            name,
            number,
            number / totals[0] if totals[0] else None,
            framed,
            framed / totals[1] if totals[1] else None,
            counts.area_mm2,
            framed / counts.area_mm2 if counts.area_mm2 else None,
        ]
        for name, number, framed in [*classes, (ALL_CLASSES, *totals)]
    ]
