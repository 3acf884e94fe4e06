"""Ground truth and predictions of any tool: COCO, label images, and what :mod:`bccd_d2.conversion.importers` reads."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from bccd_d2.conversion.importers import FORMATS, kind_of, kind_of_json, read_annotations
from bccd_d2.conversion.importers.common import ImageFiles, Imported, ImportedImage, outlined
from bccd_d2.conversion.importers.masks import SEG_SUFFIX, read_label_file
from bccd_d2.conversion.importers.outlines import IMAGEJ_SUFFIXES, read_outline_files
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.joining import ImageIds
from bccd_d2.files import read_json
from bccd_d2.io.find_images import files_below
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.names import match_images

LABEL_SUFFIXES = ("_cp_masks", "_masks", ".stardist", "_instanseg_prediction", "_labels", "_label", "")
"""What Cellpose, StarDist, InstanSeg and others add to an image's stem; the bare stem comes last, because some tools
write beside the images."""
OUR_PREDICTIONS = "predictions.json"
"""What tools/predict.py writes for all images together."""
_LABEL_FILES = frozenset({".png", ".tif", ".tiff", ".npy"})
_OUTLINE_FILES = frozenset({".geojson", *IMAGEJ_SUFFIXES})
_logger = logging.getLogger(__name__)
_Results = list[dict[str, Any]]


def read_truth(path: Path, image_root: Path | None = None) -> EvaluationSet:
    """Ground truth: COCO instance JSON, see :func:`bccd_d2.evaluation.dataset.read_evaluation_set`, or a file or folder
    of annotations in another of :data:`bccd_d2.conversion.importers.FORMATS`, with their images in ``image_root`` or
    beside them. Raises InputError as those, or for a cell without an outline.
    """
    try:
        if not path.is_dir():
            return read_evaluation_set(path, image_root=image_root)
    except InputError:
        if not path.is_file() or kind_of(path) in (None, "coco"):
            raise
    _, files, imported = read_annotations(path, None, image_root)
    names, images = imported.class_names("cell"), []
    for number, (name, image) in enumerate(files.join(imported.images, str(path)).items(), start=1):
        cells = _cells_of(image, name, files.size(name))
        indices = [names.index(cell.class_name or "cell") for cell in image.cells]
        cells = replace(cells, classes=np.array(indices, np.int64), scores=np.ones(len(cells)))
        images.append(EvaluationImage(number, name, files.paths[name], cells, cells[:0], cells[:0]))
    if absent := len(imported.images) - len(images):
        raise InputError(f"{path}: {absent} images are not found; give their folder, --images")
    return EvaluationSet(images, names, list(range(1, len(names) + 1)))


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
    a COCO results list or COCO document; or a folder of COCO documents, of label images, or of files in one of
    :data:`bccd_d2.conversion.importers.FORMATS`, at every depth; or the output folder of tools/predict.py. Of
    ``label_suffixes``, what may stand after an image's stem in the name of its label image, the first that any image
    has is taken for all. Raises InputError where the predictions cannot be read, or do not belong to the truth.
    """
    if class_agnostic:
        truth = truth.without_classes()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder, expected COCO JSON, label images or outlines")
    ours = path / OUR_PREDICTIONS
    results = _read(ours if ours.is_file() else path, truth, label_suffixes)
    found = truth.with_results(results, str(path), image_ids=image_ids, class_agnostic=class_agnostic)
    empty = sum(len(image.predictions) == 0 for image in found.images)
    if empty:
        _logger.warning("%s: nothing on %d of %d images", path, empty, len(found.images))
    return found


def _read(path: Path, truth: EvaluationSet, label_suffixes: Sequence[str]) -> Any:
    folder = path if path.is_dir() else path.parent
    known = _LABEL_FILES.union(*(importer.suffixes for importer in FORMATS.values()))
    files = files_below(path, known) if path.is_dir() else [path]
    sizes = {image.file_name: (image.truth.height, image.truth.width) for image in truth.images}
    images, imported = ImageFiles(folder, sizes, sizes), Imported()
    outlines, labels = (
        [file for file in files if file.suffix.lower() in suffixes]
        for suffixes in (_OUTLINE_FILES, _LABEL_FILES)
    )
    if outlines:
        read_outline_files(outlines, images, imported)
        return _results_of(imported, images, truth, path)
    if "_seg" not in label_suffixes:
        labels = [file for file in labels if not file.name.endswith(SEG_SUFFIX)]
    if labels and {kind_of(file) for file in set(files).difference(labels)} - {None, "coco"}:
        # Images that lie beside their annotations.
        labels = [file for file in labels if file.stem.endswith(tuple(filter(None, label_suffixes)))]
    if labels:
        imported = _read_label_images(folder, labels, label_suffixes, images)
        return _results_of(imported, images, truth, path)
    documents = {file: read_json(file) for file in files if file.suffix.lower() == ".json"}
    kinds = {kind_of_json(documents[file]) if file in documents else kind_of(file) for file in files} - {None}
    if documents and (not kinds or "coco" in kinds):
        return [result for file, content in documents.items() for result in _coco_results(file, content)]
    if len(kinds) != 1:
        found = f"predictions of {', '.join(sorted(map(str, kinds)))}" if kinds else f"{len(files)} files"
        raise InputError(
            f"{path}: {found}, expected COCO JSON, label images ({', '.join(sorted(_LABEL_FILES))}), outlines "
            f"({', '.join(sorted(_OUTLINE_FILES))}) or files of one of the formats {', '.join(FORMATS)}"
        )
    _, _, imported = read_annotations(path, kinds.pop(), images)
    return _results_of(imported, images, truth, path)


