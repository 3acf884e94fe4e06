"""COCO instance JSON as CVAT, Roboflow, Label Studio, makesense, LabelMe and VIA export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedCell, ImportedImage, part_of
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_json
from bccd_d2.structures.coco_check import check_coco
from bccd_d2.structures.coco_repair import find_image_folder, repair_coco

MAX_FAULTS_SHOWN = 50


def read_coco_files(files: list[Path], images: ImageFiles) -> Imported:
    """Read all files; classes are joined by name.

    Raises:
        InputError: a file has faults that cannot be repaired; all are listed.
    """
    result = Imported()
    for path in files:
        document = read_json(path)
        folder = find_image_folder(document, path) or path.parent
        document, repairs = repair_coco(
            document,
            size_of=lambda name, folder=folder: images.size(images.beside(folder, name)),  # type: ignore[misc]
            keep_boxes=True,
        )
        result.counts += repairs
        for image in _images(document, path):
            image.name = images.beside(folder, image.name)
            result.images.append(image)
        names = [category["name"] for category in sorted(document["categories"], key=lambda c: c["id"])]
        result.classes += [name for name in names if name not in result.classes]
    return result


def _images(document: Any, path: Path) -> list[ImportedImage]:
    annotations = document.get("annotations") if isinstance(document, dict) else None
    boxes = [a for a in annotations or [] if isinstance(a, dict) and a.get("segmentation") == []]
    outlined = [a for a in annotations or [] if a not in boxes] if boxes else annotations
    faults = check_coco({**document, "annotations": outlined} if isinstance(document, dict) else document)
    if not faults:
        faults = [
            f"{key}: id {entry.get('id')!r}, expected a whole number"
            for key in ("images", "categories")
            for entry in document[key]
            if type(entry.get("id")) is not int
        ]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:MAX_FAULTS_SHOWN])
        more = len(faults) - MAX_FAULTS_SHOWN
        raise InputError(
            f"{path}: {len(faults)} faults:{shown}" + (f"\n  ... and {more} more" if more > 0 else "")
        )
    classes = {category["id"]: category["name"] for category in document["categories"]}
    part = part_of(path.stem) or part_of(path.parent.name)
    by_id = {
        image["id"]: ImportedImage(
            image["file_name"], path, size=(image["height"], image["width"]), part=part
        )
        for image in document["images"]
    }
    for annotation in document["annotations"]:
        # Those of a box have not been seen by the validator.
        ids = [annotation.get("image_id"), annotation.get("category_id")]
        image = by_id.get(ids[0]) if type(ids[0]) is int else None
        name = classes.get(ids[1]) if type(ids[1]) is int else None
        if image is None or name is None:
            raise InputError(
                f"{path}: annotation {annotation['id']} of image {ids[0]!r} and category {ids[1]!r}, expected such as "
                "are listed"
            )
        cell = ImportedCell(name, ignored=bool(annotation.get("iscrowd")))
        if annotation["segmentation"]:
            cell.segmentation = annotation["segmentation"]
        else:
            x, y, width, height = annotation["bbox"]
            cell.box = (x, y, x + width, y + height)
        image.cells.append(cell)
    return list(by_id.values())
