"""What the page of :mod:`bccd_d2.inference.app` does with an image that somebody drops on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.inference.batch import Predictor
from bccd_d2.inference.counts import count_rows
from bccd_d2.inference.result import ImageResult
from bccd_d2.inference.writers.overlay import overview
from bccd_d2.io.images import open_source
from bccd_d2.io.sources import ArraySource
from bccd_d2.reporting.overlay import Color, draw_cells

# Of the picture on the page; files have the image's own size.
_MAX_SHOWN_SIDE = 2000
COUNT_HEADERS = ("class", "cells", "share (%)", "counting frame")
CELL_HEADERS = {
    "id": "cell",
    "class": "class",
    "score": "score",
    "x_px": "x (px)",
    "y_px": "y (px)",
    "area_px": "area (px)",
    "equivalent_diameter_px": "diameter (px)",
    "circularity": "circularity",
    "touches_border": "at the border",
}


@dataclass(frozen=True)
class UploadLimits:
    """What the page accepts.

    Attributes:
        megabytes: of a file.
        megapixels: of an image.
    """

    megabytes: float = 50
    megapixels: float = 40

    def __post_init__(self) -> None:
        if self.megabytes <= 0 or self.megapixels <= 0:
            raise InputError(
                f"limits: expected numbers above 0, found {self.megabytes} MB and {self.megapixels} megapixels"
            )


def find_cells(path: str | Path, predictor: Predictor, limits: UploadLimits) -> ImageResult:
    """Find the cells of one file, with its pixels in memory.

    Args:
        path: of the image; only its first page is looked at.
        predictor: its score threshold decides which cells are kept at all.
        limits: what is accepted.

    Raises:
        InputError: the file is too large or no image; the message names it without its folder.
    """
    path = Path(path)
    try:
        megabytes = path.stat().st_size / 1e6
        if megabytes > limits.megabytes:
            raise InputError(f"{megabytes:.1f} MB, this page accepts {limits.megabytes:g} MB")
        with open_source(path, max_pixels=round(limits.megapixels * 1e6)) as source:
            megapixels = source.height * source.width / 1e6
            if megapixels > limits.megapixels:
                raise InputError(
                    f"{source.width}x{source.height} pixels, this page accepts {limits.megapixels:g} megapixels"
                )
            pixels = source.read(0, 0, source.width, source.height)
            microns = predictor.options.microns_per_pixel or source.microns_per_pixel
    except (InputError, OSError) as error:
        reason = str(error).replace(str(path), path.name)
        raise InputError(reason if path.name in reason else f"{path.name}: {reason}") from error
    kept = ArraySource(pixels, path.name, microns)
    cells = predictor.predict_source(kept)
    return ImageResult(path.stem, kept, cells[cells.areas > 0], predictor.class_names, microns)


def chosen(result: ImageResult, threshold: float, colors: Sequence[str]) -> ImageResult:
    """The cells with at least this score, in colours as the page's pickers say them.

    Args:
        result: of :func:`find_cells`.
        threshold: in [0, 1].
        colors: by class index, see :func:`parse_color`.
    """
    return replace(
        result,
        cells=result.cells[result.cells.scores >= threshold],
        colors=[parse_color(color) for color in colors],
    )


def parse_color(text: str) -> Color:
    """BGR of "#rrggbb", or of "rgba(r, g, b, a)" with fractions, as browsers' colour pickers say them.

    Raises:
        InputError: the text is neither.
    """
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = (int(text[start : start + 2], 16) for start in (1, 3, 5))
        else:
            red, green, blue = (
                round(float(part)) for part in text.partition("(")[2].rstrip(")").split(",")[:3]
            )
    except ValueError as error:
        raise InputError(f"colour: expected #rrggbb or rgba(r, g, b, a), found {text!r}") from error
    return blue, green, red


def format_color(color: Color) -> str:
    """BGR as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*reversed(color))


def picture(result: ImageResult) -> NDArray[np.uint8]:
    """The image with its cells, (height, width, 3) uint8 RGB, no side above 2000 pixels."""
    drawn = draw_cells(
        overview(result.source, _MAX_SHOWN_SIDE),
        result.cells,
        result.class_names,
        colors=result.colors,
        microns_per_pixel=result.microns_per_pixel,
    )
    return np.asarray(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB), np.uint8)


def count_table(result: ImageResult) -> list[list[Any]]:
    """A row a class and one for all: name, cells, share in percent, cells of the counting frame."""
    return [
        [name, number, None if share is None else round(100 * float(share), 1), framed]
        for _, name, number, share, framed, *_ in count_rows(result.name, result.counts)
    ]


def cell_table(result: ImageResult) -> list[list[Any]]:
    """A row a cell with what ``CELL_HEADERS`` names; fractions with two digits."""
    columns = [result.measurements[name].tolist() for name in CELL_HEADERS]
    return [
        [round(value, 2) if isinstance(value, float) else value for value in row] for row in zip(*columns)
    ]
