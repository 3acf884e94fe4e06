"""Annotations of other tools: one module per family of formats, and which one a file is of."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.conversion.importers.boxes import read_bbbc041, read_voc
from bccd_d2.conversion.importers.coco import read_coco_file
from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedImage
from bccd_d2.conversion.importers.cvat import read_cvat_file
from bccd_d2.conversion.importers.label_studio import read_label_studio_file
from bccd_d2.conversion.importers.labelme import read_labelme_file
from bccd_d2.conversion.importers.masks import (
    SEG_SUFFIX,
    read_cellpose_file,
    read_label_file,
    read_mask_folders,
)
from bccd_d2.conversion.importers.outlines import read_outline_files
from bccd_d2.conversion.importers.via import CSV_COLUMNS, PROJECT_3, read_via_file
from bccd_d2.conversion.importers.yolo import is_yolo, read_yolo_files, yolo_label_file
from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.io.find_images import SUFFIXES, files_below
from bccd_d2.structures.names import class_key, stem_of

logger = logging.getLogger(__name__)
HEAD = 4096
ANNOTATION_FOLDERS = ("annotations", "labels")
"""Folders of annotations whose images lie beside them, not in them."""


@dataclass(frozen=True)
class Importer:
    """Reads the files of one format."""

    description: str  # for ``--help``
    suffixes: tuple[str, ...]  # of its files, in lower case
    read: Callable[
        [list[Path], ImageFiles, Imported], None
    ]  # adds what files hold, given all images there are


def _one_by_one(
    description: str,
    suffixes: tuple[str, ...],
    read: Callable[[Path, ImageFiles, Imported], Iterable[ImportedImage]],
) -> Importer:
    """An importer from a reader of one file, which may add to the classes and counts of the result."""

    def read_all(files: list[Path], images: ImageFiles, result: Imported) -> None:
        for path in files:
            with result.reading(path, description):
                result.images += list(read(path, images, result))

    return Importer(description, suffixes, read_all)


FORMATS: dict[str, Importer] = {
    "coco": _one_by_one("COCO instance JSON of any tool", (".json",), read_coco_file),
    "yolo": Importer("YOLO boxes and segments", (".txt",), read_yolo_files),
    "voc": _one_by_one("Pascal VOC's XML, boxes", (".xml",), lambda path, _, __: [read_voc(path)]),
    "bbbc041": _one_by_one("BBBC041's JSON, boxes", (".json",), lambda path, _, __: read_bbbc041(path)),
    "cvat": _one_by_one("CVAT for images 1.1 (XML)", (".xml",), read_cvat_file),
    "labelme": _one_by_one("LabelMe's JSON", (".json",), read_labelme_file),
    "label-studio": _one_by_one("Label Studio's JSON or JSON-MIN", (".json",), read_label_studio_file),
    "via": _one_by_one("JSON, project or CSV of VIA 2, project of VIA 3", (".json", ".csv"), read_via_file),
    "geojson": Importer("QuPath's GeoJSON", (".geojson", ".json"), read_outline_files),
    "imagej": Importer("ImageJ's .roi files or zips of them", (".roi", ".zip"), read_outline_files),
    "mask-folders": Importer(
        "a folder per image with one mask per cell", tuple(sorted(SUFFIXES)), read_mask_folders
    ),
    "cellpose": _one_by_one("Cellpose's _seg.npy", (".npy",), read_cellpose_file),
    "labels": _one_by_one("label images of tools/predict.py", (".tif", ".tiff"), read_label_file),
}


def read_annotations(
    path: Path,
    kind: str | None = None,
    images: Path | ImageFiles | None = None,
    faults: list[str] | None = None,
) -> tuple[str, ImageFiles, Imported]:
    """Read a file of annotations, or a folder that is searched at every depth; returns the format, the images and
    what was read.

    ``kind`` is one of :data:`FORMATS`, recognised where not given. ``images`` are the images, or their folder, searched
    at every depth; where not given, the folder of the annotations, or the one above a folder of
    :data:`ANNOTATION_FOLDERS`. Raises InputError where no format or several are recognised, or a file cannot be used;
    with ``faults`` such files are described there and left out.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    kind = kind or recognise(path)
    files = _files_of(path, kind)
    if not files:
        raise InputError(f"{path}: no files of the format {kind} ({FORMATS[kind].description})")
    found = images if isinstance(images, ImageFiles) else ImageFiles(_image_folder(path, images))
    imported = Imported(faults=faults)
    FORMATS[kind].read(files, found, imported)
    for image in imported.images:
        if not isinstance(image.name, str) or not image.name:
            raise InputError(f"{image.source}: image {str(image.name)[:40]!r}, expected a file name")
        image.name = found.beside(image.source.parent, image.name)
        for cell in image.cells:
            cell.class_name = class_key(cell.class_name or "") or None
        for class_name in {cell.class_name or "" for cell in image.cells}:
            try:
                class_name.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{image.source}: class {class_name!r}, expected text in UTF-8") from error
    imported.classes = list(dict.fromkeys(map(class_key, imported.classes)))
    return kind, found, imported


