"""Annotations of other tools to COCO JSON and splits; cells that have a box and no outline get a weak mask."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.boxes import MIN_SIDE
from bccd_d2.conversion.classes import DROP, IGNORE, ClassTable
from bccd_d2.conversion.convert import ConversionOptions, ConversionSummary, convert_pairs
from bccd_d2.conversion.convert_image import FILLS_IMAGE, ConvertedImage, Converter
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.importers import read_annotations
from bccd_d2.conversion.importers.common import Imported, ImportedCell, ImportedImage, outlined
from bccd_d2.conversion.pairs import FolderPair, ImageMaskPair, ImageRecord, list_names, with_unique_stems
from bccd_d2.conversion.weak_masks import guess_masks
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from bccd_d2.io.mask_checks import fills_image
from bccd_d2.io.masks import MaskRule
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.names import stem_of
from bccd_d2.structures.rle import EncodedInstance, encode_labels

logger = logging.getLogger(__name__)
DEFAULT_CLASS = "cell"
REPEATED = "cells that are there twice, dropped"
IMAGES_ONLY = DatasetSpec("annotations of another tool", (FolderPair("."),), MaskRule("none"))


@dataclass(frozen=True)
class AnnotatedImage(ImageMaskPair):
    """An image with its annotations in place of a mask."""

    annotations: ImportedImage = field(kw_only=True)


@dataclass(frozen=True)
class AnnotationConverter(Converter):
    """Converts annotated images."""

    class_names: Sequence[str] = ()
    min_area: int = 1  # cells of fewer pixels are dropped

    def __call__(self, item: tuple[int, ImageMaskPair, bool]) -> ConvertedImage:
        """See :meth:`bccd_d2.conversion.convert_image.Converter.__call__`; there is nothing to compare."""
        number, pair, _ = item
        assert isinstance(pair, AnnotatedImage)
        record = self.record(number, pair)
        said = pair.annotations.size
        if said is not None and said != (record.height, record.width):
            raise InputError(
                f"{pair.annotations.source}: annotations for an image of {said[1]}x{said[0]} pixels, expected "
                f"{record.width}x{record.height} as {pair.image}"
            )
        counts: Counter[str] = Counter()
        outlines = [cell for cell in pair.annotations.cells if cell.has_outline]
        boxes = [cell for cell in pair.annotations.cells if not cell.has_outline]
        cells = outlined(outlines, record.height, record.width)
        kept = self._kept(outlines, cells, counts)
        outlines, cells = [outlines[index] for index in kept], cells[kept]
        labels = cells.label_image()
        drawn = [_Drawn(*both) for both in zip(outlines, _encoded(cells))]
        if boxes:
            drawn += _draw_boxes(record, boxes, labels, counts)
        annotations = [
            self.entry(
                record,
                1 + self.class_names.index(cell.class_name or DEFAULT_CLASS),
                instance,
                ignored=cell.ignored,
                box=box,
                mark="weak" if box else None,
            )
            for cell, instance, box in drawn
            if not _of_no_class(cell)
        ]
        regions = [instance for cell, instance, _ in drawn if _of_no_class(cell)]
        annotations += self.ignored_regions(record, regions)
        self.finish(record, annotations, lambda: labels, counts)
        whole = any(fills_image(e["bbox"], e["area"], record.height, record.width) for e in annotations)
        return ConvertedImage(record, annotations, counts, [FILLS_IMAGE] if whole else [])

    def _kept(self, cells: list[ImportedCell], masks: Cells, counts: Counter[str]) -> list[int]:
        """Which cells are large enough, and not there twice."""
        kept, seen = [], set()
        for index, (cell, rle, area) in enumerate(zip(cells, masks.rles(), masks.areas.tolist())):
            key = cell.class_name, rle["counts"]
            if area < self.min_area:
                counts[
                    f"cells {f'under {self.min_area} pixels' if area else 'that cover no pixel'}, dropped"
                ] += 1
            elif key in seen:
                counts[REPEATED] += 1
            else:
                kept.append(index)
            seen.add(key)
        return kept


class _Drawn(NamedTuple):
    """A cell with its mask, which was guessed where there is an annotated box ``[x, y, width, height]``."""

    cell: ImportedCell
    instance: EncodedInstance
    box: list[int] | None = None


def _of_no_class(cell: ImportedCell) -> bool:
    """Whether a cell is a region that is to be ignored whatever the class."""
    return cell.ignored and cell.class_name is None


def _draw_boxes(
    image: ImageRecord, cells: list[ImportedCell], labels: NDArray[np.int32], counts: Counter[str]
) -> list[_Drawn]:
    """Cells that have only a box, with a guessed mask; where none is found, what is free in the box is a region to
    ignore. They are drawn in ``labels`` (height, width) too.
    """
    by_key = {(cell.class_name, cell.box): cell for cell in reversed(cells)}
    if repeated := len(cells) - len(by_key):
        counts[REPEATED] += repeated
        cells = list(reversed(by_key.values()))
    limits = [image.width, image.height] * 2
    corners = np.clip(np.rint(np.array([cell.box for cell in cells], float)), 0, limits).astype(np.int64)
    large: NDArray[np.bool_] = np.all(corners[:, 2:] - corners[:, :2] >= MIN_SIDE, axis=1)
    if dropped := int((~large).sum()):
        counts[f"boxes under {MIN_SIDE} pixels or outside the image, dropped"] += dropped
    cells, corners = list(itertools.compress(cells, large)), corners[large]
    if not cells:
        return []
    masks, failed = guess_masks(read_image(image.path, "RGB"), corners, labels > 0)
    for number in failed:
        x0, y0, x1, y1 = corners[number].tolist()
        window = masks[y0:y1, x0:x1]
        window[(window == 0) & (labels[y0:y1, x0:x1] == 0)] = number + 1
    found = {instance.label - 1: instance for instance in encode_labels(masks)}
    np.copyto(labels, masks + labels.max(initial=0), where=masks > 0)
    counts["boxes without an outline: weak mask"] += len(cells) - len(failed)
    counts["boxes without an outline for which no weak mask was found: ignore"] += len(failed)
    weak = [number for number in found if number not in failed]
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    return [_Drawn(cells[number], found[number], boxes[number]) for number in weak] + [
        _Drawn(ImportedCell(ignored=True), found[number]) for number in failed if number in found
    ]


def _encoded(cells: Cells) -> list[EncodedInstance]:
    rows = zip(cells.windows.tolist(), cells.areas.tolist(), cells.rles(), cells.touches_border().tolist())
    return [
        EncodedInstance(number, [x0, y0, x1 - x0, y1 - y0], area, rle, border)
        for number, ((x0, y0, x1, y1), area, rle, border) in enumerate(rows, start=1)
    ]


def convert_annotations(
    path: Path | str,
    out: Path | str,
    options: ConversionOptions | None = None,
    *,
    kind: str | None = None,
    images: Path | None = None,
    min_area: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> ConversionSummary:
    """Convert annotations of another tool, a file or a folder of files, to what
    :func:`bccd_d2.conversion.convert.convert_dataset` writes.

    ``kind`` is one of :data:`bccd_d2.conversion.importers.FORMATS`, recognised where not given; ``images`` the
    folder of the images where they are not beside the annotations. The ``classes`` of the dataset spec say what the
    class names stand for; without them they stay, and cells without a class are ``cell``. Cells of fewer than
    ``min_area`` pixels are dropped.
    """
    path, options = Path(path), options or ConversionOptions()
    known = options.spec
    spec = replace(IMAGES_ONLY, annotates=known.annotates, unlabeled_sizes=known.unlabeled_sizes)
    options = replace(options, spec=spec)
    kind, files, imported = read_annotations(path, kind, images)
    classes = tuple(dict.fromkeys([*options.spec.annotates, *_classes(imported, known.classes)]))
    for what, count in sorted(imported.counts.items()):
        logger.warning("%s: %d %s", path, count, what)

    def find(faults: list[str] | None) -> list[ImageMaskPair]:
        found = files.match([image.name for image in imported.images], str(path))
        missing = [f"{image.name} ({image.source})" for image in imported.images if image.name not in found]
        if missing:
            headline = f"images that are not found ({len(missing)} of {len(imported.images)})"
            advice = "--images names the folder that holds them, --skip-bad leaves them out"
            said = f"{list_names(headline, missing)}\n{advice}"
            if faults is None or not found:
                raise InputError(f"{path}: {said}")
            faults.append(said)
        if not any(image.cells for image in imported.images):
            raise InputError(f"{path}: no annotated image in {kind} format (of {len(imported.images)})")
        by_path: dict[Path, AnnotatedImage] = {}
        for image in imported.images:
            if image.name not in found:
                continue
            place = files.paths[found[image.name]]
            if place in by_path:
                raise InputError(
                    f"{place}: annotated in {by_path[place].annotations.source} and in {image.source}, expected one"
                )
            by_path[place] = AnnotatedImage(stem_of(place.name), place, place, image.part, annotations=image)
        unused = len(files.paths) - len(by_path)
        if unused > 0:
            logger.info("%s: %d images here have no annotations and are not used", files.folder, unused)
        return with_unique_stems(list(by_path.values()), files.folder)

    converter = AnnotationConverter(files.folder, options.annotations, classes, min_area)
    logger.info(
        "%s: %d images in %s format, classes %s", path, len(imported.images), kind, ", ".join(classes)
    )
    return convert_pairs(
        converter,
        Path(out),
        find,
        options,
        {"annotations_of": {"format": kind, "path": path.name}},
        workers=workers,
        overwrite=overwrite,
        skip_bad=skip_bad,
    )


def _classes(imported: Imported, table: ClassTable | None) -> tuple[str, ...]:
    """Names of all classes; where a table is given, cells are renamed, ignored or dropped as it says."""
    if table is None:
        names = [cell.class_name or DEFAULT_CLASS for image in imported.images for cell in image.cells]
        return tuple(dict.fromkeys([*imported.classes, *names])) or (DEFAULT_CLASS,)
    for image in imported.images:
        kept = []
        for cell in image.cells:
            name = table.default
            if cell.class_name:
                name = table.class_of(cell.class_name, str(image.source))
            if name == DROP:
                imported.counts["cells dropped by the table"] += 1
                continue
            cell.ignored, cell.class_name = cell.ignored or name == IGNORE, None if name == IGNORE else name
            kept.append(cell)
        image.cells = kept
    return tuple(table.class_ids)
