"""Annotated images without masks to COCO annotations; cells that have a box and no outline get a weak mask."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.classes import DROP, IGNORE, ClassTable
from bccd_d2.conversion.convert_image import FILLS_IMAGE, ConvertedImage, Converter, Drawn
from bccd_d2.conversion.importers.common import ImportedCell, outlined
from bccd_d2.conversion.pairs import ImageMaskPair, ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from bccd_d2.segmentation.mask_checks import fills_image
from bccd_d2.segmentation.weak_masks import guess_masks
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.rle import EncodedInstance, encode_labels

DEFAULT_CLASS = "cell"
REPEATED = "cells that are there twice, dropped"
MIN_SIDE = 3
"""Boxes with a shorter side, in pixels, are slips of the mouse: the smallest platelets are some 15 pixels wide."""


@dataclass(frozen=True)
class AnnotationConverter(Converter):
    """Converts annotated images."""

    class_names: Sequence[str] = ()
    table: ClassTable | None = None  # what the classes of the annotations stand for
    min_area: int = 1  # cells of fewer pixels are dropped

    def __call__(self, item: tuple[int, ImageMaskPair, bool]) -> ConvertedImage:
        """See :meth:`bccd_d2.conversion.convert_image.Converter.__call__`; there is nothing to compare."""
        number, pair, _ = item
        record = self.record(number, pair)
        counts: Counter[str] = Counter()
        given = annotated_cells(record, self.table, counts)
        outlines = [cell for cell in given if cell.has_outline]
        boxes = [cell for cell in given if not cell.has_outline]
        cells = outlined(outlines, record.height, record.width)
        kept = self._kept(outlines, cells, counts)
        outlines, cells = [outlines[index] for index in kept], cells[kept]
        labels = cells.label_image()
        drawn = [
            Drawn(instance, self._category(cell), cell.ignored)
            for cell, instance in zip(outlines, _encoded(cells))
        ]
        if boxes:
            drawn += self._draw_boxes(record, boxes, labels, counts)
        size = record.height, record.width
        whole = any(fills_image(one.instance.bbox, one.instance.area, *size) for one in drawn)
        return self.write(record, drawn, labels, counts, [FILLS_IMAGE] if whole else [])

    def _category(self, cell: ImportedCell) -> int | None:
        return None if cell.unsure else 1 + self.class_names.index(cell.class_name or DEFAULT_CLASS)

    def _kept(self, cells: list[ImportedCell], masks: Cells, counts: Counter[str]) -> list[int]:
        """Which cells are large enough, and not there twice."""
        kept, seen = [], set()
        for index, (cell, rle, area) in enumerate(zip(cells, masks.rles(), masks.areas.tolist())):
            key = cell.class_name, rle["counts"]
            if area < self.min_area:
                what = f"under {self.min_area} pixels" if area else "that cover no pixel"
                counts[f"cells {what}, dropped"] += 1
            elif key in seen:
                counts[REPEATED] += 1
            else:
                kept.append(index)
            seen.add(key)
        return kept

    def _draw_boxes(
        self, image: ImageRecord, cells: list[ImportedCell], labels: NDArray[np.int32], counts: Counter[str]
    ) -> list[Drawn]:
        """Cells that have only a box, with a guessed mask or as a region to ignore, drawn in ``labels`` too."""
        cells, corners = fit_boxes(cells, image, counts)
        if not cells:
            return []
        masks, failed = guess_or_ignore(image, corners, labels, counts)
        np.copyto(labels, masks + labels.max(initial=0), where=masks > 0)
        boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
        weak, regions = [], []
        for instance in encode_labels(masks):
            cell, box = cells[instance.label - 1], boxes[instance.label - 1]
            if instance.label - 1 in failed:
                regions.append(Drawn(instance, None))
            else:
                weak.append(Drawn(instance, self._category(cell), cell.ignored, True, box))
        return weak + regions


def annotated_cells(image: ImageRecord, table: ClassTable | None, counts: Counter[str]) -> list[ImportedCell]:
    """The cells that are annotated in an image, with the classes that a table says; those that it drops are counted.
    Raises InputError for a class that it does not list, or an image without annotations where it wants some.
    """
    if image.annotations is None or image.annotations.source == image.path:
        if table is not None and table.image_without_boxes == "error":
            raise InputError(
                f"{image.path}: no boxes for it; expected some, or 'image_without_boxes: keep' in the table"
            )
        counts["images without boxes"] += 1
        return []
    cells = image.annotations.cells
    if table is None:
        return cells
    source, kept = str(image.annotations.source), []
    for cell in cells:
        name = table.class_of(cell.class_name, source) if cell.class_name else table.default
        if name != DROP:
            kept.append(replace(cell, class_name=name, unsure=cell.unsure or name == IGNORE))
    if len(kept) < len(cells):
        counts["cells dropped by the table"] += len(cells) - len(kept)
    return kept


def fit_boxes(
    cells: list[ImportedCell], image: ImageRecord, counts: Counter[str]
) -> tuple[list[ImportedCell], NDArray[np.int64]]:
    """Cells with the boxes around them, int64 (N, 4) x0, y0, x1, y1 in pixels, half-open, clipped to the image; those
    that nothing can be seen in are dropped.
    """
    given = np.rint(np.array([cell.extent() for cell in cells], np.float64).reshape(-1, 4))
    corners = np.clip(given, 0, [image.width, image.height] * 2).astype(np.int64)
    large: NDArray[np.bool_] = np.all(corners[:, 2:] - corners[:, :2] >= MIN_SIDE, axis=1)
    if dropped := int((~large).sum()):
        counts[f"boxes under {MIN_SIDE} pixels or outside the image, dropped"] += dropped
    return list(itertools.compress(cells, large)), corners[large]


def guess_or_ignore(
    image: ImageRecord, corners: NDArray[np.int64], labels: NDArray[np.int32], counts: Counter[str]
) -> tuple[NDArray[np.int32], list[int]]:
    """Label map of the cells in boxes, k + 1 for the k-th, beside those of ``labels`` (height, width), and for which
    no mask was guessed: what is free in their boxes stands for them.
    """
    masks, failed = guess_masks(read_image(image.path, "RGB"), corners, labels > 0)
    for number in failed:
        x0, y0, x1, y1 = corners[number].tolist()
        window = masks[y0:y1, x0:x1]
        window[(window == 0) & (labels[y0:y1, x0:x1] == 0)] = number + 1
    if failed:
        counts["boxes for which no weak mask was found: ignore"] += len(failed)
    counts["weak masks"] += len(corners) - len(failed)
    return masks, failed


def _encoded(cells: Cells) -> list[EncodedInstance]:
    rows = zip(cells.windows.tolist(), cells.areas.tolist(), cells.rles(), cells.touches_border().tolist())
    return [
        EncodedInstance(number, [x0, y0, x1 - x0, y1 - y0], area, rle, border)
        for number, ((x0, y0, x1, y1), area, rle, border) in enumerate(rows, start=1)
    ]
