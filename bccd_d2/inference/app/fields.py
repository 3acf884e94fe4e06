"""One field of a session: its file, what the model found in it, and what a visitor has corrected."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.inference.cell_types import CellTyper, CellTypes, red_cell_diameter
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.magnification import Magnification
from bccd_d2.inference.measurements import BORDER_MARGIN
from bccd_d2.inference.predict_file import Progress, predict_image
from bccd_d2.inference.quality import FLAGS, Quality
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.images import overview
from bccd_d2.io.images import open_source
from bccd_d2.io.sources import ImageSource
from bccd_d2.reporting.pages import outline_path
from bccd_d2.structures.cells import Cells, concatenate
from bccd_d2.structures.segmentation import as_rle

LOWEST_THRESHOLD = 0.05
"""The predictor's own threshold should be this: the page's slider moves without the network then."""
DEFAULT_THRESHOLD = 0.5

_PICTURE_SIDE, _THUMBNAIL_SIDE = 4096, 240
_MOST_CORNERS = 20_000
_NO_TYPE = CellTypes([""], np.array([np.nan]), [""])


@dataclass(frozen=True)
class CellFilter:
    """Which cells count; cells that a visitor has corrected do so in any case.

    Attributes:
        score: lowest.
        smallest: diameter of a disc of the same area.
        largest: as ``smallest``.
        microns: whether the diameters are in microns and not in pixels.
    """

    score: float = DEFAULT_THRESHOLD
    smallest: float = 0.0
    largest: float = math.inf
    microns: bool = False


@dataclass(frozen=True)
class FoundCells:
    """The cells of a field with their corrections; cell k keeps its number k. A correction makes a new object.

    Attributes:
        cells: found and drawn ones, with a pixel at least each.
        class_names: by class index.
        said: (N,) class index by the model, -1 for drawn cells.
        deleted: (N,) bool.
        types: of the cells; ``None`` where they were not asked for.
        microns_per_pixel: of the image; ``None`` where it is not known.
        magnification: that the image was predicted at; ``None`` where it is not known.
        training_diameter: see :class:`bccd_d2.inference.results.ImageResult`.
    """

    cells: Cells
    class_names: Sequence[str]
    said: NDArray[np.int64]
    deleted: NDArray[np.bool_]
    types: CellTypes | None = None
    microns_per_pixel: float | None = None
    magnification: Magnification | None = None
    training_diameter: float = 0.0

    @classmethod
    def of(cls, result: ImageResult) -> FoundCells:
        """What the model found, without corrections."""
        return cls(
            result.cells,
            result.class_names,
            result.cells.classes,
            np.zeros(len(result.cells), bool),
            result.types,
            result.microns_per_pixel,
            result.magnification,
            result.training_diameter,
        )

    @property
    def corrected(self) -> NDArray[np.bool_]:
        """(N,) which cells are drawn, or of another class than the model said."""
        return np.asarray(self.cells.classes != self.said)

    def kept(self, chosen: CellFilter) -> NDArray[np.bool_]:
        """(N,) which cells count."""
        factor = (self.microns_per_pixel or math.nan) if chosen.microns else 1.0
        size = 2 * np.sqrt(self.cells.areas / np.pi) * factor
        passes = (self.cells.scores >= chosen.score) & (size >= chosen.smallest) & (size <= chosen.largest)
        return np.asarray(~self.deleted & (passes | self.corrected))

    def change(self, number: int, class_index: Any = None, deleted: Any = None) -> FoundCells:
        """With a cell of another class, deleted or brought back.

        Raises:
            InputError: there is no such cell or class.
        """
        if not 0 <= number < len(self.cells):
            raise InputError(f"cell {number}: this field has {len(self.cells)}")
        classes, gone = self.cells.classes.copy(), self.deleted.copy()
        if class_index is not None:
            classes[number] = self._class(class_index)
        if deleted is not None:
            gone[number] = bool(deleted)
        return replace(self, cells=replace(self.cells, classes=classes), deleted=gone)

    def draw(self, outline: Any, class_index: Any) -> FoundCells:
        """With one cell more, the last.

        Args:
            outline: ``[x0, y0, x1, y1, ...]`` in pixels of the image, (0, 0) its upper left corner.
            class_index: its class.

        Raises:
            InputError: the outline is none, or it encloses no pixel of the image; or there is no such class.
        """
        if isinstance(outline, list) and len(outline) > 2 * _MOST_CORNERS:
            raise InputError(f"outline of {len(outline) // 2} corners, expected at most {_MOST_CORNERS}")
        height, width = self.cells.height, self.cells.width
        rle = as_rle([outline], height, width)
        drawn = Cells.from_rles(height, width, [rle], classes=[self._class(class_index)])
        if not drawn.areas.all():
            raise InputError("the outline encloses no pixel of the image: draw around the cell")
        return replace(
            self,
            cells=concatenate([self.cells, drawn]),
            said=np.append(self.said, -1),
            deleted=np.append(self.deleted, False),
            types=None if self.types is None else _with_type(self.types, len(self.cells), _NO_TYPE),
        )

    def _class(self, index: Any) -> int:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.class_names):
            raise InputError(f"class {str(index)[:20]}: expected 0 to {len(self.class_names) - 1}")
        return index

    def classify(self, number: int, source: ImageSource, typer: CellTyper) -> FoundCells:
        """With the type of a cell asked for again, since its class has changed."""
        if self.types is None:
            return self
        known = None if self.magnification is None else self.magnification.diameter
        microns = self.microns_per_pixel
        diameter = red_cell_diameter(self.cells, self.class_names, microns, known)
        one = self.cells[[number]]
        found = typer(source, one, self.class_names, microns_per_pixel=microns, diameter_px=diameter)
        return replace(self, types=_with_type(self.types, number, found))

    def result(self, name: str, source: ImageSource, chosen: CellFilter) -> ImageResult:
        """The cells that count, as the writers take them."""
        kept = self.kept(chosen)
        return ImageResult(
            name,
            source,
            self.cells[kept],
            self.class_names,
            self.microns_per_pixel,
            magnification=self.magnification,
            types=None if self.types is None else self.types[kept],
            training_diameter=self.training_diameter,
        )

    def summary(self, chosen: CellFilter) -> dict[str, Any]:
        """Numbers by class name of ``cells``, of those at the ``edge``, of ``types``; how many are ``corrected``."""
        kept = self.kept(chosen)
        edge = kept & self.cells.touches_border(BORDER_MARGIN)
        types: dict[str, Counter[str]] = {name: Counter() for name in self.class_names}
        for index in np.flatnonzero(kept).tolist() if self.types is not None else ():
            assert self.types is not None
            if kind := self.types.names[index]:
                types[self.class_names[self.cells.classes[index]]][kind] += 1
        return {
            "cells": self._count(kept),
            "edge": self._count(edge),
            "types": types,
            "corrected": self.corrections,
        }

    @property
    def corrections(self) -> int:
        """Number of cells that were drawn, deleted or changed."""
        return int(np.where(self.said < 0, ~self.deleted, self.deleted | self.corrected).sum())

    def _count(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        numbers = np.bincount(self.cells.classes[chosen], minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist()))

    def cell(self, number: int) -> dict[str, Any]:
        """What the page shows of a cell: diameter in pixels and, where it is known, microns; outline as SVG path."""
        mask, types = self.cells.masks[number], self.types
        x, y, _, _ = self.cells.windows[number].tolist()
        diameter = 2 * math.sqrt(np.count_nonzero(mask) / math.pi)
        kind = "" if types is None else types.names[number]
        return {
            "number": number,
            "class": int(self.cells.classes[number]),
            "score": round(float(self.cells.scores[number]), 3),
            "type": kind,
            "probability": round(float(types.probabilities[number]), 3)
            if types is not None and kind
            else None,
            "px": round(diameter, 1),
            "um": None if self.microns_per_pixel is None else round(diameter * self.microns_per_pixel, 2),
            "edge": bool(self.cells[[number]].touches_border(BORDER_MARGIN)[0]),
            "deleted": bool(self.deleted[number]),
            "corrected": bool(self.corrected[number]),
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
    """One image of a session, waiting, being predicted or done.

    Attributes:
        name: of the image, unique in its session; results are named so.
        file: what was uploaded.
        page: of it; 0 where it has one.
        is_page: whether it has several.
        state: "waiting", "running", "done" or "failed".
        progress: share of the tiles that are done.
        error: why it failed.
        found: cells, once it is done.
        quality: of the image with the cells of the default threshold, once it is done.
        version: changes with every correction.
        lock: held while ``found`` is replaced.
    """

    def __init__(self, name: str, file: Path, page: int | None = None) -> None:
        self.name, self.file, self.page = name, file, page or 0
        self.is_page = page is not None
        self.state, self.error, self.progress = "waiting", "", 0.0
        self.found: FoundCells | None = None
        self.quality = Quality()
        self.version = 0
        self.removed = False
        self.lock = threading.Lock()

    @property
    def picture(self) -> Path:
        """JPEG for the page, of no more than 4096 pixels a side."""
        return self.file.with_name(f"picture-{self.page}.jpg")

    @property
    def thumbnail(self) -> Path:
        """Small JPEG for the list."""
        return self.file.with_name(f"thumbnail-{self.page}.jpg")

    @contextmanager
    def open(self, megapixels: float) -> Iterator[ImageSource]:
        """The image; messages call it by its name.

        Raises:
            InputError: it is no image, or one of more pixels than ``megapixels``.
        """
        try:
            with open_source(self.file, page=self.page, max_pixels=round(megapixels * 1e6)) as source:
                if source.height * source.width > megapixels * 1e6:
                    raise InputError(
                        f"{source.width}x{source.height} pixels, this page accepts {megapixels:g} megapixels"
                    )
                yield source
        except (InputError, OSError) as error:
            reason = str(error).replace(str(self.file), self.name)
            raise InputError(reason if self.name in reason else f"{self.name}: {reason}") from error

    def predict(
        self, predictor: CellFinder, megapixels: float, typer: CellTyper | None, progress: Progress
    ) -> None:
        """Find the cells and write the pictures for the page.

        Raises:
            InputError: see :meth:`open`.
        """
        with self.open(megapixels) as source:
            picture = overview(source, _PICTURE_SIDE)
            _write_jpeg(picture, self.picture, _PICTURE_SIDE)
            _write_jpeg(picture, self.thumbnail, _THUMBNAIL_SIDE)
            result = predict_image(source, self.name, predictor, progress=progress, typer=typer)
            sure = result.cells[result.cells.scores >= DEFAULT_THRESHOLD]
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
            "microns_per_pixel": found.microns_per_pixel,
            "flags": {flag: FLAGS[flag] for flag in self.quality.flags},
            **found.summary(chosen),
        }


def _write_jpeg(image: NDArray[np.uint8], path: Path, side: int) -> None:
    scale = min(1.0, side / max(image.shape[:2]))
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
