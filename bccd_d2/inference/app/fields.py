"""One field of a session: its file, what the model found in it, and what a visitor has corrected."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.cell_types.typer import CellTyper, CellTypes, red_cell_diameter
from bccd_d2.drawing.pages import outline_path
from bccd_d2.errors import InputError
from bccd_d2.inference.finder import CellFinder, Progress
from bccd_d2.inference.options import DEFAULT_SCORE_THRESHOLD
from bccd_d2.inference.predict_file import predict_image
from bccd_d2.inference.quality import FLAGS, Quality
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.images import overview
from bccd_d2.io.images import open_source
from bccd_d2.io.sources import ArraySource, ImageSource
from bccd_d2.structures.cells import BORDER_MARGIN, Cells, concatenate
from bccd_d2.structures.rle import as_rle

LOWEST_THRESHOLD = 0.05
"""The predictor's own threshold should be this: the page's slider moves without the network then."""

_PICTURE_SIDE, _THUMBNAIL_SIDE = 4096, 240
_MOST_CORNERS = 20_000
_NO_TYPE = CellTypes([""], np.array([np.nan]), [""])
# In place of a closed source: the pixels are read again where they are needed.
_CLOSED = ArraySource(np.zeros((1, 1, 3), np.uint8))


@dataclass(frozen=True)
class CellFilter:
    """Which cells count; cells that a visitor has corrected do so in any case."""

    score: float = DEFAULT_SCORE_THRESHOLD  # the lowest
    smallest: float = 0.0  # diameter of a disc of the same area
    largest: float = math.inf
    microns: bool = False  # whether the diameters are in microns and not in pixels


@dataclass(frozen=True)
class FoundCells:
    """The cells of a field with their corrections; cell k keeps its number k. A correction makes a new object."""

    result: (
        ImageResult  # of the model, without its pixels; with the cells that were drawn, and changed classes
    )
    said: NDArray[np.int64]  # (N,) class index by the model, -1 for drawn cells
    deleted: NDArray[np.bool_]  # (N,)
    typed: NDArray[np.bool_]  # (N,) whether a visitor has said the type

    @classmethod
    def of(cls, result: ImageResult) -> FoundCells:
        """What the model found, without corrections."""
        none = np.zeros(len(result.cells), bool)
        return cls(replace(result, source=_CLOSED), result.cells.classes, none, none)

    @property
    def cells(self) -> Cells:
        """Found and drawn ones."""
        return self.result.cells

    @property
    def corrected(self) -> NDArray[np.bool_]:
        """(N,) which cells are drawn, or of another class or type than the model said."""
        return np.asarray((self.cells.classes != self.said) | self.typed)

    def kept(self, chosen: CellFilter) -> NDArray[np.bool_]:
        """(N,) which cells count."""
        factor = (self.result.microns_per_pixel or math.nan) if chosen.microns else 1.0
        size = self.cells.diameters * factor
        passes = (self.cells.scores >= chosen.score) & (size >= chosen.smallest) & (size <= chosen.largest)
        return np.asarray(~self.deleted & (passes | self.corrected))

    def change(self, number: int, class_index: Any = None, deleted: Any = None) -> FoundCells:
        """With a cell of another class, deleted or brought back; an InputError if there is no such cell or class."""
        if not 0 <= number < len(self.cells):
            raise InputError(f"cell {number}: this field has {len(self.cells)}")
        classes, gone = self.cells.classes.copy(), self.deleted.copy()
        if class_index is not None:
            classes[number] = self._class(class_index)
        if deleted is not None:
            gone[number] = bool(deleted)
        result = replace(self.result, cells=replace(self.cells, classes=classes))
        return replace(self, result=result, deleted=gone)

    def set_type(self, number: int, choice: Any, typer: CellTyper) -> FoundCells:
        """With the type of a cell as a visitor says, one of :meth:`CellTyper.choices`; its probability is 1. An
        InputError if cells of its class have no such type.
        """
        choices = typer.choices(self.result.class_names[self.cells.classes[number]])
        if not isinstance(choice, str) or choice not in choices:
            expected = ", ".join(choices) or "none, since cells of this class have no types"
            raise InputError(f"type {str(choice)[:40]!r}: expected {expected}")
        name, subtype = choices[choice]
        return self._with_type(number, CellTypes([name], np.ones(1), [subtype]), by_visitor=True)

    def _with_type(self, number: int, found: CellTypes, *, by_visitor: bool) -> FoundCells:
        assert self.result.types is not None
        typed = self.typed.copy()
        typed[number] = by_visitor
        types = _with_type(self.result.types, number, found)
        return replace(self, result=replace(self.result, types=types), typed=typed)

    def draw(self, outline: Any, class_index: Any) -> FoundCells:
        """With one cell more, the last: ``outline`` is ``[x0, y0, x1, y1, ...]`` in pixels of the image, (0, 0) its
        upper left corner. An InputError if it encloses no pixel of the image, or there is no such class.
        """
        if isinstance(outline, list) and len(outline) > 2 * _MOST_CORNERS:
            raise InputError(f"outline of {len(outline) // 2} corners, expected at most {_MOST_CORNERS}")
        height, width, types = self.cells.height, self.cells.width, self.result.types
        rle = as_rle([outline], height, width)
        drawn = Cells.from_rles(height, width, [rle], classes=[self._class(class_index)])
        if not drawn.areas.all():
            raise InputError("the outline encloses no pixel of the image: draw around the cell")
        result = replace(
            self.result,
            cells=concatenate([self.cells, drawn]),
            types=None if types is None else _with_type(types, len(self.cells), _NO_TYPE),
        )
        deleted, typed = np.append(self.deleted, False), np.append(self.typed, False)
        return FoundCells(result, np.append(self.said, -1), deleted, typed)

    def _class(self, index: Any) -> int:
        number = len(self.result.class_names)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < number:
            raise InputError(f"class {str(index)[:20]}: expected 0 to {number - 1}")
        return index

    def classify(self, number: int, source: ImageSource, typer: CellTyper) -> FoundCells:
        """With the type of a cell that the classifier says, since its class has changed or a visitor wants it back."""
        result = self.result
        if result.types is None:
            return self
        known = None if result.magnification is None else result.magnification.diameter
        names, microns = result.class_names, result.microns_per_pixel
        diameter = red_cell_diameter(self.cells, names, microns, known)
        found = typer(source, self.cells[[number]], names, microns_per_pixel=microns, diameter_px=diameter)
        return self._with_type(number, found, by_visitor=False)

    def counted(self, source: ImageSource, chosen: CellFilter) -> ImageResult:
        """The cells that count, as the writers take them."""
        kept, types = self.kept(chosen), self.result.types
        types = None if types is None else types[kept]
        return replace(self.result, source=source, cells=self.cells[kept], types=types)

    def summary(self, chosen: CellFilter) -> dict[str, Any]:
        """Numbers by class name of ``cells``, of those at the ``edge``, of ``types``; how many are ``corrected``."""
        kept, names = self.kept(chosen), self.result.class_names
        types: dict[str, Counter[str]] = {name: Counter() for name in names}
        if self.result.types is not None:
            for index in np.flatnonzero(kept).tolist():
                if kind := self.result.types.names[index]:
                    types[names[self.cells.classes[index]]][kind] += 1
        return {
            "cells": self._count(kept),
            "edge": self._count(kept & self.cells.touches_border(BORDER_MARGIN)),
            "types": types,
            "corrected": self.corrections,
        }

    @property
    def corrections(self) -> int:
        """Number of cells that were drawn, deleted or changed."""
        return int(np.where(self.said < 0, ~self.deleted, self.deleted | self.corrected).sum())

    def _count(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        names = self.result.class_names
        return dict(zip(names, np.bincount(self.cells.classes[chosen], minlength=len(names)).tolist()))

    def cell(self, number: int) -> dict[str, Any]:
        """What the page shows of a cell: diameter in pixels and, where it is known, microns; outline as SVG path."""
        mask, types, microns = self.cells.masks[number], self.result.types, self.result.microns_per_pixel
        x, y, _, _ = self.cells.windows[number].tolist()
        diameter = float(self.cells[[number]].diameters[0])
        kind, probability = "", None
        if types is not None and types.names[number]:
            kind, probability = types.names[number], round(float(types.probabilities[number]), 3)
            if subtype := types.subtypes[number]:
                kind = f"{kind}: {subtype}"
        return {
            "number": number,
            "class": int(self.cells.classes[number]),
            "score": round(float(self.cells.scores[number]), 3),
            "type": kind,
            "probability": probability,
            "px": round(diameter, 1),
            "um": None if microns is None else round(diameter * microns, 2),
            "edge": bool(self.cells[[number]].touches_border(BORDER_MARGIN)[0]),
            "deleted": bool(self.deleted[number]),
            "corrected": bool(self.corrected[number]),
            "typed": bool(self.typed[number]),
            "drawn": bool(self.said[number] < 0),
            "path": outline_path(mask, x, y),
        }


def _with_type(types: CellTypes, number: int, found: CellTypes) -> CellTypes:
    """With the type of ``found`` in place of a cell's, or at the end."""
    end = len(types.names)
    both = CellTypes(
        [*types.names, *found.names],
        np.append(types.probabilities, found.probabilities),
        [*types.subtypes, *found.subtypes],
    )
    order = np.arange(max(end, number + 1))
    order[number] = end
    return both[order]


