"""Colours of cells by class, and by type where there are types."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from bccd_d2.cell_types.classifier import OTHER
from bccd_d2.drawing.overlay import CLASS_COLORS, Color, class_color
from bccd_d2.inference.results import ImageResult
from bccd_d2.structures.cells import Cells

_GREY: Color = (150, 150, 150)
# Red cells without a finding keep the colour of their class, so that the others stand out.
_PLAIN = ("", "normal")


def cell_color(result: ImageResult, index: int) -> Color:
    """Colour of a cell, BGR."""
    kind = result.types.names[index] if result.types is not None else ""
    if kind in _PLAIN:
        return class_color(int(result.cells.classes[index]))
    return _type_color(kind)


@lru_cache
def _type_color(name: str) -> Color:
    """The same in every image and every run: the hue is that of the name."""
    if name == OTHER:
        return _GREY
    digest = zlib.crc32(name.encode())
    hue, value = digest % 24 / 24, (0.95, 0.7)[digest // 24 % 2]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, value))
    return blue, green, red


def typed_classes(result: ImageResult) -> tuple[Cells, Sequence[str], Sequence[Color]]:
    """The cells with one class per class and type, and the names and colours of these; as they are without types."""
    if result.types is None:
        return result.cells, result.class_names, CLASS_COLORS
    names = [result.name_of(index) for index in range(len(result.cells))]
    typed = {name.partition(": ")[0] for name in names if ": " in name}
    # Classes first, those without a cell too unless all of their cells have types, then types by name.
    classes = [name for name in result.class_names if name in names or name not in typed]
    order = [*classes, *sorted(set(names) - set(classes))]
    colors = [class_color(result.class_names.index(name)) for name in classes]
    colors += [cell_color(result, names.index(name)) for name in order[len(colors) :]]
    found = np.array([order.index(name) for name in names], np.int64)
    return replace(result.cells, classes=found), order, colors
