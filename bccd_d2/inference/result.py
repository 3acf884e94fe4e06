"""The cells of one image and all that the writers need to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bccd_d2.inference.counts import Counts, count_cells
from bccd_d2.inference.measurements import Table, measure_cells
from bccd_d2.io.sources import ImageSource
from bccd_d2.reporting.overlay import CLASS_COLORS, Color
from bccd_d2.structures.cells import Cells


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
    """

    name: str
    source: ImageSource
    cells: Cells
    class_names: Sequence[str]
    microns_per_pixel: float | None = None
    colors: Sequence[Color] = CLASS_COLORS

    def __post_init__(self) -> None:
        if (self.cells.areas == 0).any():
            raise ValueError("cells without a pixel have no outline: leave them out")

    @cached_property
    def measurements(self) -> Table:
        """See :func:`bccd_d2.inference.measurements.measure_cells`."""
        return measure_cells(self.source, self.cells, self.class_names, self.microns_per_pixel)

    @cached_property
    def counts(self) -> Counts:
        """See :func:`bccd_d2.inference.counts.count_cells`."""
        return count_cells(self.cells, self.class_names, self.microns_per_pixel)