class Field:
    """One image of a session: that of ``file``, or ``page`` of it where it has several.

    ``name`` is unique in its session, and that of its results. Images of more than ``megapixels`` are refused.
    """

    def __init__(self, name: str, file: Path, page: int | None, megapixels: float) -> None:
        self.name, self.file, self.page, self.megapixels = name, file, page, megapixels
        self.state = "waiting"  # then "running", then "done" or "failed"
        self.error = ""  # why it failed
        self.progress = 0.0  # share of the tiles that are done
        self.found: FoundCells | None = None  # once it is done
        self.quality = Quality()  # with the cells of the default threshold, once it is done
        self.version = 0  # changes with every correction
        self.removed = False
        self.lock = threading.Lock()  # held while ``found`` is replaced

    def jpeg(self, kind: str) -> Path:
        """The "picture" for the page, of no more than 4096 pixels a side, or the "thumbnail" for its list."""
        return self.file.with_name(f"{kind}-{self.page or 0}.jpg")

    @contextmanager
    def open(self) -> Iterator[ImageSource]:
        """The image; an InputError that calls it by its name if it is none or too large."""
        most = self.megapixels * 1e6
        try:
            with open_source(self.file, page=self.page or 0, max_pixels=round(most)) as source:
                if source.height * source.width > most:
                    raise InputError(
                        f"{source.width}x{source.height} pixels, this page accepts {self.megapixels:g} megapixels"
                    )
                yield source
        except (InputError, OSError) as error:
            reason = str(error).replace(str(self.file), self.name)
            raise InputError(reason if self.name in reason else f"{self.name}: {reason}") from error

    def predict(self, predictor: CellFinder, typer: CellTyper | None, progress: Progress) -> None:
        """Find the cells and write the pictures for the page; an InputError as :meth:`open`."""
        with self.open() as source:
            picture = overview(source, _PICTURE_SIDE)
            small = overview(ArraySource(picture), _THUMBNAIL_SIDE)
            for kind, image in (("picture", picture), ("thumbnail", small)):
                jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
                self.jpeg(kind).write_bytes(jpeg.tobytes())
            result = predict_image(source, self.name, predictor, progress=progress, typer=typer)
            sure = result.cells[result.cells.scores >= DEFAULT_SCORE_THRESHOLD]
            self.quality = replace(result, cells=sure, types=None).quality
            self.found = FoundCells.of(result)

    def describe(self, chosen: CellFilter) -> dict[str, Any]:
        """What the page's list shows."""
        found = self.found
        common = {
            "name": self.name,
            "state": self.state,
            "progress": round(self.progress, 3),
            "error": self.error,
            "version": self.version,
        }
        if found is None:
            return common
        return common | {
            "width": found.cells.width,
            "height": found.cells.height,
            "flags": {flag: FLAGS[flag] for flag in self.quality.flags},
            **found.summary(chosen),
        }
