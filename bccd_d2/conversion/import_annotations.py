"""Annotations of other tools to COCO JSON and splits; cells that have a box and no outline get a weak mask."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.conversion.boxes import MIN_SIDE
from bccd_d2.conversion.classes import DROP, IGNORE, ClassTable
from bccd_d2.conversion.convert import ConversionOptions, ConversionSummary, convert_pairs
from bccd_d2.conversion.convert_image import FILLS_IMAGE, ConvertedImage, Converter
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.importers import read_annotations
from bccd_d2.conversion.importers.common import Imported, ImportedCell, ImportedImage
from bccd_d2.conversion.pairs import FolderPair, ImageMaskPair, ImageRecord, list_names, with_unique_stems
from bccd_d2.conversion.weak_masks import guess_masks
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from bccd_d2.io.mask_checks import fills_image
from bccd_d2.io.masks import MaskRule
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.names import stem_of
from bccd_d2.structures.outline_files import Outline
from bccd_d2.structures.rle import EncodedInstance, as_rle, decode_segmentation, encode_labels

logger = logging.getLogger(__name__)
DEFAULT_CLASS = "cell"
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
        drawn: list[dict[str, Any]] = []
        boxes: list[ImportedCell] = []
        seen: set[Any] = set()
        for cell in pair.annotations.cells:
            is_box = cell.box is not None and not (cell.rings or cell.mask or cell.segmentation)
            instance = None if is_box else _encode(cell, record)
            key = (cell.class_name, instance.segmentation["counts"] if instance else cell.box)
            if instance and instance.area < self.min_area:
                what = "that cover no pixel" if not instance.area else f"under {self.min_area} pixels"
                counts[f"cells {what}, dropped"] += 1
            elif key in seen:
                counts["cells that are there twice, dropped"] += 1
            elif instance is None:
                boxes.append(cell)
            else:
                drawn.append(self.entry(record, self._category(cell), instance, ignored=cell.ignored))
            seen.add(key)
        if boxes:
            drawn += self._weak(record, boxes, drawn, counts)
        self.finish(record, drawn, lambda: _label_map(record, drawn), counts)
        whole = any(fills_image(e["bbox"], e["area"], record.height, record.width) for e in drawn)
        return ConvertedImage(record, drawn, counts, [FILLS_IMAGE] if whole else [])

    def _category(self, cell: ImportedCell) -> int:
        return 1 + self.class_names.index(cell.class_name or DEFAULT_CLASS)

    def _weak(
        self,
        record: ImageRecord,
        cells: list[ImportedCell],
        drawn: list[dict[str, Any]],
        counts: Counter[str],
    ) -> list[dict[str, Any]]:
        """Entries of cells that have only a box: with a guessed mask, or as region to ignore where none is found."""
        limits = [record.width, record.height] * 2
        given = np.array([cell.box for cell in cells], np.float64)
        corners = np.clip(np.rint(given), 0, limits).astype(np.int64)
        large: NDArray[np.bool_] = np.all(corners[:, 2:] - corners[:, :2] >= MIN_SIDE, axis=1)
        if dropped := int((~large).sum()):
            counts[f"boxes under {MIN_SIDE} pixels or outside the image, dropped"] += dropped
        cells, corners = [cell for cell, kept in zip(cells, large.tolist()) if kept], corners[large]
        if not cells:
            return []
        taken = _label_map(record, drawn) > 0
        guessed = guess_masks(read_image(record.path, "RGB"), corners, taken)
        found = {instance.label: instance for instance in encode_labels(guessed.labels)}
        entries = []
        for number, (cell, (x0, y0, x1, y1)) in enumerate(zip(cells, corners.tolist()), start=1):
            category = self._category(cell)
            if number in found:
                # The box is known, the mask is guessed.
                box = [x0, y0, x1 - x0, y1 - y0]
                entry = self.entry(
                    record, category, found[number], ignored=cell.ignored, box=box, mark="weak"
                )
                counts["boxes without an outline: weak mask"] += 1
            else:
                region = ImportedCell(mask=(np.ones((y1 - y0, x1 - x0), bool), (x0, y0)))
                entry = self.entry(record, category, _encode(region, record), ignored=True)
                counts["boxes without an outline for which no weak mask was found: ignore"] += 1
            entries.append(entry)
        return entries


def _encode(cell: ImportedCell, image: ImageRecord) -> EncodedInstance:
    """A cell cut to the image; of no pixel where it lies outside."""
    height, width = image.height, image.width
    if cell.segmentation is not None:
        code = as_rle(cell.segmentation, height, width)
    else:
        rings = [ring for ring in cell.rings if len(ring)]
        mask, (x, y) = cell.mask or (np.zeros((0, 0), bool), (0, 0))
        if rings:
            mask, (x, y) = Outline(rings).mask(height, width)
        top, left = max(0, -y), max(0, -x)
        mask = mask[top : max(top, height - y), left : max(left, width - x)]
        (code,) = Cells.from_masks(height, width, [mask], origins=[(max(0, x), max(0, y))]).rles()
    counts = code["counts"] if isinstance(code["counts"], str) else code["counts"].decode("ascii")
    x, y, across, down = (int(side) for side in coco_mask.toBbox(code))
    border = x == 0 or y == 0 or x + across == width or y + down == height
    area = int(coco_mask.area(code))
    return EncodedInstance(0, [x, y, across, down], area, {"size": [height, width], "counts": counts}, border)


def _label_map(image: ImageRecord, entries: list[dict[str, Any]]) -> NDArray[np.int32]:
    labels = np.zeros((image.height, image.width), np.int32)
    for number, entry in enumerate(entries, start=1):
        labels[decode_segmentation(entry["segmentation"], image.height, image.width) > 0] = number
    return labels


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
    if not any(image.cells for image in imported.images):
        raise InputError(
            f"{path}: no annotated image in {kind} format (of {len(imported.images)}); expected cells"
        )
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
        by_path: dict[Path, AnnotatedImage] = {}
        for image in imported.images:
            if image.name not in found:
                continue
            place = found[image.name]
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
            if name == IGNORE:
                cell.ignored, name = True, table.default
            cell.class_name = name
            kept.append(cell)
        image.cells = kept
    return tuple(table.class_ids)
