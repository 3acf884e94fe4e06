"""Repairs what the exports of annotation tools get wrong in COCO instance JSON, and counts it.

What cannot be repaired stays as it is, for the validator to name. A sound document comes out unchanged.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.structures.coco import as_rle
from bccd_d2.structures.rle import rle_extent, run_lengths

logger = logging.getLogger(__name__)
ROOT_NAMES = frozenset({"background", "_background_", "cells", "object", "objects", "none", "root"})
"""Names of a category 0 that annotation tools add and nothing uses."""
BOX_SLACK, BOX_REPAIR = 1.0, 0.1
"""A box may differ from its outline by so many pixels; up to this share of its longer side (3 pixels at least) it is
rounding or another way to count, and is replaced. Boxes further off are a fault."""
ROUGH_BOX = 0.3
"""Intersection over union from which a box and an outline are of the same cell."""
POLYGON_SLACK, AREA_REPAIR = 0.1, 0.25
"""Share by which an area may differ from the pixels of its polygons, and up to which it is replaced."""
IMAGE_FOLDERS = ("", "images", "images/{part}", "{part}", "data", "JPEGImages", "img")
"""Where images lie, seen from the JSON's folder or the one above it: beside it (Roboflow, VIA, makesense), in images
(Label Studio) or images/default (CVAT), or in a folder named as the part (COCO)."""
Annotation = dict[str, Any]


def repair_coco(
    document: Any,
    *,
    size_of: Callable[[str], tuple[int, int] | None] | None = None,
    keep_boxes: bool = False,
) -> tuple[Any, Counter[str]]:
    """Repair a COCO instance document.

    Args:
        document: what the JSON holds.
        size_of: (height, width) of an image by its file name, for images without them.
        keep_boxes: for a conversion, which goes by outlines: keep annotations that have a box and no outline, with an
            empty list for a segmentation (otherwise they are left out, and counted), and replace boxes that cover
            their outline only roughly, such as those a model predicts.

    Returns:
        The document, and how often what was repaired.
    """
    keys = ("images", "annotations", "categories")
    if not isinstance(document, Mapping) or not all(isinstance(document.get(key), list) for key in keys):
        return document, Counter()
    return _Repair(document, size_of, keep_boxes).result()


def find_image_folder(document: Any, path: Path) -> Path | None:
    """Folder that the file names of a COCO document are relative to, in the layouts of common tools.

    Args:
        document: that was read from ``path``.
        path: of the JSON.

    Returns:
        The first of :data:`IMAGE_FOLDERS` that holds the first image, ``None`` where none does.
    """
    images = document.get("images") if isinstance(document, Mapping) else None
    first = images[0] if isinstance(images, list) and images else None
    name = first.get("file_name") if isinstance(first, Mapping) else None
    if not isinstance(name, str):
        return None
    name = name.replace("\\", "/")
    part = path.stem.removeprefix("instances_")
    for base in (path.parent, path.parent.parent):
        for folder in IMAGE_FOLDERS:
            place = base / folder.format(part=part)
            try:
                if (place / name).is_file():
                    return place
            except (OSError, ValueError):  # a name that no file can have
                return None
    return None


def log_repairs(path: Path | str, repairs: Mapping[str, int]) -> None:
    """Say what :func:`repair_coco` did to the document of a file."""
    if repairs:
        what = "; ".join(f"{count} {name}" for name, count in sorted(repairs.items()))
        logger.warning("%s: repaired as it was read: %s", path, what)


class _Repair:
    """One document on its way."""

    def __init__(
        self,
        document: Mapping[str, Any],
        size_of: Callable[[str], tuple[int, int] | None] | None,
        keep_boxes: bool,
    ) -> None:
        self.document = document
        self.size_of = size_of
        self.keep_boxes = keep_boxes
        self.counts: Counter[str] = Counter()

    def result(self) -> tuple[dict[str, Any], Counter[str]]:
        """The repaired document and the counts."""
        images, image_ids = self._entries("images", self._image)
        categories, category_ids = self._entries("categories", self._category)
        sizes = {
            image["id"]: (image.get("height"), image.get("width")) for image in images if _is_entry(image)
        }
        annotations: list[Any] = []
        seen: set[str] = set()
        for annotation in self.document["annotations"]:
            if not isinstance(annotation, Mapping):
                annotations.append(annotation)
                continue
            repaired = self._annotation(dict(annotation), image_ids, category_ids, sizes)
            if repaired is None:
                continue
            key = json.dumps({**annotation, "id": None, "image_id": repaired.get("image_id")}, sort_keys=True)
            if key in seen:
                self.counts["annotations that are there twice, left out"] += 1
                continue
            seen.add(key)
            annotations.append(repaired)
        self._number(annotations)
        used = {a["category_id"] for a in annotations if _is_entry(a, "category_id")}
        categories = self._without_root(categories, used)
        document = {**self.document, "images": images, "annotations": annotations, "categories": categories}
        if "info" in document and not document["info"]:  # null, or an empty text
            document["info"] = {}
        return document, self.counts

    def _entries(
        self, key: str, repair: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[Any], dict[str, int]]:
        """Entries of a list with whole numbers for ids, and the new id by the key of the old one."""
        entries = [repair(dict(e)) if isinstance(e, Mapping) else e for e in self.document[key]]
        ids = [_whole(e.get("id")) if isinstance(e, Mapping) else None for e in entries]
        texts = [isinstance(e, Mapping) and isinstance(e.get("id"), str) and e["id"] != "" for e in entries]
        # Ids that are words are numbered through, all of them, or they might meet numbers that are taken.
        renumber = any(text and number is None for text, number in zip(texts, ids))
        new_ids: dict[str, int] = {}
        kept: list[Any] = []
        name_key = "name" if key == "categories" else "file_name"
        by_name: dict[Any, int] = {}
        for position, (entry, number) in enumerate(zip(entries, ids), start=1):
            if not isinstance(entry, dict) or (number is None and not renumber):
                kept.append(entry)
                continue
            old = _id_key(entry.get("id"))
            name = entry.get(name_key)
            if isinstance(name, str) and name in by_name:
                self.counts[f"{key} that are there twice, joined"] += 1
                new_ids.setdefault(old, by_name[name])
                continue
            new = position if renumber else number
            if new != entry.get("id") or type(entry["id"]) is not int:
                self.counts[f"ids of {key} that are no whole numbers"] += 1
                if isinstance(entry.get("id"), str):
                    entry["original_id"] = entry["id"]
                entry["id"] = new
            assert new is not None
            if isinstance(name, str):
                by_name[name] = new
            new_ids.setdefault(old, new)
            kept.append(entry)
        return kept, new_ids

    def _image(self, image: dict[str, Any]) -> dict[str, Any]:
        name = image.get("file_name")
        if isinstance(name, str) and "\\" in name:
            image["file_name"] = name = name.replace("\\", "/")
            self.counts["file names with backslashes"] += 1
        sides = [_whole(image.get(side)) for side in ("height", "width")]
        if (
            not all(side and side > 0 for side in sides)
            and self.size_of is not None
            and isinstance(name, str)
        ):
            sides = list(self.size_of(name) or (None, None))
        for key, side in zip(("height", "width"), sides):
            if side is not None and side > 0 and type(image.get(key)) is not int:
                image[key] = side
                self.counts["image sizes that are missing or no whole numbers"] += 1
        return image

    def _category(self, category: dict[str, Any]) -> dict[str, Any]:
        name = category.get("name")
        if isinstance(name, str) and name != name.strip() and name.strip():
            category["name"] = name.strip()
            self.counts["category names with spaces around"] += 1
        return category

    def _without_root(self, categories: list[Any], used: set[Any]) -> list[Any]:
        """Leave out an unused category 0 that stands for all others."""
        parents = [c.get("supercategory") for c in categories if isinstance(c, Mapping)]
        kept = [
            c
            for c in categories
            if not (_is_entry(c) and c["id"] == 0 and 0 not in used)
            or not (c.get("name") in parents or str(c.get("name")).lower() in ROOT_NAMES)
        ]
        if not kept or len(kept) == len(categories):
            return categories
        self.counts["unused root categories, left out"] += len(categories) - len(kept)
        return kept

    def _annotation(
        self,
        annotation: Annotation,
        image_ids: Mapping[str, int],
        category_ids: Mapping[str, int],
        sizes: Mapping[int, tuple[Any, Any]],
    ) -> Annotation | None:
        for key, ids in (("image_id", image_ids), ("category_id", category_ids)):
            new = ids.get(_id_key(annotation.get(key)))
            if new is not None and (new != annotation[key] or type(annotation[key]) is not int):
                self.counts[f"{key} that is no whole number or was joined"] += 1
                annotation[key] = new
        crowd = annotation.get("iscrowd")
        if type(crowd) is not int:
            number = 0 if crowd is None else _whole(int(crowd) if isinstance(crowd, bool) else crowd)
            if number is not None:
                annotation["iscrowd"] = number
                self.counts["iscrowd that is missing or no number"] += 1
        if "segmentation" not in annotation and "rle" in annotation:
            annotation["segmentation"] = annotation["rle"]
        image_id = annotation.get("image_id")
        size = sizes.get(image_id) if isinstance(image_id, int) else None
        if size is None or not all(isinstance(side, int) and side > 0 for side in size):
            return annotation
        outline = self._outline(annotation.get("segmentation"))
        try:
            extent = _extent(outline, *size) if outline else (0, [0, 0, 0, 0])
        except InputError:
            return annotation  # named by the validator
        pixels, around = extent
        if not pixels:
            if self.keep_boxes and _box(annotation.get("bbox")):
                annotation["segmentation"] = []
                annotation["bbox"] = _box(annotation.get("bbox"))
                return annotation
            self.counts["annotations without an outline, or with one that covers no pixel, left out"] += 1
            return None
        annotation["segmentation"] = outline
        self._area_and_box(annotation, pixels, around)
        return annotation

    def _outline(self, segmentation: Any) -> Any:
        """The segmentation as RLE or as a list of polygons of three points and more."""
        if isinstance(segmentation, Mapping):
            if isinstance(segmentation.get("counts"), list):
                try:
                    run_lengths(segmentation)
                except InputError:
                    return segmentation
                compressed = coco_mask.frPyObjects(dict(segmentation), *segmentation["size"])
                self.counts["run lengths that are not compressed"] += 1
                return {"size": list(segmentation["size"]), "counts": compressed["counts"].decode("ascii")}
            return segmentation
        if not isinstance(segmentation, list):
            return segmentation or None
        polygons = [segmentation] if segmentation and _is_number(segmentation[0]) else segmentation
        if polygons is not segmentation:
            self.counts["polygons that are no list of lists"] += 1
        kept = []
        for polygon in polygons:
            flat = _flat(polygon)
            if isinstance(flat, list) and len(flat) < 6 and len(flat) % 2 == 0:
                self.counts["polygons of fewer than three points, left out"] += 1
            else:
                kept.append(flat)
        return kept

    def _area_and_box(self, annotation: Annotation, pixels: int, around: list[int]) -> None:
        area, exact = annotation.get("area"), isinstance(annotation["segmentation"], Mapping)
        number = float(area) if area is not None and _is_number(area) else 0.0
        off = abs(number - pixels)
        if number <= 0 or (0.5 if exact else POLYGON_SLACK * pixels) < off <= AREA_REPAIR * pixels:
            annotation["area"] = pixels
            self.counts["areas that are missing or differ from the outline's"] += 1
        box = _box(annotation.get("bbox"))
        if annotation.get("weak") is True and box:
            return
        near = max(3.0, BOX_REPAIR * max(around[2:]))
        if box and _distance(box, around) <= BOX_SLACK:
            if box != annotation["bbox"]:
                annotation["bbox"] = box
                self.counts["boxes that are no four numbers"] += 1
            return
        if box is None or _distance(box, around) <= near:
            annotation["bbox"] = list(around)
            self.counts["boxes that are missing or some pixels off"] += 1
            return
        x0, y0, x1, y1 = box
        if _distance([x0, y0, x1 - x0, y1 - y0], around) <= near:
            annotation["bbox"] = list(around)
            self.counts["boxes with corners in place of width and height"] += 1
        elif self.keep_boxes and _overlap(box, around) >= ROUGH_BOX:
            annotation["bbox"] = list(around)
            self.counts["boxes that cover their outline roughly"] += 1

    def _number(self, annotations: list[Any]) -> None:
        """Give each annotation a whole number of its own."""
        entries = [a for a in annotations if isinstance(a, Mapping)]
        numbers = [_whole(a.get("id")) for a in entries]
        taken = {number for number in numbers if number is not None}
        following = max(taken, default=0) + 1
        seen: set[int] = set()
        for annotation, number in zip(entries, numbers):
            if number is None or number in seen:
                number, following = following, following + 1
            seen.add(number)
            if number != annotation.get("id") or type(annotation["id"]) is not int:
                annotation["id"] = number  # type: ignore[index]
                self.counts["ids of annotations that are missing, repeated or no whole numbers"] += 1


def _extent(outline: Any, height: int, width: int) -> tuple[int, list[int]]:
    """Pixels of an outline and the box around them.

    Raises:
        InputError: it is none.
    """
    code = as_rle(outline, height, width)
    if isinstance(outline, Mapping):
        return rle_extent(outline)
    return int(coco_mask.area(code)), [int(side) for side in coco_mask.toBbox(code)]


def _distance(box: Sequence[float], other: Sequence[float]) -> float:
    """Largest distance of two ``[x, y, width, height]`` at a side."""
    a, b = ([x, y, x + width, y + height] for x, y, width, height in (box, other))
    return max(abs(x - y) for x, y in zip(a, b))


def _overlap(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two ``[x, y, width, height]``."""
    sides = [
        min(box[axis] + box[axis + 2], other[axis] + other[axis + 2]) - max(box[axis], other[axis])
        for axis in (0, 1)
    ]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    return shared / (box[2] * box[3] + other[2] * other[3] - shared)