def _coco_results(path: Path, content: Any) -> Any:
    """Entries of a results list, or those of a document with the names of their images and classes."""
    if isinstance(content, list):
        return content
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: {type(content).__name__} at the top, expected a list of COCO results")
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


def _read_label_images(
    folder: Path, paths: Sequence[Path], suffixes: Sequence[str], images: ImageFiles
) -> Imported:
    for suffix in suffixes:
        named = [path for path in paths if path.stem.endswith(suffix)]
        number = Counter(path.with_suffix("") for path in named)
        # Without the coloured pictures that lie beside a label image of the same name.
        named = [path for path in named if number[path.with_suffix("")] == 1 or not _is_coloured(path)]
        files: dict[str, Path] = {}
        for path in named:
            name = (path.relative_to(folder).parent / path.stem.removesuffix(suffix)).as_posix()
            if files.setdefault(name, path) != path:
                raise InputError(f"{files[name]} and {path}: two files of one image")
        found = match_images(files, images.paths, where=str(folder), required=False)
        if found:
            break
    else:
        example = next((Path(name).stem for name in images.paths), "NAME")
        listed = ", ".join(suffix or "no suffix" for suffix in suffixes)
        raise InputError(
            f"{folder}: {len(paths)} label images (PNG, TIFF, NPY), none of which belongs to an image of the ground "
            f"truth; expected names such as {example}{suffixes[0]}.png ({listed}); --label-suffix names others"
        )
    absent = [Path(name).stem for name in images.paths if name not in found.values()]
    if absent:
        raise InputError(
            f"{folder}: no label image of {len(absent)} of {len(images.paths)} images, expected "
            f"{absent[0]}{suffix}.png (or .tif)"
        )
    result = Imported([ImportedImage(name, path) for name, path in files.items() if name not in found])
    for name, file_name in found.items():
        (image,) = read_label_file(files[name], images, result)
        image.name = file_name
        result.images.append(image)
    return result


def _results_of(imported: Imported, images: ImageFiles, truth: EvaluationSet, path: Path) -> _Results:
    """COCO results, with the names of images and classes, of what was read of ``path``."""
    for what, count in sorted(imported.counts.items()):
        _logger.warning("%s: %d %s", path, count, what)
    joined = images.join(imported.images, str(path))
    number, absent = len(imported.images), len(imported.images) - len(joined)
    if joined and absent:
        _logger.warning("%s: %d of %d files belong to no image of the ground truth", path, absent, number)
    results: _Results = []
    for name, image in joined.items():
        cells = _cells_of(image, name, images.size(name))
        for cell, score, rle in zip(image.cells, cells.scores.tolist(), cells.rles()):
            category = cell.class_name or (truth.class_names[0] if len(truth.class_names) == 1 else None)
            if category is None:
                raise InputError(
                    f"{image.source}: cells without a class, but the ground truth has {len(truth.class_names)} "
                    f"({', '.join(truth.class_names)}): leave classes aside with --class-agnostic"
                )
            results.append({"file_name": name, "category": category, "score": score, "segmentation": rle})
    return results


def _cells_of(image: ImportedImage, name: str, size: tuple[int, int]) -> Cells:
    """The cells of an image called ``name`` of ``size`` (height, width)."""
    if image.size is not None and image.size != size:
        raise InputError(
            f"{image.source}: {image.size[0]} x {image.size[1]} pixels, but the image {name} has "
            f"{size[0]} x {size[1]}"
        )
    if boxes := sum(not cell.has_outline for cell in image.cells):
        raise InputError(
            f"{image.source}: {boxes} cells with a box and no outline, expected the outlines that are compared"
        )
    return outlined(image.cells, *size)


def _is_coloured(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, UnidentifiedImageError):  # a depth or format that Pillow does not know
        return False
