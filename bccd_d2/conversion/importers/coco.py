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
from bccd_d2.structures.rle import run_lengths


def read_coco_file(path: Path, images: ImageFiles, result: Imported) -> list[ImportedImage]:
    """Read one file; classes are joined by name. Raises InputError with a list of all faults that are left."""
    document = read_json(path)
    if isinstance(document, list):
        document = _document_of(document)
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
    names = [category["name"] for category in sorted(document["categories"], key=lambda c: c["id"])]
    result.classes += [name for name in names if name not in result.classes]
    found = _images(document, path)
    for image in found:
        image.name = images.beside(folder, image.name)
    return found


def _document_of(results: list[Any]) -> dict[str, Any]:
    """COCO document of a results list that names images and classes, as ``tools/predict.py`` writes it."""
    images: dict[str, dict[str, Any]] = {}
    categories: dict[str, dict[str, Any]] = {}
    annotations = []
    for number, entry in enumerate(results, start=1):
        outline = entry["segmentation"]
        compressed = isinstance(outline, dict)
        size = outline["size"] if compressed else (None, None)
        image = {"id": len(images) + 1, "file_name": entry["file_name"], "height": size[0], "width": size[1]}
        image = images.setdefault(entry["file_name"], image)
        category = {"id": entry["category_id"], "name": entry["category"]}
        category = categories.setdefault(entry["category"], category)
        ids = {"id": number, "image_id": image["id"], "category_id": category["id"]}
        area = int(run_lengths(outline)[1::2].sum()) if compressed else None
        shape = {"segmentation": outline, "bbox": entry.get("bbox"), "area": area, "iscrowd": 0}
        annotations.append({**ids, **shape})
    return {
        "images": list(images.values()),
        "categories": list(categories.values()),
        "annotations": annotations,
    }


def _images(document: dict[str, Any], path: Path) -> list[ImportedImage]:
    classes = {category["id"]: category["name"] for category in document["categories"]}
    part = part_of(path.stem) or part_of(path.parent.name)
    by_id = {
        image["id"]: ImportedImage(
            image["file_name"], path, size=(image["height"], image["width"]), part=part
        )
        for image in document["images"]
    }
    for annotation in document["annotations"]:
        cell = ImportedCell(classes[annotation["category_id"]], ignored=bool(annotation["iscrowd"]))
        if annotation["segmentation"]:
            cell.segmentation = annotation["segmentation"]
        else:
            x, y, width, height = annotation["bbox"]
            cell.box = (x, y, x + width, y + height)
        by_id[annotation["image_id"]].cells.append(cell)
    return list(by_id.values())
