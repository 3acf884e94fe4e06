"""Annotations of other tools to COCO JSON and splits; cells that have a box and no outline get a weak mask."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.conversion.boxes import MIN_SIDE
from bccd_d2.conversion.classes import DROP, IGNORE, ClassTable
from bccd_d2.conversion.convert import ConversionOptions, ConversionSummary, convert_pairs
from bccd_d2.conversion.convert_image import AnnotationRule, ConvertedImage
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.importers import missing_images, read_annotations
from bccd_d2.conversion.importers.common import Imported, ImportedCell, ImportedImage
from bccd_d2.conversion.instances import InstanceCounts
from bccd_d2.conversion.layout import FolderPair, ImageMaskPair, ImageRecord, with_unique_stems
from bccd_d2.conversion.unlabelled import find_unlabelled
from bccd_d2.conversion.weak_masks import guess_masks
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image, read_image_size
from bccd_d2.io.masks import MaskRule
from bccd_d2.structures.coco import as_rle, decode_segmentation
from bccd_d2.structures.names import stem_of
from bccd_d2.structures.outline_files import Outline
from bccd_d2.structures.polygons import mask_to_polygons
from bccd_d2.structures.rle import encode_labels

logger = logging.getLogger(__name__)
DEFAULT_CLASS = "cell"
IMAGES_ONLY = DatasetSpec("annotations of another tool", (FolderPair("."),), MaskRule("none"))


@dataclass(frozen=True)
class AnnotatedImage(ImageMaskPair):
    """An image with its annotations in place of a mask."""

    annotations: ImportedImage = field(default_factory=lambda: ImportedImage("", Path()))


@dataclass(frozen=True)
class AnnotationConverter:
    """Converts annotated images one by one; picklable, for worker processes.

    Attributes:
        root: folder that file names are relative to.
        classes: names of the classes, in the order of their category ids from 1.
        rule: how annotations are written.
        min_area: cells of fewer pixels are dropped.
    """

    root: Path
    classes: tuple[str, ...]
    rule: AnnotationRule = field(default_factory=AnnotationRule)
    min_area: int = 1

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories of what comes out."""
        return [{"id": number, "name": name} for number, name in enumerate(self.classes, start=1)]

    def __call__(self, numbered: tuple[int, ImageMaskPair]) -> ConvertedImage | str:
        """Convert one image; a fault comes back as text."""
        number, pair = numbered
        assert isinstance(pair, AnnotatedImage)
        try:
            return self.convert(number, pair)
        except (InputError, OSError) as error:
            return str(error)

    def convert(self, number: int, pair: AnnotatedImage) -> ConvertedImage:
        """Convert one image.

        Raises:
            InputError: the image cannot be read or has another size than its annotations say.
        """
        height, width = read_image_size(pair.image)
        said = pair.annotations.size
        if said is not None and said != (height, width):
            raise InputError(
                f"{pair.annotations.source}: annotations for an image of {said[1]}x{said[0]} pixels, expected "
                f"{width}x{height} as {pair.image}"
            )
        record = ImageRecord(
            number, pair.stem, pair.image.relative_to(self.root).as_posix(), pair.image, height, width
        )
        counts: Counter[str] = Counter()
        drawn: list[dict[str, Any]] = []
        boxes: list[ImportedCell] = []
        seen: set[Any] = set()
        for cell in pair.annotations.cells:
            if cell.box is not None and not cell.rings and cell.mask is None and cell.segmentation is None:
                boxes.append(cell)
                continue
            code = _encode(cell, height, width)
            area = int(coco_mask.area(code))
            if area < self.min_area:
                what = "that cover no pixel" if not area else f"under {self.min_area} pixels"
                counts[f"cells {what}, dropped"] += 1
                continue
            key = (cell.class_name, code["counts"])
            if key in seen:
                counts["cells that are there twice, dropped"] += 1
                continue
            seen.add(key)
            drawn.append(self._entry(record, cell, code))
        if boxes:
            drawn += self._weak(record, boxes, drawn, counts)
        if not drawn:
            counts["images without an instance"] += 1
        if self.rule.unlabelled is not None:
            drawn += self._unlabelled(record, drawn, counts)
        counts["instances at the border"] += sum(entry["border"] for entry in drawn)
        return ConvertedImage(record, drawn, InstanceCounts(), counts)

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
        codes = {instance.label: instance.segmentation for instance in encode_labels(guessed.labels)}
        entries = []
        for number, (cell, box) in enumerate(zip(cells, corners.tolist()), start=1):
            x0, y0, x1, y1 = box
            if number in codes:
                entry = self._entry(record, cell, codes[number])
                # The box is known, the mask is guessed.
                entry.update(bbox=[x0, y0, x1 - x0, y1 - y0], weak=True)
                counts["boxes without an outline: weak mask"] += 1
            else:
                inside = np.ones((y1 - y0, x1 - x0), bool)
                region = _encode(ImportedCell(mask=(inside, (x0, y0))), record.height, record.width)
                entry = self._entry(record, replace(cell, ignored=True), region)
                counts["boxes without an outline for which no weak mask was found: ignore"] += 1
            entries.append(entry)
        return entries

    def _unlabelled(
        self, record: ImageRecord, drawn: list[dict[str, Any]], counts: Counter[str]
    ) -> list[dict[str, Any]]:
        labels = _label_map(record, drawn)
        regions = encode_labels(find_unlabelled(read_image(record.path, "RGB"), labels, self.rule.unlabelled))
        counts["unlabelled regions to ignore"] += len(regions)
        return [
            self._entry(record, ImportedCell(name, ignored=True), region.segmentation) | {"unlabelled": True}
            for region in regions
            for name in self.classes
        ]

    def _entry(self, record: ImageRecord, cell: ImportedCell, code: Mapping[str, Any]) -> dict[str, Any]:
        x, y, width, height = (int(side) for side in coco_mask.toBbox(code))
        border = x == 0 or y == 0 or x + width == record.width or y + height == record.height
        ignored = cell.ignored or (border and self.rule.border == "ignore")
        segmentation: Any = {"size": list(code["size"]), "counts": _text(code["counts"])}
        if self.rule.polygons and not ignored:
            mask = decode_segmentation(segmentation, record.height, record.width)
            segmentation = mask_to_polygons(mask[y : y + height, x : x + width], x, y)
        return {
            "image_id": record.id,
            "category_id": 1 + self.classes.index(cell.class_name or DEFAULT_CLASS),
            "bbox": [x, y, width, height],
            "area": int(coco_mask.area(code)),
            "segmentation": segmentation,
            "iscrowd": int(ignored),
            "border": border,
        }


