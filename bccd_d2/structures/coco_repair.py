"""The one check of COCO instance documents: repairs what exports of annotation tools get wrong, names what it cannot.

A sound document comes out unchanged.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.structures.rle import as_rle, run_lengths

logger = logging.getLogger(__name__)
_LISTS = ("images", "annotations", "categories")
_ROOT_NAMES = frozenset({"background", "_background_", "cells", "object", "objects", "none", "root"})
"""Names of a category 0 that annotation tools add and nothing uses."""
_BOX_SLACK, _BOX_REPAIR = 1.0, 0.1
"""A box may differ from its outline by so many pixels; up to this share of its longer side (3 pixels at least) it is
rounding or another way to count, and is replaced. Boxes further off are a fault."""
_WEAK_SLACK = 0.6
"""The same for a weak mask, in longer sides of its box: it was guessed from the box, which people draw loosely, and
may fill less than half of it."""
_ROUGH_BOX = 0.3  # intersection over union from which a box and an outline are of the same cell
_POLYGON_SLACK = 0.1
"""Share by which an area may differ from the pixels of its polygons; outlines are not pixels."""
_FAULTS_SHOWN = 50
Entry = dict[str, Any]
SizeOf = Callable[[str], tuple[int, int] | None]


class Repaired(NamedTuple):
    """A COCO document after its repair."""

    document: dict[str, Any]  # sound where there are no faults; entries with a fault may be missing from it
    repairs: Counter[str]  # how often what was repaired
    faults: list[str]  # what cannot be repaired, one line each, in the order of the file


def repair_coco(document: Any, *, size_of: SizeOf | None = None, keep_boxes: bool = False) -> Repaired:
    """Repair and check a COCO instance document, which is not changed itself.

    ``size_of`` gives (height, width) of an image by its file name, for images without them. ``keep_boxes`` is for
    conversion, which goes by outlines: annotations with a box and no outline are kept, with an empty list for a
    segmentation (otherwise they are left out and counted), and boxes that cover their outline only roughly, such as
    those a model predicts, are replaced.
    """
    if isinstance(document, Mapping):
        lists = {key: document.get(key) for key in _LISTS}
        faults = [
            f"{k}: {type(v).__name__}, expected a list" for k, v in lists.items() if not isinstance(v, list)
        ]
        if not faults:
            return _Repair(document, size_of, keep_boxes).result()
    else:
        faults = [f"the document is a {type(document).__name__}, expected an object"]
    return Repaired({key: [] for key in _LISTS}, Counter(), faults)


def log_repairs(path: Path | str, repairs: Mapping[str, int]) -> None:
    """Say what :func:`repair_coco` did to the document of a file."""
    if repairs:
        what = "; ".join(f"{count} {name}" for name, count in sorted(repairs.items()))
        logger.warning("%s: repaired as it was read: %s", path, what)


def refuse_faults(path: Path | str, faults: Sequence[str]) -> None:
    """Raise InputError with a list of the faults of a file, if there are any."""
    if faults:
        more = [f"... and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        shown = "".join(f"\n  {fault}" for fault in [*faults[:_FAULTS_SHOWN], *more])
        count = f"{len(faults)} faults" if len(faults) > 1 else "1 fault"
        raise InputError(f"{path}: no sound COCO document, {count}:{shown}")


class _Repair:
    """One document on its way."""

    def __init__(self, document: Mapping[str, Any], size_of: SizeOf | None, keep_boxes: bool) -> None:
        self.document = document
        self.size_of = size_of
        self.keep_boxes = keep_boxes
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def result(self) -> Repaired:
        images, image_ids = self._listed("images", "file_name", self._image)
        categories, category_ids = self._listed("categories", "name", self._category)
        if not self.document["categories"]:
            self.faults.append("no categories")
        ids = {"image_id": image_ids, "category_id": category_ids}
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        annotations = []
        seen: set[tuple[Any, ...]] = set()
        for entry in self._entries("annotations"):
            annotation = self._annotation(entry, ids, sizes)
            if annotation is None:
                continue
            key = (
                *(annotation[name] for name in ("image_id", "category_id", "iscrowd")),
                *(repr(annotation[name]) for name in ("segmentation", "bbox")),
            )
            if key in seen:
                self.counts["annotations that are there twice, left out"] += 1
                continue
            seen.add(key)
            annotations.append(annotation)
        self._number(annotations)
        categories = self._without_root(categories, {a["category_id"] for a in annotations})
        document = {**self.document, "images": images, "annotations": annotations, "categories": categories}
        if "info" in document:
            info = document["info"] or {}  # null, or an empty text
            if not isinstance(info, Mapping) or not isinstance(info.get("image_root", ""), str):
                self.faults.append(f"info {_shown(info)}, expected an object with the path 'image_root'")
                info = {}
            document["info"] = info
        return Repaired(document, self.counts, self.faults)

    def _entries(self, key: str) -> list[Entry]:
        """Copies of the entries of a list that are objects."""
        entries = self.document[key]
        self.faults += [f"{key}[{i}]: no object" for i, e in enumerate(entries) if not isinstance(e, Mapping)]
        return [dict(entry) for entry in entries if isinstance(entry, Mapping)]

    def _listed(
        self, key: str, name_key: str, repair: Callable[[Entry], None]
    ) -> tuple[list[Entry], dict[str, int]]:
        """Images or categories with whole numbers for ids, and the new id by the key of the old one."""
        entries = self._entries(key)
        numbers = [_whole(entry.get("id")) for entry in entries]
        # Ids that are words are numbered through, all of them, or they might meet numbers that are taken.
        if any(n is None and isinstance(e.get("id"), str) and e["id"] for n, e in zip(numbers, entries)):
            numbers = list(range(1, len(entries) + 1))
        kept: dict[int, Entry] = {}
        new_ids: dict[str, int] = {}
        by_name: dict[Any, int] = {}
        for position, (entry, number) in enumerate(zip(entries, numbers)):
            old, where = entry.get("id"), f"{key}[{position}]"
            try:
                repair(entry)
            except InputError as error:
                self.faults.append(f"{where} with id {_shown(old)}: {error}")
                entry[name_key] = None
            name = entry[name_key]
            if number is None:
                self.faults.append(f"{where}: id {_shown(old)}, expected a whole number")
            elif name in by_name:
                self.counts[f"{key} that are there twice, joined"] += 1
                new_ids.setdefault(_id_key(old), by_name[name])
            elif number in kept:
                self.faults.append(f"{key}: id {number} occurs twice, expected once")
            else:
                new_ids[_id_key(old)] = number
                kept[number] = entry
                if number != old or type(old) is not int:
                    self.counts[f"ids of {key} that are no whole numbers"] += 1
                    entry["id"] = number
                    if isinstance(old, str):
                        entry["original_id"] = old
                if name is not None:
                    by_name[name] = number
        for name, number in by_name.items():  # some annotations name their image or category
            new_ids.setdefault(_id_key(name), number)
        return [entry for entry in kept.values() if entry[name_key] is not None], new_ids

    def _image(self, image: Entry) -> None:
        """Repair an image but for its id; raises InputError for the fault that is left."""
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"file_name {_shown(name)}, expected a path")
        if "\\" in name:
            image["file_name"] = name = name.replace("\\", "/")
            self.counts["file names with backslashes"] += 1
        sides = [_whole(image.get(side)) for side in ("height", "width")]
        if self.size_of is not None and not all(side and side > 0 for side in sides):
            sides = list(self.size_of(name) or sides)
        for key, side in zip(("height", "width"), sides):
            if side is None or not 0 < side < 2**31:
                found = f"{_shown(image.get('height'))} and {_shown(image.get('width'))}"
                raise InputError(f"height and width {found}, expected two positive whole numbers")
            if type(image.get(key)) is not int or image[key] != side:
                image[key] = side
                self.counts["image sizes that are missing or no whole numbers"] += 1

    def _category(self, category: Entry) -> None:
        """Repair a category but for its id; raises InputError for the fault that is left."""
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"name {_shown(name)}, expected text")
        if name != name.strip():
            category["name"] = name.strip()
            self.counts["category names with spaces around"] += 1

    def _without_root(self, categories: list[Entry], used: set[int]) -> list[Entry]:
        """Leave out an unused category 0 that stands for all others."""
        names = {c["supercategory"] for c in categories if isinstance(c.get("supercategory"), str)}
        kept = [
            c for c in categories if c["id"] or not (c["name"] in names or c["name"].lower() in _ROOT_NAMES)
        ]
        if 0 in used or not kept or len(kept) == len(categories):
            return categories
        self.counts["unused root categories, left out"] += len(categories) - len(kept)
        return kept

    def _annotation(
        self,
        annotation: Entry,
        ids: Mapping[str, Mapping[str, int]],
        sizes: Mapping[int, tuple[int, int]],
    ) -> Entry | None:
        """The repaired annotation, ``None`` where it is left out or has a fault."""
        faults = []
        for key, new_ids in ids.items():
            old = annotation.get(key)
            new = new_ids.get(_id_key(old))
            if new is None:
                faults.append(f"unknown {key} {_shown(old)}")
            elif new != old or type(old) is not int:
                self.counts[f"{key} that is no whole number or was joined"] += 1
                annotation[key] = new
        crowd = annotation.get("iscrowd")
        if type(crowd) is not int:
            number = 0 if crowd is None else _whole(int(crowd) if isinstance(crowd, bool) else crowd)
            if number is not None:
                annotation["iscrowd"] = number
                self.counts["iscrowd that is missing or no number"] += 1
        if annotation["iscrowd"] == 0 and annotation.pop("ignore", 0) in (1, True):
            annotation["iscrowd"] = 1
            self.counts["annotations with ignore 1, taken for regions to ignore"] += 1
        if annotation["iscrowd"] not in (0, 1):
            faults.append(f"iscrowd {_shown(crowd)}, expected 0 or 1")
        image_id = annotation.get("image_id")
        size = sizes.get(image_id) if type(image_id) is int else None
        kept = True
        if size is not None:
            try:
                kept = self._outline_and_box(annotation, *size)
            except InputError as error:
                faults.append(str(error))
        self.faults += [f"annotation {_shown(annotation.get('id'))}: {fault}" for fault in faults]
        return annotation if kept and size is not None and not faults else None

    def _outline_and_box(self, annotation: Entry, height: int, width: int) -> bool:
        """Repair outline, area and box; returns whether the annotation is kept."""
        if "segmentation" not in annotation and "rle" in annotation:
            annotation["segmentation"] = annotation["rle"]
        outline = self._outline(annotation.get("segmentation"))
        box = _box(annotation.get("bbox"))
        polygons = outline if isinstance(outline, list) else []
        points = [value for one in polygons if isinstance(one, list) for value in one]
        if _are_shares(points) or _are_shares(box or ()):
            raise InputError("coordinates between 0 and 1, expected pixels of the image")
        pixels, around = _extent(outline, height, width) if outline else (0, [])
        if not pixels:
            if self.keep_boxes and box:
                annotation |= {"segmentation": [], "bbox": box}
                return True
            self.counts["annotations without an outline, or with one that covers no pixel, left out"] += 1
            return False
        annotation["segmentation"] = outline
        area = annotation.get("area")
        slack = 0.5 if isinstance(outline, Mapping) else _POLYGON_SLACK * pixels
        if not _is_number(area) or abs(area - pixels) > slack:
            annotation["area"] = pixels
            self.counts["areas that are missing or differ from the outline's"] += 1
        weak = annotation.get("weak") is True
        if box and _distance(box, around) <= (_WEAK_SLACK * max(box[2:]) if weak else _BOX_SLACK):
            if box != annotation["bbox"]:
                annotation["bbox"] = box
                self.counts["boxes that are no four numbers"] += 1
            return True
        near = max(3.0, _BOX_REPAIR * max(around[2:]))
        if box is None or (not weak and _distance(_clipped(box, height, width), around) <= near):
            reason = "boxes that are missing or some pixels off"
        elif not weak and _distance([*box[:2], box[2] - box[0], box[3] - box[1]], around) <= near:
            reason = "boxes with corners in place of width and height"
        elif (
            not weak
            and self.keep_boxes
            and coco_mask.iou(np.array([box], float), np.array([around], float), [0])[0, 0] >= _ROUGH_BOX
        ):
            reason = "boxes that cover their outline roughly"
        else:
            raise InputError(f"bbox {box}, but the segmentation lies in {around}")
        annotation["bbox"] = around
        self.counts[reason] += 1
        return True

    def _outline(self, segmentation: Any) -> Any:
        """The segmentation as compressed RLE or as a list of polygons of three points and more."""
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), list):
            if run_lengths(segmentation).max(initial=0) >= 2**32:
                raise InputError("a run of 2^32 pixels or more, which pycocotools cannot compress")
            compressed = coco_mask.frPyObjects(dict(segmentation), *segmentation["size"])
            self.counts["run lengths that are not compressed"] += 1
            return {"size": list(segmentation["size"]), "counts": compressed["counts"].decode("ascii")}
        if not isinstance(segmentation, list):
            return segmentation
        polygons = [segmentation] if segmentation and _is_number(segmentation[0]) else segmentation
        if polygons is not segmentation:
            self.counts["polygons that are no list of lists"] += 1
        flat = [_flat(polygon) for polygon in polygons]
        kept = [one for one in flat if not isinstance(one, list) or len(one) >= 6 or len(one) % 2]
        if len(kept) < len(flat):
            self.counts["polygons of fewer than three points, left out"] += len(flat) - len(kept)
        return kept

    def _number(self, annotations: list[Entry]) -> None:
        """Give each annotation a whole number of its own."""
        numbers = [_whole(annotation.get("id")) for annotation in annotations]
        following = max((number for number in numbers if number is not None), default=0) + 1
        seen: set[int] = set()
        for annotation, number in zip(annotations, numbers):
            if number is None or number in seen:
                number, following = following, following + 1
            seen.add(number)
            if number != annotation.get("id") or type(annotation["id"]) is not int:
                annotation["id"] = number
                self.counts["ids of annotations that are missing, repeated or no whole numbers"] += 1


def _extent(outline: Any, height: int, width: int) -> tuple[int, list[int]]:
    """Pixels of an outline and the box around them; raises InputError where it is none."""
    code = as_rle(outline, height, width)
    run_lengths(code)
    return int(coco_mask.area(code)), [int(side) for side in coco_mask.toBbox(code)]


def _distance(box: Sequence[float], other: Sequence[float]) -> float:
    """Largest distance of two ``[x, y, width, height]`` at a side."""
    a, b = ([x, y, x + width, y + height] for x, y, width, height in (box, other))
    return max(abs(x - y) for x, y in zip(a, b))


def _clipped(box: Sequence[float], height: int, width: int) -> list[float]:
    """The part of ``[x, y, width, height]`` inside an image."""
    x0, y0 = max(0.0, box[0]), max(0.0, box[1])
    return [x0, y0, min(width, box[0] + box[2]) - x0, min(height, box[1] + box[3]) - y0]


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
    numbers = [number for value in box if (number := _number(value)) is not None]
    return numbers if len(numbers) == 4 and numbers[2] > 0 and numbers[3] > 0 else None


def _are_shares(values: Sequence[Any]) -> bool:
    """Whether coordinates are shares of the image's sides: all between 0 and 1, and not all whole numbers."""
    return all(_is_number(v) and 0 <= v <= 1 for v in values) and any(v not in (0, 1) for v in values)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _number(value: Any) -> float | None:
    """A finite number that a float can hold, from text too."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if _is_number(value) else None


def _whole(value: Any) -> int | None:
    """A whole number, from text too."""
    number = _number(value)
    return int(number) if number is not None and number == math.floor(number) else None


def _id_key(value: Any) -> str:
    """The same for 1, 1.0 and "1"."""
    number = _whole(value)
    return f"n{number}" if number is not None else f"t{value!r}"


def _shown(value: Any) -> str:
    return repr(value)[:60]
