"""External predictions: COCO files of any tool, label images, outlines, and all that tools/predict.py writes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from bccd_d2.conversion.importers.masks import read_label_table
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.joining import ImageIds
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_json
from bccd_d2.structures.names import match_images
from bccd_d2.structures.outline_files import GEOJSON_SUFFIXES, IMAGEJ_SUFFIXES, read_outlines

LABEL_SUFFIXES = ("_cp_masks", "_masks", ".stardist", "_instanseg_prediction", "_labels", "_label", "")
"""What Cellpose, StarDist, InstanSeg and others add to an image's stem; the bare stem comes last, because some tools
write beside the images."""
LABEL_FILES = frozenset({".png", ".tif", ".tiff", ".npy"})
OUR_PREDICTIONS = "predictions.json"
"""What tools/predict.py writes for all images together."""
SEMANTIC_PARTS = 3
"""A label image with a single label in this many separate parts is a mask of cell or not, not of instances."""
_OUTLINE_FILES = frozenset({*GEOJSON_SUFFIXES, *IMAGEJ_SUFFIXES})
_logger = logging.getLogger(__name__)
_Results = list[dict[str, Any]]


def read_predictions(
    path: Path,
    truth: EvaluationSet,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
    *,
    image_ids: ImageIds | None = None,
    class_agnostic: bool = False,
) -> EvaluationSet:
    """The truth with the predictions of a file or folder.

    Files are joined to images by path, file name or stem, classes by name; see
    :meth:`bccd_d2.evaluation.dataset.EvaluationSet.with_results`. What holds no score counts with score 1. ``path`` is
    a COCO results list or COCO document; or a folder of COCO documents, of label images, of GeoJSON or of ImageJ
    regions, at every depth; or the output folder of tools/predict.py. Of ``label_suffixes``, what may stand after an
    image's stem in the name of its label image, the first that any image has is taken for all. Raises InputError where
    the predictions cannot be read, or do not belong to the truth.
    """
    if class_agnostic:
        truth = truth.without_classes()
    if path.is_file():
        results = _read_coco(path)
    elif path.is_dir():
        results = _read_folder(path, truth, label_suffixes)
    else:
        raise InputError(f"{path}: no such file or folder, expected COCO JSON, label images or outlines")
    found = truth.with_results(results, str(path), image_ids=image_ids, class_agnostic=class_agnostic)
    empty = sum(len(image.predictions) == 0 for image in found.images)
    if empty:
        _logger.warning("%s: nothing on %d of %d images", path, empty, len(found.images))
    return found


def _read_folder(folder: Path, truth: EvaluationSet, label_suffixes: Sequence[str]) -> _Results:
    if (folder / OUR_PREDICTIONS).is_file():
        return _read_coco(folder / OUR_PREDICTIONS)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".", "__MACOSX"))
    ]
    outlines, labels, documents = (
        [path for path in files if path.suffix.lower() in suffixes]
        for suffixes in (_OUTLINE_FILES, LABEL_FILES, {".json"})
    )
    if outlines:
        return _read_outline_files(folder, outlines, truth)
    if labels:
        return _read_label_images(folder, labels, truth, label_suffixes)
    if documents:
        return [result for document in documents for result in _read_coco(document)]
    raise InputError(
        f"{folder}: {len(files)} files, none of which holds predictions; expected label images "
        f"({', '.join(sorted(LABEL_FILES))}), outlines ({', '.join(sorted(_OUTLINE_FILES))}) or COCO JSON"
    )


def _read_coco(path: Path) -> Any:
    """Entries of a results list, or those of a document with the names of their images and classes."""
    content = read_json(path)
    if not isinstance(content, Mapping):
        return content
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: no list {key!r}, expected a list of COCO results or a COCO document")
    try:
        images = {image["id"]: image["file_name"] for image in content["images"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
        results = [
            {
                "score": 1.0,
                **annotation,
                "file_name": images[annotation["image_id"]],
                "category": categories[annotation["category_id"]],
            }
            for annotation in content["annotations"]
            if not annotation.get("iscrowd")
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a sound COCO document ({error!r})") from error
    for name in (*images.values(), *categories.values()):
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} for the name of an image or category")
    regions = len(content["annotations"]) - len(results)
    if regions:
        _logger.warning("%s: %d regions (iscrowd) are no cells and left out", path, regions)
    return results


def _read_outline_files(folder: Path, paths: Iterable[Path], truth: EvaluationSet) -> _Results:
    results: _Results = []
    for path, image in _of_images(folder, paths, truth).items():
        outlines = read_outlines(path)
        height, width = image.truth.height, image.truth.width
        drawn = [outline.mask(height, width) for outline in outlines]
        cells = Cells.from_masks(
            height,
            width,
            [mask for mask, _ in drawn],
            origins=[origin for _, origin in drawn],
            scores=[1.0 if outline.score is None else outline.score for outline in outlines],
        )
        results += _entries(cells, image, [outline.class_name for outline in outlines], truth, path)
    return results


def _read_label_images(
    folder: Path, paths: Sequence[Path], truth: EvaluationSet, suffixes: Sequence[str]
) -> _Results:
    for suffix in suffixes:
        named = [path for path in paths if path.stem.endswith(suffix)]
        number = Counter(path.with_suffix("") for path in named)
        # Without the coloured pictures that lie beside a label image of the same name.
        named = [path for path in named if number[path.with_suffix("")] == 1 or not _is_coloured(path)]
        found = _of_images(folder, named, truth, suffix)
        if found:
            break
    else:
        example = Path(truth.images[0].file_name).stem if truth.images else "NAME"
        listed = ", ".join(suffix or "no suffix" for suffix in suffixes)
        raise InputError(
            f"{folder}: {len(paths)} label images (PNG, TIFF, NPY), none of which belongs to an image of the ground "
            f"truth; expected names such as {example}{suffixes[0]}.png ({listed}); --label-suffix names others"
        )
    with_labels = {image.image_id for image in found.values()}
    absent = [Path(i.file_name).stem for i in truth.images if i.image_id not in with_labels]
    if absent:
        raise InputError(
            f"{folder}: no label image of {len(absent)} of {len(truth.images)} images, expected "
            f"{absent[0]}{suffix}.png (or .tif)"
        )
    results: _Results = []
    for path, image in found.items():
        values = read_mask(path, MaskRule("instances"))
        cells = Cells.from_label_image(values)
        if len(cells) == 1 and (parts := ndimage.label(values > 0)[1]) >= SEMANTIC_PARTS:
            raise InputError(
                f"{path}: one label in {parts} separate parts, expected one label per cell; this looks like a mask of "
                "cell or not, which tools/convert_bccd.py turns into instances"
            )
        size = image.truth.height, image.truth.width
        if (cells.height, cells.width) != size:
            raise InputError(
                f"{path}: {cells.height} x {cells.width} pixels, but the image {image.file_name} has "
                f"{size[0]} x {size[1]}"
            )
        rows = read_label_table(path)
        if rows is None:
            results += _entries(cells, image, [None] * len(cells), truth, path)
            continue
        labels = np.unique(values[values > 0]).tolist()
        found_rows = [rows[label] for label in labels if label in rows]
        if len(found_rows) < len(labels):
            raise InputError(
                f"{path.with_suffix('.csv')}: {len(found_rows)} rows for {len(labels)} labels of {path}"
            )
        cells = replace(cells, scores=np.array([score for _, score in found_rows]))
        results += _entries(cells, image, [name for name, _ in found_rows], truth, path)
    return results


def _of_images(
    folder: Path, paths: Iterable[Path], truth: EvaluationSet, suffix: str = ""
) -> dict[Path, EvaluationImage]:
    """The image of each file ``STEM<suffix>.ext`` that has one; how many have none is logged."""
    images = {image.file_name: image for image in truth.images}
    files: dict[str, Path] = {}
    for path in paths:
        name = (path.relative_to(folder).parent / path.stem.removesuffix(suffix)).as_posix()
        if name in files:
            raise InputError(f"{files[name]} and {path}: two files of one image")
        files[name] = path
    matched = match_images(files, images, where=str(folder), required=False)
    if matched and len(matched) < len(files):
        absent = len(files) - len(matched)
        _logger.warning(
            "%s: %d of %d files belong to no image of the ground truth", folder, absent, len(files)
        )
    return {files[name]: images[image] for name, image in matched.items()}


def _entries(
    cells: Cells, image: EvaluationImage, class_names: Sequence[str | None], truth: EvaluationSet, path: Path
) -> _Results:
    if len(truth.class_names) == 1:
        class_names = [name or truth.class_names[0] for name in class_names]
    if None in class_names:
        raise InputError(
            f"{path}: cells without a class, but the ground truth has {len(truth.class_names)} "
            f"({', '.join(truth.class_names)}): leave classes aside with --class-agnostic"
        )
    return [
        {"file_name": image.file_name, "category": name, "score": score, "segmentation": rle}
        for name, score, rle in zip(class_names, cells.scores.tolist(), cells.rles())
    ]


def _is_coloured(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, UnidentifiedImageError):  # a depth or format that Pillow does not know
        return False
