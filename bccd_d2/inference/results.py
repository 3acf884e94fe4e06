"""The cells of one image with what the writers need to know of it, and how many there are of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bccd_d2.cell_types.typer import CellTypes
from bccd_d2.inference.magnification import Magnification
from bccd_d2.inference.measurements import Table, measure_cells
from bccd_d2.inference.quality import Quality, assess_quality
from bccd_d2.io.sources import ImageSource
from bccd_d2.structures.cell_kinds import red_cell_classes
from bccd_d2.structures.cells import BORDER_MARGIN, Cells


@dataclass(frozen=True)
class Counts:
    """Numbers of cells by class name, of one image or of several together.

    ``cells`` are all that were found, ``in_frame`` those that count for a density (:func:`in_counting_frame`),
    ``area_mm2`` is the area of the images, ``diameter_px`` what red cells were taken to have when the image was resized
    and ``diameter_from`` what said so (:class:`bccd_d2.inference.magnification.Magnification`); ``None`` if not known.
    """

    cells: Mapping[str, int]
    in_frame: Mapping[str, int]
    area_mm2: float | None = None
    diameter_px: float | None = None
    diameter_from: str = ""


def in_counting_frame(cells: Cells) -> NDArray[np.bool_]:
    """(N,) bool: the cells that count for a density, without those cut by the right or lower edge of the image.

    This is the unbiased counting frame (Gundersen 1977), the rule of the haemocytometer: each cell of a smear that is
    cut into fields belongs to one of them, so that the number over the area of the image is an unbiased density.
    Counting all cells overstates it by about w / width + h / height for cells of size w x h.
    """
    right, bottom = cells.windows[:, 2], cells.windows[:, 3]
    return (right < cells.width - BORDER_MARGIN) & (bottom < cells.height - BORDER_MARGIN)


def count_cells(cells: Cells, class_names: Sequence[str], microns_per_pixel: float | None = None) -> Counts:
    """Count the cells of one image, which have a pixel at least each."""
    found, framed = (
        np.bincount(classes, minlength=len(class_names)).tolist()
        for classes in (cells.classes, cells.classes[in_counting_frame(cells)])
    )
    area = None
    if microns_per_pixel is not None:
        area = cells.height * cells.width * microns_per_pixel**2 / 1e6
    return Counts(dict(zip(class_names, found)), dict(zip(class_names, framed)), area)


def add_counts(parts: Sequence[Counts]) -> Counts:
    """The counts of several images together; their area is known if that of each is."""
    cells: Counter[str] = Counter()
    in_frame: Counter[str] = Counter()
    for part in parts:
        cells.update(part.cells)
        in_frame.update(part.in_frame)
    areas = [part.area_mm2 for part in parts if part.area_mm2 is not None]
    return Counts(cells, in_frame, sum(areas, 0.0) if len(areas) == len(parts) else None)


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image; measured when a writer asks for it.

    ``cells`` have a pixel at least each, ``class_names`` are by class index, ``microns_per_pixel`` is that of the
    native image and ``training_diameter`` that of the median cell of the model's training images in pixels; ``None``
    and 0 where they are not known.
    """

    name: str
    source: ImageSource
    cells: Cells
    class_names: Sequence[str]
    microns_per_pixel: float | None = None
    magnification: Magnification | None = None
    types: CellTypes | None = None
    training_diameter: float = 0.0

    def __post_init__(self) -> None:
        if (self.cells.areas == 0).any():
            raise ValueError("cells without a pixel have no outline: leave them out")

    @cached_property
    def measurements(self) -> Table:
        """Those of :func:`measure_cells`; with types also ``type``, ``type_probability`` and ``subtype``."""
        table = measure_cells(self.source, self.cells, self.class_names, self.microns_per_pixel)
        if self.types is not None:
            table["type"] = np.array(self.types.names, object)
            table["type_probability"] = self.types.probabilities
            table["subtype"] = np.array(self.types.subtypes, object)
        return table

    def name_of(self, index: int) -> str:
        """Class of a cell, and its type where it has one."""
        name = self.class_names[self.cells.classes[index]]
        kind = self.types.names[index] if self.types is not None else ""
        return f"{name}: {kind}" if kind else name

    @cached_property
    def counts(self) -> Counts:
        """See :func:`count_cells`."""
        counts = count_cells(self.cells, self.class_names, self.microns_per_pixel)
        if self.magnification is None:
            return counts
        return replace(
            counts, diameter_px=self.magnification.diameter, diameter_from=self.magnification.origin
        )

    @cached_property
    def quality(self) -> Quality:
        """See :func:`bccd_d2.inference.quality.assess_quality`."""
        return assess_quality(
            self.source,
            self.cells,
            red_cell_classes(self.class_names),
            self.magnification,
            self.training_diameter,
        )