def _flat(polygon: Any) -> Any:
    """``[x0, y0, ...]`` of numbers, from text or pairs too; anything else as it is."""
    if not isinstance(polygon, list):
        return polygon
    if polygon and all(isinstance(point, list) and len(point) == 2 for point in polygon):
        polygon = [value for point in polygon for value in point]
    if any(isinstance(value, str) for value in polygon):
        numbers = [_number(value) for value in polygon]
        return polygon if None in numbers else numbers
    return polygon


def _box(box: Any) -> list[float] | None:
    """Four numbers with an extent, or ``None``."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    numbers = [
        number for value in box if (number := value if _is_number(value) else _number(value)) is not None
    ]
    return numbers if len(numbers) == 4 and numbers[2] > 0 and numbers[3] > 0 else None


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _whole(value: Any) -> int | None:
    """A whole number from a number or from text."""
    number: float | None = value if _is_number(value) else _number(value)
    return int(number) if number is not None and abs(number) < 2**53 and number == int(number) else None


def _id_key(value: Any) -> str:
    """The same for 1, 1.0 and "1"."""
    number = _whole(value)
    return f"n{number}" if number is not None else f"t{value!r}"


def _is_entry(entry: Any, key: str = "id") -> bool:
    return isinstance(entry, Mapping) and type(entry.get(key)) is int
