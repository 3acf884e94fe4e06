"""Registers what ``tools/convert_bccd.py`` wrote as Detectron2 data sets."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from bccd_d2.errors import InputError
from bccd_d2.io.coco_images import image_path, image_root
from bccd_d2.structures.cell_size import annotated_diameter
from bccd_d2.structures.coco import PARTS as PARTS
from bccd_d2.structures.coco import read_coco, unlabeled_categories
from bccd_d2.structures.names import match_classes

_logger = logging.getLogger(__name__)
_KEYS = ("iscrowd", "bbox", "segmentation", "area", "border")


def default_root() -> Path:
    """``bccd`` below ``$DETECTRON2_DATASETS``, or below ``datasets`` in the working directory when it is not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "bccd"


def annotation_file(root: Path, part: str) -> Path:
    """Path of the COCO JSON of ``part`` (``"train"``, ``"val"`` or ``"test"``) below ``root``."""
    return root / "annotations" / f"instances_{part}.json"


def register_bccd(root: Path | None = None, prefix: str = "bccd") -> dict[str, Path]:
    """Register ``bccd_train``, ``bccd_val`` and ``bccd_test`` below ``root``; returns the JSON files, by name, that
    exist.

    Each folder in ``root`` that is such a data set itself is registered under its own name, as ``FOLDER_train`` and so
    on, so that one training can read several sources. Registering another folder under the same names replaces the
    earlier one. The JSON is read when the data set is first used. Raises InputError where ``root`` (``None``:
    :func:`default_root`) holds no annotation file, or one that is no COCO JSON.
    """
    root = default_root() if root is None else root
    sources = {prefix: root}
    if root.is_dir():
        sources |= {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    registered = {}
    for source, folder in sources.items():
        for part in PARTS:
            json_file = annotation_file(folder, part)
            if json_file.is_file():
                name = f"{source}_{part}"
                _register(name, json_file)
                registered[name] = json_file
            else:
                _unregister(f"{source}_{part}")  # of another folder
    if not registered:
        raise InputError(
            f"{root}: expected annotations/instances_train.json (or val, test) in it or in its folders, found none; "
            "--data-root is a folder that tools/convert_bccd.py wrote"
        )
    return registered


def class_names(json_file: Path) -> list[str]:
    """Names of the categories of a COCO JSON in the order of Detectron2's contiguous class indices."""
    return _class_names(read_coco(json_file))


def _class_names(document: Mapping[str, Any]) -> list[str]:
    categories = sorted(document["categories"], key=lambda category: category["id"])
    return [category["name"] for category in categories]


def use_classes(files: Mapping[str, Path], names: Sequence[str], *, training: Collection[str] = ()) -> None:
    """Register data sets again with the classes of the model (``names``), joined by name.

    Raises InputError where a file has no class of the model, or a set of ``training`` has another one; elsewhere
    annotations of other classes are left out, with a warning.
    """
    for name, json_file in files.items():
        _register(name, json_file, names, required=name in training)


def _unregister(name: str) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _register(name: str, json_file: Path, names: Sequence[str] | None = None, required: bool = False) -> None:
    _unregister(name)
    document = read_coco(json_file)
    own = {category["id"]: category["name"] for category in document["categories"]}
    names = _class_names(document) if names is None else names
    indices = match_classes(own, dict(enumerate(names)), where=str(json_file), required=required)
    if own and not indices:
        raise InputError(
            f"{json_file}: found the classes {', '.join(own.values())}, expected {', '.join(names)}"
        )

    def load() -> list[dict[str, Any]]:
        document = read_coco(json_file)
        folder = image_root(document, json_file)
        unlabeled = _unlabeled(document, json_file, names)
        # Detectron2's own reader fails on what the repair of the document accepts.
        records: dict[int, dict[str, Any]] = {
            image["id"]: {
                "file_name": str(image_path(folder, image["file_name"])),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": [],
            }
            for image in sorted(document["images"], key=lambda image: image["id"])
        }
        others = 0
        for annotation in document["annotations"]:
            index = indices.get(annotation["category_id"])
            if index is None:
                others += 1
                continue
            one = {key: annotation[key] for key in _KEYS if key in annotation}
            one |= {"category_id": index, "bbox_mode": BoxMode.XYWH_ABS}
            records[annotation["image_id"]]["annotations"].append(one)
        if others:
            _logger.warning("%s: %d annotations of classes that the model does not have", json_file, others)
        dicts = list(records.values())
        by_index = dict(enumerate(names))
        usual = annotated_diameter(
            (one for record in dicts for one in record["annotations"]), by_index, fewest=1
        )
        for record in dicts:
            diameter = annotated_diameter(record["annotations"], by_index) or usual
            record.update(unlabeled[record["image_id"]], cell_diameter=diameter)
        if dicts and not Path(dicts[0]["file_name"]).is_file():
            raise InputError(
                f"{json_file}: its images are expected in {folder.absolute()}, but {dicts[0]['file_name']} is not "
                "there; convert again with the folder where the images are now"
            )
        return dicts

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        evaluator_type="coco",
        thing_classes=list(names),
        # Detectron2's COCOEvaluator compares predictions with the file by its category ids.
        thing_dataset_id_to_contiguous_id=dict(indices),
    )


def _unlabeled(
    document: Mapping[str, Any], json_file: Path, names: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """By image id what a dataset dict says of classes that its image's source does not annotate."""
    found: dict[int, dict[str, Any]] = {}
    for image in document["images"]:
        classes = unlabeled_categories(document, image, str(json_file))
        sizes = {**(document.get("info") or {}), **image}.get("unlabeled_sizes")
        where = f"{json_file}, image {image.get('file_name')!r}"
        record = found[image["id"]] = {}
        if classes:
            record["unlabeled_classes"] = sorted({names.index(one) for one in classes if one in names})
        if sizes is not None:
            numbers = isinstance(sizes, list) and all(isinstance(value, int | float) for value in sizes)
            if not numbers or len(sizes) != 2 or not 0 <= sizes[0] <= sizes[1]:
                raise InputError(f"{where}: unlabeled_sizes {sizes!r}, expected [lowest, highest] in pixels")
            if classes:
                record["unlabeled_sizes"] = [float(value) for value in sizes]
    return found
