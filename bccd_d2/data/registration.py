"""Registers what ``tools/convert_bccd.py`` wrote as Detectron2 data sets."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json

from bccd_d2.errors import InputError

PARTS = ("train", "val", "test")


def default_root() -> Path:
    """``bccd`` below ``$DETECTRON2_DATASETS``, or below ``datasets`` in the working directory when it is not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "bccd"


def annotation_file(root: Path, part: str) -> Path:
    """Path of the COCO JSON of ``part`` (``"train"``, ``"val"`` or ``"test"``) below ``root``."""
    return root / "annotations" / f"instances_{part}.json"


def register_bccd(root: Path | None = None, prefix: str = "bccd") -> dict[str, Path]:
    """Register ``bccd_train``, ``bccd_val`` and ``bccd_test``, those whose JSON exists.

    Registering another folder under the same names replaces the earlier one. The JSON is read when the data set is
    first used.

    Args:
        root: the folder that ``tools/convert_bccd.py --out`` wrote; ``None`` stands for :func:`default_root`.
        prefix: first part of the registered names.

    Returns:
        The JSON file of each registered name.

    Raises:
        InputError: ``root`` holds no annotation file, or one that is no COCO JSON.
    """
    root = default_root() if root is None else root
    registered = {}
    for part in PARTS:
        json_file = annotation_file(root, part)
        if json_file.is_file():
            name = f"{prefix}_{part}"
            _register(name, json_file)
            registered[name] = json_file
    if not registered:
        raise InputError(
            f"{root}: expected annotations/instances_train.json (or val, test) in it, found none; make it with "
            "'python tools/convert_bccd.py --root IMAGES_AND_MASKS --out FOLDER' and name it with --data-root"
        )
    return registered


def class_names(json_file: Path) -> list[str]:
    """Names of the categories of a COCO JSON in the order of Detectron2's contiguous class indices.

    Raises:
        InputError: the file is no JSON, or holds no categories.
    """
    categories = sorted(_read_json(json_file)["categories"], key=lambda category: category["id"])
    return [category["name"] for category in categories]


def median_diameter(json_files: Sequence[Path]) -> float:
    """Median diameter of the annotated cells in native pixels, each taken for a disc of its area.

    Regions with ``iscrowd`` and cells at the border of their image, which are cut, do not count.

    Args:
        json_files: COCO instance files.

    Returns:
        To one decimal; 0 where there is no cell.

    Raises:
        InputError: a file is no COCO JSON.
    """
    areas = [
        annotation["area"]
        for json_file in json_files
        for annotation in _read_json(json_file).get("annotations", [])
        if not annotation.get("iscrowd") and not annotation.get("border")
    ]
    return round(2 * math.sqrt(statistics.median(areas) / math.pi), 1) if areas else 0.0


def _read_json(json_file: Path) -> dict[str, Any]:
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{json_file}: expected COCO JSON, found none ({error})") from error
    if not isinstance(content, dict) or not content.get("categories"):
        raise InputError(f"{json_file}: expected COCO JSON with the key 'categories', found none")
    return content


def _register(name: str, json_file: Path) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    def load() -> list[dict[str, Any]]:
        info = _read_json(json_file).get("info", {})
        image_root = json_file.parent.parent / info.get("image_root", ".")
        dicts = load_coco_json(str(json_file), str(image_root), name, extra_annotation_keys=["border"])
        if dicts and not Path(dicts[0]["file_name"]).is_file():
            raise InputError(
                f"{json_file}: its images are expected in {image_root.resolve()}, but {dicts[0]['file_name']} is not "
                "there; convert again with the folder where the images are now"
            )
        return dicts

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        json_file=str(json_file), evaluator_type="coco", thing_classes=class_names(json_file)
    )
