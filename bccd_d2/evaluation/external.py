"""Predictions that are not ours: COCO results of any tool, and folders of instance label images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationSet
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_json

LABEL_SUFFIXES = ("_cp_masks", "_masks", ".stardist", "_instanseg_prediction", "_labels", "_label", "")
"""What Cellpose, StarDist, InstanSeg and others add to an image's stem; the bare stem comes last, because some tools
write beside the images."""
LABEL_FILES = frozenset({".png", ".tif", ".tiff", ".npy"})
SEMANTIC_PARTS = 3
"""A label image with a single label in this many separate parts is a mask of cell or not, not of instances."""


def read_predictions(
    path: Path, truth: EvaluationSet, label_suffixes: Sequence[str] = LABEL_SUFFIXES
) -> EvaluationSet:
    """The truth with the predictions of a COCO JSON or of a folder of label images.

    Args:
        path: a JSON file, see :func:`read_coco_predictions`, or a folder, see :func:`read_label_images`.
        truth: what the predictions are of.
        label_suffixes: for a folder.

    Raises:
        InputError: the predictions cannot be read, or do not belong to the truth.
    """
    if path.is_dir():
        found = read_label_images(path, truth, label_suffixes)
    elif path.is_file():
        found = read_coco_predictions(path, truth)
    else:
        raise InputError(
            f"{path}: no such file or folder, expected a COCO results JSON or a folder of label images"
        )
    empty = sum(len(image.predictions) == 0 for image in found.images)
    if empty:
        logging.getLogger(__name__).warning("%s: nothing on %d of %d images", path, empty, len(found.images))
    return found


def read_coco_predictions(path: Path, truth: EvaluationSet) -> EvaluationSet:
    """The truth with the predictions of a COCO results list or of a whole COCO document.

    Entries of a list belong to images by ``image_id``, or by the stem of ``file_name`` where they have one, as those of
    ``tools/predict.py``. Images and categories of a document belong to those of the truth by stem and by name, whatever
    their ids; annotations without ``score`` count with 1.

    Raises:
        InputError: see :meth:`EvaluationSet.with_results`; or the truth lacks an image or category that is named.
    """
    content = read_json(path)
    if isinstance(content, Mapping):
        content = _results_of_document(content, truth, path)
    elif (
        isinstance(content, list)
        and content
        and all(isinstance(e, Mapping) and "file_name" in e for e in content)
    ):
        ids = _ids_by_stem(truth)
        content = [{**entry, "image_id": _find(ids, entry["file_name"], "image", path)} for entry in content]
    return truth.with_results(content, str(path))


def read_label_images(
    folder: Path, truth: EvaluationSet, suffixes: Sequence[str] = LABEL_SUFFIXES
) -> EvaluationSet:
    """The truth with the cells of label images: one integer a cell, 0 for the background, in the image's size.

    PNG, TIFF or ``.npy`` of any depth, at every depth of the folder, matched to images by stem and suffix. Label images
    hold neither scores nor classes: all cells count with score 1.

    Args:
        folder: with the label images.
        truth: what they are of; of one class, see :func:`without_classes`.
        suffixes: what may stand after an image's stem; the first that any image has is taken for all.

    Raises:
        InputError: the truth has several classes, an image has no label image or two, or one cannot be read, is no
            label image or of another size.
    """
    if len(truth.class_names) > 1:
        raise InputError(
            f"{folder}: label images hold no classes, but the ground truth has {len(truth.class_names)} "
            f"({', '.join(truth.class_names)}): leave them aside with --class-agnostic"
        )
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in LABEL_FILES and path.is_file():
            files.setdefault(path.stem, []).append(path)
    ids = _ids_by_stem(truth)
    suffix = next((s for s in suffixes if any(stem + s in files for stem in ids)), None)
    example = next(iter(ids), "")
    if suffix is None:
        raise InputError(
            f"{folder}: {sum(map(len, files.values()))} label images (PNG, TIFF, NPY), none of which belongs to an "
            f"image of the ground truth; expected names such as {example}{suffixes[0]}.png ({_listed(suffixes)})"
        )
    absent = [stem for stem in ids if stem + suffix not in files]
    if absent:
        raise InputError(
            f"{folder}: no label image of {len(absent)} of {len(ids)} images, expected {absent[0]}{suffix}.png "
            "(or .tif)"
        )
    for stem in ids:
        if len(files[stem + suffix]) > 1:
            raise InputError(
                f"{' and '.join(map(str, files[stem + suffix][:2]))}: two label images of one image"
            )
    return truth.with_predictions({ids[stem]: _read_labels(files[stem + suffix][0]) for stem in ids})


def without_classes(evaluation_set: EvaluationSet, name: str = "cell") -> EvaluationSet:
    """The same cells, all of one class, to compare outlines alone."""

    def declassed(cells: Cells) -> Cells:
        return replace(cells, classes=np.zeros(len(cells), np.int64))

    return EvaluationSet(
        [
            replace(
                image,
                truth=declassed(image.truth),
                ignore=declassed(image.ignore),
                predictions=declassed(image.predictions),
            )
            for image in evaluation_set.images
        ],
        [name],
        [1],
    )


def _read_labels(path: Path) -> Cells:
    labels = read_mask(path, MaskRule("instances")).array
    cells = Cells.from_label_image(labels)
    if len(cells) == 1:
        parts = ndimage.label(labels > 0)[1]
        if parts >= SEMANTIC_PARTS:
            raise InputError(
                f"{path}: one label in {parts} separate parts, expected a label a cell; this looks like a mask of cell "
                "or not, which tools/convert_bccd.py turns into instances"
            )
    return cells


def _results_of_document(
    document: Mapping[str, Any], truth: EvaluationSet, path: Path
) -> list[dict[str, Any]]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise InputError(f"{path}: no list {key!r}, expected a list of COCO results or a COCO document")
    ids = _ids_by_stem(truth)
    category_ids = dict(zip(truth.class_names, truth.category_ids))
    try:
        images = {image["id"]: _find(ids, image["file_name"], "image", path) for image in document["images"]}
        categories = {c["id"]: c["name"] for c in document["categories"]}
        return [
            {
                "score": 1.0,
                **annotation,
                "image_id": images[annotation["image_id"]],
                "category_id": _find(category_ids, categories[annotation["category_id"]], "category", path),
            }
            for annotation in document["annotations"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a sound COCO document ({error!r})") from error


def _ids_by_stem(truth: EvaluationSet) -> dict[str, int]:
    ids: dict[str, int] = {}
    for image in truth.images:
        stem = Path(image.file_name).stem
        if stem in ids:
            raise InputError(f"two images of the ground truth have the stem {stem}, expected different ones")
        ids[stem] = image.image_id
    return ids


def _find(ids: Mapping[str, int], name: str, what: str, path: Path) -> int:
    if not isinstance(name, str):
        raise InputError(f"{path}: {what} {name!r}, expected a name")
    key = Path(name).stem if what == "image" else name
    if key not in ids:
        raise InputError(
            f"{path}: {what} {name!r}, which the ground truth does not hold (it holds {_listed(list(ids))})"
        )
    return ids[key]


def _listed(names: Sequence[str], most: int = 7) -> str:
    shown = [name or "no suffix" for name in names[:most]]
    return ", ".join(shown) + (", ..." if len(names) > most else "")
