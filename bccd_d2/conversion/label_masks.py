"""COCO JSON to instance label images, the form in which Cellpose, StarDist and many others take their training data."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.files import staged_output
from bccd_d2.structures.cells import Cells

logger = logging.getLogger(__name__)
LABEL_FORMATS = ("png", "tif")
TABLE_FILE = "labels.csv"
MAX_16_BIT = 65535


def label_map(annotations: list[dict[str, Any]], height: int, width: int) -> tuple[NDArray[np.uint32], int]:
    """Draw instances as labels 1, 2, ... in the order given; regions with ``iscrowd`` get a number but no pixels.

    Where instances overlap, the smaller one is drawn above the larger. Returns uint32 (height, width), and how many
    pixels belong to more than one instance.
    """
    drawn = [(number, a) for number, a in enumerate(annotations, start=1) if not a["iscrowd"]]
    cells = Cells.from_rles(height, width, [annotation["segmentation"] for _, annotation in drawn])
    try:
        labels = cells.label_image(priority=np.array([-float(annotation["area"]) for _, annotation in drawn]))
    except (MemoryError, ValueError) as error:
        raise InputError(f"{width}x{height} pixels do not fit into memory ({error})") from error
    numbers = np.array([0, *(number for number, _ in drawn)], np.uint32)
    return numbers[labels], int(cells.areas.sum()) - int(np.count_nonzero(labels))


def write_label_masks(
    document: Mapping[str, Any], out: Path, kind: Literal["png", "tif"] = "png", *, overwrite: bool = False
) -> int:
    """Write one label image for each image of a sound COCO document, and a table of what the labels are; returns how
    many.

    The images are 16-bit (a TIFF with more than 65535 instances 32-bit), named by the stem of ``file_name``; where two
    images have the same stem, by the whole path with ``_`` for ``/``. ``labels.csv`` gives for each label the
    annotation's id, category, area and whether it is a region to ignore, which is not drawn. Raises InputError if a
    file exists or a PNG would need more than 65535 labels.
    """
    names = _names([image["file_name"] for image in document["images"]], kind)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    categories = {category["id"]: category["name"] for category in document["categories"]}
    overlaps = 0
    with (
        staged_output(out, [*names.values(), TABLE_FILE], overwrite=overwrite) as staging,
        (staging / TABLE_FILE).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["file", "label", "annotation_id", "category", "area", "ignored"])
        for image in tqdm(document["images"], "label masks", unit="image", disable=None):
            annotations = by_image[image["id"]]
            labels, overlapping = label_map(annotations, image["height"], image["width"])
            overlaps += overlapping
            name = names[image["file_name"]]
            _write_labels(staging / name, labels)
            for number, a in enumerate(annotations, start=1):
                table.writerow([name, number, a["id"], categories[a["category_id"]], a["area"], a["iscrowd"]])
    if overlaps:
        logger.warning("%d pixels belong to more than one instance; the smaller instance has them", overlaps)
    return len(names)


def _write_labels(path: Path, labels: NDArray[np.uint32]) -> None:
    small = labels.max(initial=0) <= MAX_16_BIT
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels.astype(np.uint16) if small else labels, compression="zlib")
    elif small:
        Image.fromarray(labels.astype(np.uint16)).save(path)
    else:
        raise InputError(
            f"{path.name}: {labels.max()} labels, expected at most {MAX_16_BIT} in a PNG; write TIFF"
        )


def _names(file_names: list[str], kind: str) -> dict[str, str]:
    paths = {name: Path(name) for name in file_names}
    stems = Counter(path.stem for path in paths.values())
    for name in file_names:
        try:
            usable = b"\0" not in name.encode()
        except UnicodeEncodeError:
            usable = False
        if not usable:
            raise InputError(f"file_name {name!r}: expected a name that a file can have")
    whole = {name: path.with_suffix("").as_posix().replace("/", "_") for name, path in paths.items()}
    return {
        name: f"{path.stem if stems[path.stem] == 1 else whole[name]}.{kind}" for name, path in paths.items()
    }
