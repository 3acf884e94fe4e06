"""Registers what ``tools/convert_bccd.py`` wrote as Detectron2 data sets."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from bccd_d2.errors import InputError
from bccd_d2.io.coco_images import image_path, image_root
from bccd_d2.structures.cell_size import annotated_diameter
from bccd_d2.structures.coco import read_coco, unlabeled_categories
from bccd_d2.structures.dataset_files import ROOT_SOURCE, dataset_files, default_root
from bccd_d2.structures.names import match_classes

_logger = logging.getLogger(__name__)
_KEYS = ("iscrowd", "bbox", "segmentation", "area", "border")
_registered: dict[str, list[str]] = {}  # names by prefix


def register_bccd(root: Path | None = None, prefix: str = ROOT_SOURCE) -> dict[str, Path]:
    """Register the data sets below ``root`` (``None``: :func:`default_root`), of one source as ``bccd_train``,
    ``bccd_val`` and ``bccd_test``, of several as :func:`bccd_d2.structures.dataset_files.dataset_files` names them.

    Returns the JSON files by name. Data sets that an earlier call with this ``prefix`` registered are removed. A JSON
    is read when its data set is first used, once per process; its classes are in the metadata from then on. Raises
    InputError where ``root`` holds no annotation file.
    """
    files = dataset_files(default_root() if root is None else root, prefix)
    for name in _registered.get(prefix, ()):
        _unregister(name)
    _registered[prefix] = list(files)
    for name, json_file in files.items():
        _register(name, json_file)
    return files


def dataset_dicts(names: Sequence[str]) -> list[dict[str, Any]]:
    """Dataset dicts of all ``names``, of a name that is listed twice the same ones twice."""
    loaded = {name: DatasetCatalog.get(name) for name in dict.fromkeys(names)}
    return [record for name in names for record in loaded[name]]


def class_names(document: Mapping[str, Any]) -> list[str]:
    """Names of the categories of a COCO document in the order of Detectron2's contiguous class indices."""
    categories = sorted(document["categories"], key=lambda category: category["id"])
    return [category["name"] for category in categories]


def use_classes(files: Mapping[str, Path], names: Sequence[str], *, training: Collection[str] = ()) -> None:
    """Register data sets again with the classes of the model (``names``), joined by name.

    Raises InputError where a file has no class of the model, or a set of ``training`` has another one; elsewhere
    annotations of other classes are left out, with a warning.
    """
    for name, json_file in files.items():
        _class_indices(read_coco(json_file), json_file, names, required=name in training)
        _register(name, json_file, names)


def _class_indices(
    document: Mapping[str, Any], json_file: Path, names: Sequence[str], *, required: bool
) -> dict[int, int]:
    """Index of the model's class by category id."""
    own = {category["id"]: category["name"] for category in document["categories"]}
    indices = match_classes(own, dict(enumerate(names)), where=str(json_file), required=required)
    if own and not indices:
        raise InputError(
            f"{json_file}: found the classes {', '.join(own.values())}, expected {', '.join(names)}"
        )
    return indices


def _unregister(name: str) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _register(name: str, json_file: Path, model_classes: Sequence[str] | None = None) -> None:
    """Register a data set with the classes of the model, by default with its own."""

    def load() -> list[dict[str, Any]]:
        document = read_coco(json_file)
        names = class_names(document) if model_classes is None else list(model_classes)
        indices = _class_indices(document, json_file, names, required=False)
        MetadataCatalog.get(name).set(
            thing_classes=names,
            # Detectron2's COCOEvaluator compares predictions with the file by its category ids.
            thing_dataset_id_to_contiguous_id=indices,
        )
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

    _unregister(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(json_file=str(json_file), evaluator_type="coco")


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
