"""The cells of one image with what the writers need to know of it, and how many there are of each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bccd_d2.inference.cell_types import CellTypes
from bccd_d2.inference.magnification import Magnification, red_cell_classes
from bccd_d2.inference.measurements import BORDER_MARGIN, Table, measure_cells
from bccd_d2.inference.quality import Quality, assess_quality
from bccd_d2.io.sources import ImageSource
from bccd_d2.reporting.overlay import CLASS_COLORS, Color
from bccd_d2.structures.cells import Cells


@dataclass(frozen=True)
class Counts:
    """Numbers of cells by class of one image, or of several together.

    Attributes:
        cells: by class name, all that were found.
        in_frame: by class name, those of the unbiased counting frame, see :func:`in_counting_frame`.
        area_mm2: of the image or images; ``None`` where it is not known.
        diameter_px: that red cells were taken to have when the image was resized; ``None`` where it is not known.
        diameter_from: what said so, see :class:`bccd_d2.inference.magnification.Magnification`.
        flags: what is out of the ordinary about the image, see :class:`bccd_d2.inference.quality.Quality`.
    """

    cells: Mapping[str, int]
    in_frame: Mapping[str, int]
    area_mm2: float | None = None
    diameter_px: float | None = None
    diameter_from: str = ""
    flags: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image; measured when a writer asks for it.

    Attributes:
        name: of the image, as the results call it.
        source: its pixels.
        cells: with a pixel at least each.
        class_names: by class index.
        microns_per_pixel: of the native image; ``None`` where it is not known.
        colors: BGR by class index, for the formats that carry colours.
        magnification: that the image was predicted at; ``None`` where it is not known.
        types: of the cells; ``None`` where they were not asked for.
        training_diameter: of the median cell of the model's training images, pixels; 0 where it is not known.
    """

    name: str
    source: ImageSource
    cells: Cells
    class_names: Sequence[str]
    microns_per_pixel: float | None = None
    colors: Sequence[Color] = CLASS_COLORS
    magnification: Magnification | None = None
    types: CellTypes | None = None
    training_diameter: float = 0.0

    def __post_init__(self) -> None:
        if (self.cells.areas == 0).any():
            raise ValueError("cells without a pixel have no outline: leave them out")

    @cached_property
    def measurements(self) -> Table:
        """See :func:`bccd_d2.inference.measurements.measure_cells`; with types, these in three more columns.

        ``type``; ``type_probability`` of it, NaN where a cell has none; ``subtype``.
        """
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
