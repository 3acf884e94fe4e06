"""Cells that are marked by a click: text files with a line for each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from bccd_d2.errors import InputError
from bccd_d2.files import read_lines
from bccd_d2.structures.rle import MAX_SIDE


class Point(NamedTuple):
    """One cell marked by a click."""

    x: float  # in pixels of the image; (0, 0) is the upper left corner of its first pixel
    y: float
    class_name: str | None  # ``None`` where the line has none
    where: str  # file and line, for messages


def read_points(path: Path) -> list[Point]:
    """Points of a text file with lines ``x y`` or ``x y class``, parted by blanks, commas or semicolons; a first line
    without numbers is a heading. Raises InputError for any other file.
    """
    points = []
    for number, line in enumerate(read_lines(path, "lines x y class"), start=1):
        fields, where = re.split(r"[\s,;]+", line.strip(), maxsplit=2), f"{path}, line {number}"
        try:
            x, y = float(fields[0]), float(fields[1])
            if not max(abs(x), abs(y)) <= MAX_SIDE:
                raise ValueError("no place in an image")
        except (ValueError, IndexError) as error:
            if not line.strip() or number == 1:
                continue
            raise InputError(f"{where}: {line[:60]!r}, expected 'x y [class]'") from error
        points.append(Point(x, y, fields[2] if len(fields) > 2 else None, where))
    return points
