"""QuPath's GeoJSON and ImageJ's regions (.roi, or zips of them), one file per image."""

from __future__ import annotations

import re
from pathlib import Path

from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedCell, ImportedImage, part_of
from bccd_d2.structures.outline_files import read_outlines

_ROI_SET = re.compile(r"[-_ ]?(roi[-_ ]?set|rois?|annotations?|detections?|cells)$", re.IGNORECASE)
"""What people and programs put behind the image's name."""


def read_outline_files(files: list[Path], images: ImageFiles) -> Imported:
    """Read all files, each named after its image, or for single .roi files their folder."""
    result = Imported()
    by_name: dict[str, ImportedImage] = {}
    for path in files:
        name = _image_name(path, images)
        image = by_name.setdefault(name, ImportedImage(name, path, part=part_of(path.parent.name)))
        image.cells += [ImportedCell(outline.class_name, outline.rings) for outline in read_outlines(path)]
    result.images += by_name.values()
    return result


def _image_name(path: Path, images: ImageFiles) -> str:
    names = [path.stem, _ROI_SET.sub("", path.stem)]
    if path.suffix.lower() == ".roi":
        names += [path.parent.name, _ROI_SET.sub("", path.parent.name)]
    for name in filter(None, names):
        if images.match([name], str(path)):
            return name
    # A set of regions beside the only image there is.
    return next(iter(images.paths)) if len(images.paths) == 1 else path.stem