def _image_folder(path: Path, given: Path | None) -> Path:
    folder = given or (path if path.is_dir() else path.parent)
    if given is None and folder.name.lower() in ANNOTATION_FOLDERS:
        folder = folder.resolve().parent
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected the images")
    return folder


def recognise(path: Path) -> str:
    """Format of a file or folder; raises InputError where none or several are recognised."""
    if path.is_file():
        kind = kind_of(path)
        if kind is None:
            if path.suffix.lower() == ".json":
                read_json(path)  # says where a file that is cut short or edited by hand is no JSON
            raise InputError(f"{path}: annotations of no known format; {_known()}")
        return kind
    if mask_folders(path):
        return "mask-folders"
    kinds = Counter(kind for file in _candidates(path) if (kind := kind_of(file)) is not None)
    if len(kinds) != 1:
        found = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        raise InputError(f"{path}: annotations of {found or 'no known format'}; {_known()}")
    return next(iter(kinds))


def _known() -> str:
    return f"give --from with one of {', '.join(FORMATS)}" + " (or --spec for masks)"


def _candidates(folder: Path) -> list[Path]:
    suffixes = {suffix for importer in FORMATS.values() for suffix in importer.suffixes} - SUFFIXES
    return files_below(folder, suffixes)


def _files_of(path: Path, kind: str) -> list[Path]:
    suffixes = FORMATS[kind].suffixes
    if path.is_file():
        return [path]
    if kind == "mask-folders":
        return mask_folders(path)
    of_suffix = files_below(path, suffixes)
    if kind in ("labels", "voc"):  # whatever they hold, so that broken ones are named
        return of_suffix
    files = [file for file in of_suffix if kind_of(file) == kind]
    if kind == "yolo":  # files of an image are taken even if they are broken, to be named
        labels = {yolo_label_file(image) for image in ImageFiles(path).paths.values()}
        files = [file for file in of_suffix if file in labels or file in set(files)]
    if left := len(of_suffix) - len(files):
        logger.info("%s: %d files of other contents than %s passed over", path, left, kind)
    return files


def kind_of(path: Path) -> str | None:
    """Format of one file by its suffix and, where several share it, by its content."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        try:
            return kind_of_json(read_json(path))
        except (InputError, OSError):
            return None
    if suffix == ".csv":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "via" if CSV_COLUMNS[0] in file.readline() else None
    if suffix == ".xml":
        with path.open("rb") as binary:
            head = binary.read(HEAD).replace(b"\0", b"")
        return "cvat" if b"<annotations" in head else "voc" if b"<annotation" in head else None
    if suffix == ".npy":
        return "cellpose" if path.name.endswith(SEG_SUFFIX) else None
    if suffix == ".txt":
        return "yolo" if is_yolo(path) else None
    return {".geojson": "geojson", ".roi": "imagej", ".zip": "imagej"}.get(suffix)


def kind_of_json(content: Any) -> str | None:
    """Format of the content of a JSON file, ``None`` where it is not known."""
    if isinstance(content, list):
        first = content[0] if content else None
        if not isinstance(first, dict):
            return None
        if first.get("type") == "Feature":
            return "geojson"
        if "objects" in first and isinstance(first.get("image"), dict):
            return "bbbc041"
        if "segmentation" in first and "file_name" in first:
            return "coco"
        return "label-studio" if "data" in first or "annotation_id" in first else None
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("images"), list) and "annotations" in content:
        return "coco"
    if "shapes" in content and "imagePath" in content:
        return "labelme"
    if content.get("type") in ("FeatureCollection", "Feature"):
        return "geojson"
    if "_via_img_metadata" in content or content.keys() >= PROJECT_3:
        return "via"
    first = next(iter(content.values()), None)
    return "via" if isinstance(first, dict) and "regions" in first and "filename" in first else None


def mask_folders(root: Path) -> list[Path]:
    """Masks of folders ``ID/images`` and ``ID/masks``, whose masks are not named after the image."""
    found: list[Path] = []
    for folder in sorted(path for path in root.rglob("masks") if (path.parent / "images").is_dir()):
        masks, shown = (files_below(place, SUFFIXES) for place in (folder, folder.parent / "images"))
        # One mask beside one image is that of a cell only where the folder has the image's name.
        if len(shown) == 1 and masks and {stem_of(p.name) for p in masks} != {stem_of(shown[0].name)}:
            found += masks if len(masks) > 1 or shown[0].stem == folder.parent.name else []
    return found
