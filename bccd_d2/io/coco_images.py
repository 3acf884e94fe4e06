"""The images of a COCO document: where they lie, and whether they are what it says."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.io.images import read_image_size
from bccd_d2.structures.coco_repair import log_repairs, repair_coco

logger = logging.getLogger(__name__)
_FOLDERS = ("", "images", "images/{part}", "{part}", "data", "JPEGImages", "img")
"""Where images lie, seen from the JSON's folder or the one above it: beside it (Roboflow, VIA, makesense), in images
(Label Studio) or images/default (CVAT), or in a folder named as the part (COCO)."""


def image_path(root: Path, name: str) -> Path:
    """Path of the image ``name`` below ``root``; of a name with accents in NFC and in NFD (macOS) the file that is
    there.
    """
    path = root / name
    if not name.isascii() and not path.is_file():
        others = [root / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
        return next((other for other in others if other.is_file()), path)
    return path


def image_root(document: Mapping[str, Any], path: Path) -> Path:
    """Folder that ``file_name`` of a sound document read from ``path`` is relative to: as ``info.image_root`` says,
    seen from the folder above annotations/; or where :func:`find_image_folder` finds the images; or the folder
    above that of the JSON.
    """
    return _known_root(document, path) or path.parent.parent


def written_root(images: Path, output: Path) -> str:
    """``info.image_root`` for a folder of images and the folder above annotations/; not relative on another drive."""
    images = images.resolve()
    try:
        return Path(os.path.relpath(images, output.resolve())).as_posix()
    except ValueError:
        return images.as_posix()


def _known_root(document: Mapping[str, Any], path: Path) -> Path | None:
    written = (document.get("info") or {}).get("image_root")
    return path.parent.parent / written if written else find_image_folder(document, path)


def find_image_folder(document: Any, path: Path) -> Path | None:
    """The first folder in the layouts of common tools that holds the first image of a COCO document, sound or not,
    that was read from ``path``; ``None`` where none does.
    """
    images = document.get("images") if isinstance(document, Mapping) else None
    first = images[0] if isinstance(images, list) and images else None
    name = first.get("file_name") if isinstance(first, Mapping) else None
    if not isinstance(name, str):
        return None
    part = path.stem.removeprefix("instances_")
    places = [
        base / folder.format(part=part) for base in (path.parent, path.parent.parent) for folder in _FOLDERS
    ]
    try:
        return next((place for place in places if image_path(place, name.replace("\\", "/")).is_file()), None)
    except OSError:  # a name that no file can have
        return None


def check_file(path: Path, root: Path | None = None) -> tuple[list[str], Path | None]:
    """All faults of a COCO instance file that reading it does not repair, those of its image files included, and
    the folder of these; ``None`` where it is not known and the images were not checked. Raises InputError where
    there is no JSON.
    """
    document, repairs, faults = repair_coco(read_json(path))
    log_repairs(path, repairs)
    number = len(document["annotations"])
    if all(annotation["iscrowd"] for annotation in document["annotations"]):
        what = f"all {number} annotations have iscrowd 1 (regions to ignore); set it to 0 if they are single cells"
        logger.warning("%s: nothing to learn from: %s", path, what if number else "no annotations")
    root = root or _known_root(document, path.resolve())
    return faults + (list(image_faults(document["images"], root)) if root else []), root


def image_faults(images: Sequence[Mapping[str, Any]], root: Path) -> Iterator[str]:
    """What is wrong with the files of COCO images below ``root``: not there, no images, or of another size."""
    for image in tqdm(images, "check images", unit="image", disable=None, leave=False):
        path = image_path(root, image["file_name"])
        if not path.is_file():
            yield f"image {image['id']}: {path}: no such file"
            continue
        try:
            height, width = read_image_size(path)
        except InputError as error:
            yield f"image {image['id']}: {error}"
            continue
        if (height, width) != (image["height"], image["width"]):
            yield (
                f"image {image['id']}: {path} is {width}x{height} pixels, expected "
                f"{image['width']}x{image['height']}"
            )
