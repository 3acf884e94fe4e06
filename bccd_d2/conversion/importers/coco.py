"""COCO instance JSON of CVAT, Roboflow, Label Studio, makesense, LabelMe and VIA, and our ``predictions.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bccd_d2.conversion.importers.common import (
    ImageFiles,
    Imported,
    ImportedCell,
    ImportedImage,
    part_of,
)
from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.io.coco_images import find_image_folder
from bccd_d2.structures.coco_repair import refuse_faults, repair_coco


def read_coco_file(path: Path, images: ImageFiles, result: Imported) -> list[ImportedImage]:
    """Read a document, or a results list that names images and classes, as ``tools/predict.py`` writes it; classes are
    joined by name. Raises InputError with a list of all faults that are left.
    """
    document = read_json(path)
    if isinstance(document, list):
        names = dict(sorted((entry.get("category_id", 0), entry["category"]) for entry in document))
        result.classes += [name for name in names.values() if name not in result.classes]
        return _of_results(document, path)
    folder = find_image_folder(document, path) or path.parent

    def size_of(name: str) -> tuple[int, int] | None:
        try:
            found = images.match([images.beside(folder, name)], str(path))
            return images.size(*found.values()) if found else None
        except (InputError, OSError):
            return None

    document, repairs, faults = repair_coco(document, size_of=size_of, keep_boxes=True)
    refuse_faults(path, faults)
    result.counts += repairs
    classes = {one["id"]: one["name"] for one in sorted(document["categories"], key=lambda one: one["id"])}
    result.classes += [name for name in classes.values() if name not in result.classes]
    part = part_of(path.stem) or part_of(path.parent.name)
    by_id = {}
    for image in document["images"]:
        name, size = images.beside(folder, image["file_name"]), (image["height"], image["width"])
        by_id[image["id"]] = ImportedImage(name, path, size=size, part=part)
    for annotation in document["annotations"]:
        cell = ImportedCell(classes[annotation["category_id"]], ignored=bool(annotation["iscrowd"]))
        if annotation["segmentation"]:
            cell.segmentation = annotation["segmentation"]
        else:
            x, y, width, height = annotation["bbox"]
            cell.box = (x, y, x + width, y + height)
        by_id[annotation["image_id"]].cells.append(cell)
    return list(by_id.values())


def _of_results(results: list[Any], path: Path) -> list[ImportedImage]:
    images: dict[str, ImportedImage] = {}
    for entry in results:
        name, outline = entry["file_name"], entry["segmentation"]
        image = images.setdefault(name, ImportedImage(name, path))
        if isinstance(outline, dict):
            height, width = outline["size"]
            image.size = (height, width)
        image.cells.append(ImportedCell(entry["category"], entry.get("score"), segmentation=outline))
    return list(images.values())
