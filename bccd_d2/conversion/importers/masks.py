"""Masks of single cells (the folders of the 2018 Data Science Bowl), label images and Cellpose's ``_seg.npy``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from scipy import ndimage

from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedImage, label_cells, reading
from bccd_d2.errors import InputError
from bccd_d2.files import ArrayUnpickler, read_lines
from bccd_d2.io.levels import warn_once
from bccd_d2.io.masks import MaskRule, read_mask

SEG_SUFFIX = "_seg.npy"
SEMANTIC_PARTS = 3
"""A label image with a single label in this many separate parts is a mask of cell or not, not of instances."""


def read_mask_folders(files: list[Path], images: ImageFiles, result: Imported) -> None:
    """Read masks of data sets of one folder per image, ``ID/images/ID.png`` with one mask per cell in
    ``ID/masks/``. Raises InputError where a folder does not hold one image, or a mask cannot be read.
    """
    for folder in sorted({path.parent.parent for path in files}):
        found = [name for name, path in images.paths.items() if path.parent == folder / "images"]
        if len(found) != 1:
            raise InputError(f"{folder / 'images'}: {len(found)} images, expected one")
        image = ImportedImage(found[0], folder)
        for path in files:
            if path.parent.parent != folder:
                continue
            mask = read_mask(path, MaskRule("binary", threshold=127)) != 0
            if not mask.any():  # 0 and 1
                mask = read_mask(path) != 0
            image.size = mask.shape[0], mask.shape[1]
            image.cells += label_cells(mask.astype(np.int32))
        result.images.append(image)


def read_label_file(path: Path, images: ImageFiles, result: Imported) -> list[ImportedImage]:
    """Read a label image as ``tools/predict.py`` writes it: NAME.tif, and NAME.csv with class and score of each label.
    Raises InputError where a label has no row, or a mask without a table is one of cell or not.
    """
    labels = read_mask(path, MaskRule("instances"))
    image = ImportedImage(path.stem, path, label_cells(labels), (labels.shape[0], labels.shape[1]))
    rows = _read_label_table(path)
    if rows is not None:
        for cell, value in zip(image.cells, np.unique(labels[labels > 0]).tolist()):
            if value not in rows:
                raise InputError(
                    f"{path.with_suffix('.csv')}: no label {value}, expected a row for each cell"
                )
            cell.class_name, cell.score = rows[value]
    elif len(image.cells) == 1 and (parts := ndimage.label(labels > 0)[1]) >= SEMANTIC_PARTS:
        raise InputError(
            f"{path}: one label in {parts} separate parts, expected one label per cell; this looks like a mask of "
            "cell or not, which tools/convert_bccd.py turns into instances"
        )
    return [image]


def _read_label_table(path: Path) -> dict[int, tuple[str, float]] | None:
    """Class and score by label, of the table beside a label image; ``None`` where there is none. Raises InputError for
    a row that cannot be read.
    """
    table = path.with_suffix(".csv")
    if not table.is_file():
        return None
    with reading(table, "a table of labels with the columns id and class"):
        rows = csv.DictReader(read_lines(table, "a table of labels"))
        if not {"id", "class"} <= set(rows.fieldnames or ()):
            warn_once(table, "no columns id and class, so that it is taken for something else")
            return None
        return {int(row["id"]): (str(row["class"]), float(row.get("score") or 1)) for row in rows}


def read_cellpose_file(path: Path, images: ImageFiles, result: Imported) -> list[ImportedImage]:
    """Read the label map of a ``NAME_seg.npy``. Raises InputError for one that holds more than arrays."""
    masks = np.squeeze(np.asarray(read_seg(path)["masks"]))
    if masks.ndim != 2 or masks.dtype.kind not in "iu":
        raise InputError(
            f"masks of shape {masks.shape} and type {masks.dtype}, expected a label map (height, width)"
        )
    size = (masks.shape[0], masks.shape[1])
    return [ImportedImage(path.name.removesuffix(SEG_SUFFIX), path, label_cells(masks), size)]


def read_seg(path: Path) -> dict[str, Any]:
    """The dictionary of a ``_seg.npy``, which is a pickle, read without running what stands in it. Raises
    InputError where it is none, or holds more than arrays, numbers and text.
    """
    content = path.read_bytes()
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        lib = np.lib.format
        read_header = lib.read_array_header_1_0 if version == (1, 0) else lib.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if shape != () or not dtype.hasobject:
            raise InputError(f"{path}: an array of {shape} {dtype}, expected Cellpose's dictionary")
        found = ArrayUnpickler(stream).load()
        found = found.item() if isinstance(found, np.ndarray) else found
    except InputError:
        raise
    except Exception as error:  # whatever a broken pickle makes numpy do
        if isinstance(error, UnpicklingError) and str(error).startswith("GLOBAL "):
            raise InputError(
                f"{path}: holds {str(error)[7:]}, which is not read from a pickle; expected arrays only. Save the "
                "masks as PNG or TIFF in Cellpose (File menu) and convert these with --spec label_maps"
            ) from error
        raise InputError(f"{path}: not Cellpose's _seg.npy ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: {type(found).__name__}, expected Cellpose's dictionary")
    return found
