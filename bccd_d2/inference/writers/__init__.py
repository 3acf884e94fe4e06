"""The cells of an image in the formats of the tools that people count, check and publish with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers.coco import write_coco
from bccd_d2.inference.writers.images import write_label_image, write_label_picture, write_overlay
from bccd_d2.inference.writers.outlines import write_geojson, write_rois
from bccd_d2.inference.writers.tables import write_cells, write_label_classes

Writer = Callable[[ImageResult, Path], None]

# Of each format its files: folder, what is added to the image's name, and who writes it.
FORMATS: dict[str, tuple[tuple[str, str, Writer], ...]] = {
    "coco": (("coco", ".json", write_coco),),
    "labels": (
        ("labels", ".tif", write_label_image),
        ("labels", ".png", write_label_picture),
        ("labels", ".csv", write_label_classes),
    ),
    "geojson": (("geojson", ".geojson", write_geojson),),
    "roi": (("roi", ".zip", write_rois),),
    "csv": (("csv", ".csv", write_cells),),
    "overlay": (("overlays", ".png", write_overlay),),
}
DEFAULT_FORMATS = ("coco", "overlay", "csv")


def parse_formats(text: str) -> tuple[str, ...]:
    """Formats of a comma-separated list, each once, in the order of :data:`FORMATS`; an InputError for unknown ones or
    none.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in given if name not in FORMATS]
    if unknown or not given:
        raise InputError(f"formats: expected some of {','.join(FORMATS)}, found {text!r}")
    return tuple(name for name in FORMATS if name in given)


def format_files(name: str, formats: Iterable[str]) -> list[str]:
    """Paths below the output folder of the files of one image, in the order they are written."""
    return [f"{folder}/{name}{suffix}" for key in formats for folder, suffix, _ in FORMATS[key]]


def write_formats(result: ImageResult, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write one image's results below ``folder``, each file whole or not at all; the paths, as :func:`format_files`
    names them.
    """
    written = []
    for key in formats:
        for subfolder, suffix, write in FORMATS[key]:
            path = folder / subfolder / f"{result.name}{suffix}"
            with replacing(path) as temporary:
                write(result, temporary)
            written.append(path)
    return written
