"""Finds everything that is wrong with a COCO instance document, not just the first thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image_size
from bccd_d2.structures.coco import REQUIRED_LISTS, decode_segmentation, read_json
from bccd_d2.structures.coco_repair import find_image_folder, log_repairs, repair_coco
from bccd_d2.structures.rle import rle_extent

BOX_SLACK = 1.0
"""Pixels by which a box may differ from its mask: some tools count edges, others pixels."""
WEAK_SLACK = 0.6
"""The same for a weak mask, in longer sides of its box: it was guessed from the box, which people draw loosely, and
may fill less than half of it."""
POLYGON_SLACK = 0.1
"""Share by which the area of a polygon may differ from its pixels; outlines are not pixels."""
Entry = Mapping[str, Any]


def check_file(path: Path, image_root: Path | None = None) -> tuple[list[str], Path | None]:
    """All faults of a COCO instance file.

    Args:
        path: of the JSON.
        image_root: folder that ``file_name`` is relative to; where not given, that of ``info`` in files of ours.

    Returns:
        ``(faults, image_root)``; the folder is ``None`` where it is not known and the images were not looked at.

    Raises:
        InputError: there is no such file or it holds no JSON.
    """
    document, repairs = repair_coco(read_json(path))
    log_repairs(path, repairs)
    info = document.get("info") if isinstance(document, Mapping) else None
    written = info.get("image_root") if isinstance(info, Mapping) else None
    if image_root is None and isinstance(written, str):
        # It is seen from the output folder, in which the JSON lies in annotations/.
        image_root = path.resolve().parent.parent / written
    elif image_root is None:
        image_root = find_image_folder(document, path.resolve())
    return check_coco(document, image_root), image_root


def check_coco(document: Any, image_root: Path | None = None) -> list[str]:
    """All faults of a COCO instance document, in the order of the file.

    Args:
        document: what the JSON holds.
        image_root: folder that ``file_name`` is relative to; where given, the image files are looked at too.

    Returns:
        One line a fault; an empty list means that there is none.
    """
    if not isinstance(document, Mapping):
        return [f"the document is a {type(document).__name__}, expected an object"]
    lists = {key: document.get(key) for key in REQUIRED_LISTS}
    faults = [
        f"{key}: {type(value).__name__}, expected a list"
        for key, value in lists.items()
        if not isinstance(value, list)
    ]
    if faults:
        return faults
    entries = {key: [e for e in lists[key] or [] if isinstance(e, Mapping)] for key in REQUIRED_LISTS}
    for key, value in lists.items():
        faults += [f"{key}[{i}]: no object" for i, e in enumerate(value or []) if not isinstance(e, Mapping)]
        faults += _repeated(key, "id", entries[key])
    faults += _repeated("images", "file_name", entries["images"])
    faults += _repeated("categories", "name", entries["categories"])
    for image in tqdm(entries["images"], "check images", unit="image", disable=None):
        faults += _check_image(image, image_root)
    for category in entries["categories"]:
        name = category.get("name")
        if not isinstance(name, str) or not name:
            faults.append(f"category {category.get('id')!r}: name {name!r}, expected text")
    images = {_key(image.get("id")): image for image in entries["images"]}
    categories = {_key(category.get("id")) for category in entries["categories"]}
    for annotation in tqdm(entries["annotations"], "check annotations", unit="", disable=None):
        where = f"annotation {annotation.get('id')!r}"
        faults += [f"{where}: {fault}" for fault in _check_annotation(annotation, images, categories)]
    return faults


def _key(value: Any) -> Any:
    """``value`` in a form that can be looked up; ``True`` is not 1 here."""
    return value if isinstance(value, str) or _is_whole(value) else repr(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    """Of an image; JSON may have whole numbers that no float can hold."""
    return _is_whole(value) and 0 < value < 2**31


def _repeated(key: str, name: str, entries: list[Entry]) -> list[str]:
    counts = Counter(_key(entry.get(name)) for entry in entries)
    faults = [f"{key}: {count} entries without {name!r}" for count in [counts.pop("None", 0)] if count]
    return faults + [
        f"{key}: {name} {value!r} occurs {count} times, expected once"
        for value, count in counts.items()
        if count > 1
    ]


def _check_image(image: Entry, image_root: Path | None) -> Iterator[str]:
    where = f"image {image.get('id')!r}"
    sides = [image.get("height"), image.get("width")]
    sized = all(map(_is_side, sides))
    if not sized:
        yield f"{where}: height and width {sides}, expected two positive whole numbers"
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        yield f"{where}: file_name {name!r}, expected a path"
    elif image_root is not None:
        path = image_root / name
        if not path.is_file():
            yield f"{where}: {path}: no such file"
            return
        try:
            size = read_image_size(path)
        except InputError as error:
            yield f"{where}: {error}"
            return
        if sized and size != tuple(sides):
            yield f"{where}: {path} is {size[1]}x{size[0]} pixels, expected {sides[1]}x{sides[0]}"


def _check_annotation(annotation: Entry, images: dict[Any, Entry], categories: set[Any]) -> Iterator[str]:
    if _key(annotation.get("category_id")) not in categories:
        yield f"unknown category_id {annotation.get('category_id')!r}"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield f"iscrowd {annotation['iscrowd']!r}, expected 0 or 1"
    area = annotation.get("area")
    if not _is_number(area) or area <= 0:  # type: ignore[operator]
        yield f"area {area!r}, expected a positive number"
        area = None
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        yield f"bbox {str(box)[:60]}, expected [x, y, width, height]"
        box = None
    elif box[2] <= 0 or box[3] <= 0:
        yield f"bbox {box} without extent"
        box = None
    image = images.get(_key(annotation.get("image_id")))
    if image is None:
        yield f"unknown image_id {annotation.get('image_id')!r}"
        return
    height, width = image.get("height"), image.get("width")
    if not (_is_side(height) and _is_side(width)):
        return
    assert height is not None
    assert width is not None
    if box is not None and (
        min(box[0], box[1]) < -BOX_SLACK
        or box[0] + box[2] > width + BOX_SLACK
        or box[1] + box[3] > height + BOX_SLACK
    ):
        yield f"bbox {box} goes beyond the image of {width}x{height} pixels"
    weak = annotation.get("weak") is True
    yield from _check_segmentation(annotation.get("segmentation"), height, width, box, area, weak)


def _check_segmentation(
    segmentation: Any, height: int, width: int, box: list[float] | None, area: float | None, weak: bool
) -> Iterator[str]:
    try:
        rle = isinstance(segmentation, Mapping) and segmentation.get("size") == [height, width]
        pixels, around = (
            rle_extent(segmentation) if rle else _extent(decode_segmentation(segmentation, height, width))
        )
    except InputError as error:
        yield str(error)
        return
    if not pixels:
        yield "segmentation without a pixel inside the image"
        return
    slack = 0.5 if rle else POLYGON_SLACK * pixels
    if area is not None and abs(area - pixels) > slack:
        yield f"area {area}, but the segmentation covers {pixels} pixels"
    if box is not None:
        edges = (
            box[0] - around[0],
            box[1] - around[1],
            box[0] + box[2] - around[0] - around[2],
            box[1] + box[3] - around[1] - around[3],
        )
        if max(map(abs, edges)) > (WEAK_SLACK * max(box[2:]) if weak else BOX_SLACK):
            yield f"bbox {box}, but the segmentation lies in {around}"


def _extent(mask: NDArray[np.uint8]) -> tuple[int, list[int]]:
    """Area and bounding box ``[x, y, width, height]`` of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, [0, 0, 0, 0]
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return int(np.count_nonzero(mask)), [int(value) for value in box]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
