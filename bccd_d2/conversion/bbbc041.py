"""Boxes of BBBC041, the malaria set of the Broad Bioimage Benchmark Collection (Ljosa et al. 2012).

Its JSON is a list with one entry an image::

    [{"image": {"pathname": "/images/UUID.png", "shape": {"r": 1200, "c": 1600, "channels": 3}},
      "objects": [{"bounding_box": {"minimum": {"r": 0, "c": 0}, "maximum": {"r": 98, "c": 101}},
                   "category": "red blood cell"}]}]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from bccd_d2.conversion.boxes import ImageBoxes, make_boxes, parse_coordinate, shared_stem_error
from bccd_d2.conversion.class_source import ImageRecord
from bccd_d2.errors import InputError


@dataclass(frozen=True)
class Bbbc041Boxes:
    """Boxes by the stem (the UUID) of their image.

    Attributes:
        path: where they were read from.
        by_stem: all boxes.
    """

    path: Path
    by_stem: Mapping[str, ImageBoxes] = field(repr=False)

    @classmethod
    def read(cls, path: Path | str) -> Bbbc041Boxes:
        """Read one JSON file, or all of a folder (the original comes as ``training.json`` and ``test.json``).

        Raises:
            InputError: see :func:`read_bbbc041`; or there is no file, or two name the same image.
        """
        path = Path(path)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no *.json here, expected boxes in BBBC041's format")
        by_stem: dict[str, ImageBoxes] = {}
        for file in files:
            for stem, boxes in read_bbbc041(file).items():
                if stem in by_stem:
                    raise InputError(f"{boxes.source}: {stem} has boxes in {by_stem[stem].source} too")
                by_stem[stem] = boxes
        return cls(path, by_stem)

    def __reduce__(self) -> tuple[Any, ...]:
        # The boxes of the whole set would go to a worker process with every image; it reads the file once instead.
        return _read_once, (self.path,)

    def find(self, image: ImageRecord) -> ImageBoxes | None:
        """Boxes of the image, ``None`` where the file has no entry for it.

        Raises:
            InputError: several images of the data set share the stem, so that nobody can tell whose boxes these are.
        """
        stem = Path(image.stem).name
        boxes = self.by_stem.get(stem)
        if boxes is not None and stem != image.stem:
            raise shared_stem_error(image, boxes.source)
        return boxes


@lru_cache(maxsize=1)
def _read_once(path: Path) -> Bbbc041Boxes:
    return Bbbc041Boxes.read(path)


def read_bbbc041(path: Path | str) -> dict[str, ImageBoxes]:
    """Read boxes by stem of the image.

    The maximum of a box is taken as the first row and column after it: boxes at the border reach the image's size.

    Raises:
        InputError: there is no such file, it is no JSON, has another shape, or holds one image twice.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected boxes in BBBC041's format") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(document, list):
        raise InputError(f"{path}: {type(document).__name__} at the top, expected BBBC041's list of images")
    found: dict[str, ImageBoxes] = {}
    for number, entry in enumerate(document):
        where = f"{path}: entry {number}"
        image = _get(entry, "image", Mapping, where)
        stem = PurePosixPath(_get(image, "pathname", str, where).replace("\\", "/")).stem
        if not stem:
            raise InputError(f"{where}: pathname without a file name, expected one")
        if stem in found:
            raise InputError(f"{where}: {stem} occurs twice, expected one entry an image")
        found[stem] = _read_entry(str(path), entry, image, f"{where} ({stem})")
    return found


def _read_entry(source: str, entry: Any, image: Mapping[str, Any], where: str) -> ImageBoxes:
    size = None
    if image.get("shape") is not None:
        shape = _get(image, "shape", Mapping, where)
        height, width = (int(parse_coordinate(shape.get(key), f"{where}: shape: {key}")) for key in "rc")
        size = (height, width)
    corners, names = [], []
    for index, item in enumerate(_get(entry, "objects", list, where)):
        here = f"{where}: object {index}"
        names.append(_get(item, "category", str, here))
        box = _get(item, "bounding_box", Mapping, here)
        low, high = _get(box, "minimum", Mapping, here), _get(box, "maximum", Mapping, here)
        x0, y0, x1, y1 = (
            parse_coordinate(corner.get(key), f"{here}: {end}: {key}")
            for corner, end in ((low, "minimum"), (high, "maximum"))
            for key in "cr"
        )
        if x1 < x0 or y1 < y0:
            raise InputError(
                f"{here}: box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}), expected minimum before maximum"
            )
        corners.append((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)))
    return make_boxes(source, corners, names, [False] * len(names), size)


def _get(content: Any, key: str, kind: type, where: str) -> Any:
    """``content[key]``, which must be of ``kind``."""
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, kind):
        found = f"{key!r}: {str(value)[:40]!r}" if value is not None else f"no {key!r}"
        expected = "a list" if kind is list else "a text" if kind is str else "an object"
        raise InputError(f"{where}: {found}, expected {expected}")
    return value