def _text(counts: str | bytes) -> str:
    return counts if isinstance(counts, str) else counts.decode("ascii")


def _encode(cell: ImportedCell, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE of a cell, cut to the image; of no pixel where it lies outside."""
    if cell.segmentation is not None:
        code = as_rle(cell.segmentation, height, width)
        return {"size": [height, width], "counts": _text(code["counts"])}
    full = np.zeros((height, width), np.uint8, order="F")
    rings = [ring for ring in cell.rings if len(ring)]
    mask, (x, y) = cell.mask or (np.zeros((0, 0), bool), (0, 0))
    if rings:
        mask, (x, y) = Outline(rings).mask(height, width)
    top, left = max(0, -y), max(0, -x)
    mask = mask[top : max(top, height - y), left : max(left, width - x)]
    y, x = max(0, y), max(0, x)
    full[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    code = coco_mask.encode(full)
    return {"size": [height, width], "counts": _text(code["counts"])}


def _label_map(record: ImageRecord, entries: list[dict[str, Any]]) -> NDArray[np.int32]:
    labels = np.zeros((record.height, record.width), np.int32)
    for number, entry in enumerate(entries, start=1):
        labels[decode_segmentation(entry["segmentation"], record.height, record.width) > 0] = number
    return labels


def convert_annotations(
    path: Path | str,
    out: Path | str,
    options: ConversionOptions | None = None,
    *,
    kind: str | None = None,
    images: Path | None = None,
    table: ClassTable | None = None,
    min_area: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> ConversionSummary:
    """Convert annotations of another tool to what :func:`bccd_d2.conversion.convert.convert_dataset` writes.

    Args:
        path: annotation file, or a folder of such files.
        out: output folder; its files appear together at the end or, on any failure, not at all.
        options: how annotations are written and images are divided.
        kind: format, one of :data:`bccd_d2.conversion.importers.FORMATS`; recognised where not given.
        images: folder of the images, where they are not beside the annotations.
        table: what the class names stand for; without it they stay, and cells without a class are ``cell``.
        min_area: cells of fewer pixels are dropped.
        workers: processes.
        overwrite: replace an earlier output.
        skip_bad: leave out images that cannot be used and list them in the summary, instead of raising.

    Raises:
        InputError: bad input, see the message.
    """
    path, options = Path(path), options or ConversionOptions()
    spec = replace(
        IMAGES_ONLY, annotates=options.spec.annotates, unlabeled_sizes=options.spec.unlabeled_sizes
    )
    options = replace(options, spec=spec)
    kind, files, imported = read_annotations(path, kind, images)
    if not any(image.cells for image in imported.images):
        raise InputError(
            f"{path}: no annotated image in {kind} format (of {len(imported.images)}); expected cells"
        )
    classes = tuple(dict.fromkeys([*options.spec.annotates, *_classes(imported, table)]))
    for what, count in sorted(imported.counts.items()):
        logger.warning("%s: %d %s", path, count, what)

    def find(faults: list[str] | None) -> list[ImageMaskPair]:
        found = files.match([image.name for image in imported.images], str(path))
        missing = missing_images(imported, found)
        if missing is not None:
            if faults is None or not found:
                raise InputError(f"{path}: {missing}")
            faults.append(missing)
        by_path: dict[Path, AnnotatedImage] = {}
        for image in imported.images:
            if image.name not in found:
                continue
            place = found[image.name]
            if place in by_path:
                raise InputError(
                    f"{place}: annotated in {by_path[place].annotations.source} and in {image.source}, expected one"
                )
            by_path[place] = AnnotatedImage(stem_of(place.name), place, place, image.part, image)
        unused = len(files.paths) - len(by_path)
        if unused > 0:
            logger.info("%s: %d images here have no annotations and are not used", files.folder, unused)
        return with_unique_stems(list(by_path.values()), files.folder)

    converter = AnnotationConverter(files.folder, classes, options.annotations, min_area)
    logger.info(
        "%s: %d images in %s format, classes %s", path, len(imported.images), kind, ", ".join(classes)
    )
    return convert_pairs(
        files.folder,
        Path(out),
        find,
        converter,
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
            name = (
                table.class_of(cell.class_name, False, str(image.source))
                if cell.class_name
                else table.default
            )
            if name == DROP:
                imported.counts["cells dropped by the table"] += 1
                continue
            if name == IGNORE:
                cell.ignored, name = True, table.default
            cell.class_name = name
            kept.append(cell)
        image.cells = kept
    return tuple(table.class_ids)
