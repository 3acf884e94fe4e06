"""True and predicted cells, image by image, from COCO files; NumPy and pycocotools, no torch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.importers.common import ImageFiles
from bccd_d2.errors import InputError
from bccd_d2.evaluation.joining import ImageIds, join_class_names, join_class_numbers, join_image_ids
from bccd_d2.evaluation.options import FOUND_IOU
from bccd_d2.files import read_json
from bccd_d2.io.coco_images import image_path
from bccd_d2.io.coco_images import image_root as written_root
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_coco, unlabeled_categories
from bccd_d2.structures.names import match_images
from bccd_d2.structures.rle import MAX_SIDE

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationImage:
    """One image with what is true and what was predicted, in native pixels.

    ``ignore`` are regions with ``iscrowd``: predictions that match nothing and lie mostly in one of their class are
    neither right nor wrong. Predictions of an ``unlabeled`` class, one that is not annotated, or not completely, count
    only where they match an annotated cell.
    """

    image_id: int  # of the COCO file
    file_name: str  # as the COCO file has it
    path: Path | None  # None: no contrast
    truth: Cells  # annotated cells; ``scores`` are 1
    ignore: Cells
    predictions: Cells  # whatever their score; ``classes`` index the same names
    unlabeled: Sequence[int] = ()


@dataclass(frozen=True)
class EvaluationSet:
    """Images of one data set, in the order of the COCO file."""

    images: Sequence[EvaluationImage]
    class_names: Sequence[str]  # by class index, in the order of the category ids, as Detectron2 counts
    category_ids: Sequence[int]

    def with_results(
        self,
        results: Sequence[Mapping[str, Any]],
        where: str = "predictions",
        *,
        image_ids: ImageIds | None = None,
        class_names: Sequence[str] = (),
        class_agnostic: bool = False,
    ) -> EvaluationSet:
        """The same truth with the predictions of a COCO results list.

        Images and classes are joined by name where the entries have ``file_name`` and ``category``, else by
        ``image_id`` (see :func:`bccd_d2.evaluation.joining.join_image_ids`) and ``category_id``. Predictions of a class
        that the truth does not list are left out, with a warning: the class is added to the others and has no ground
        truth.

        Entries have ``score``, ``segmentation`` (RLE or polygons) and maybe ``bbox`` ``[x, y, width, height]`` in
        native pixels; ``class_names`` are all that a ``category`` could name. With ``class_agnostic`` all are of the
        first class. Raises InputError where an entry lacks a key, has an image, category or size that the truth does
        not know, or a score outside [0, 1]; ``where`` is what the message calls the list.
        """
        if not isinstance(results, Sequence) or isinstance(results, str):
            raise InputError(f"{where}: {type(results).__name__} at the top, expected a list of COCO results")
        for number, result in enumerate(results):
            _check_result(result, f"{where}, entry {number}")
        image_of = self._images_of(results, where, image_ids)
        classes, unlisted = self._classes_of(results, where, class_names, class_agnostic)
        by_image: dict[int, list[tuple[Mapping[str, Any], int]]] = {i.image_id: [] for i in self.images}
        for result, image_id, class_index in zip(results, image_of, classes):
            if class_index is not None:
                by_image[image_id].append((result, class_index))
        found = {}
        for image in self.images:
            name = f"{where}, image {image.image_id} ({image.file_name})"
            size = image.truth.height, image.truth.width
            found[image.image_id] = _cells(by_image[image.image_id], *size, name)
        for name, number in unlisted.items():
            _logger.warning(
                "the ground truth does not list the class %s: %d predictions are left out", name, number
            )
        free = max(self.category_ids, default=0) + 1
        truth = replace(
            self,
            class_names=[*self.class_names, *unlisted],
            category_ids=[*self.category_ids, *range(free, free + len(unlisted))],
        )
        return truth.with_predictions(found)

    def with_predictions(self, predictions: Mapping[int, Cells]) -> EvaluationSet:
        """The same truth with other predictions by image id; a warning counts those left out for want of annotations.

        Raises InputError where an image id is unknown, or the predictions lie on an image of another size.
        """
        unknown = set(predictions) - {image.image_id for image in self.images}
        if unknown:
            raise InputError(f"image {sorted(unknown)[0]!r}: the ground truth does not hold it")
        images, left_out = [], Counter[str]()
        for image in self.images:
            cells = predictions.get(image.image_id, _no_cells(image.truth.height, image.truth.width))
            if (cells.height, cells.width) != (image.truth.height, image.truth.width):
                raise InputError(
                    f"{image.file_name}: predictions on an image of {cells.height} x {cells.width}, expected "
                    f"{image.truth.height} x {image.truth.width}"
                )
            kept = _is_counted(cells, image)
            left_out.update(self.class_names[index] for index in cells.classes[~kept])
            images.append(replace(image, predictions=cells[kept]))
        for name, number in left_out.items():
            _logger.warning(
                "the ground truth does not annotate every %s: %d predictions that match no cell are left out",
                name,
                number,
            )
        return replace(self, images=images)

    def without_classes(self) -> EvaluationSet:
        """The same cells, all of one class, to compare outlines alone."""
        unlabeled = {self.class_names[index] for image in self.images for index in image.unlabeled}
        if unlabeled:
            _logger.warning(
                "the ground truth does not annotate every %s: without classes such predictions are false positives",
                ", ".join(sorted(unlabeled)),
            )

        images = []
        for image in self.images:
            cells = (image.truth, image.ignore, image.predictions)
            truth, ignore, found = (replace(c, classes=np.zeros(len(c), np.int64)) for c in cells)
            images.append(replace(image, truth=truth, ignore=ignore, predictions=found, unlabeled=()))
        return EvaluationSet(images, ["cell"], [1])

    def _images_of(
        self, results: Sequence[Mapping[str, Any]], where: str, image_ids: ImageIds | None
    ) -> list[int]:
        """Image id of each result."""
        names = {image.image_id: image.file_name for image in self.images}
        if results and all(isinstance(result.get("file_name"), str) for result in results):
            ids = {name: image_id for image_id, name in names.items()}
            matched = match_images([result["file_name"] for result in results], ids, where=where)
            return [ids[matched[result["file_name"]]] for result in results]
        joined = join_image_ids([result.get("image_id") for result in results], names, where, image_ids)
        return [joined[result["image_id"]] for result in results]

    def _classes_of(
        self, results: Sequence[Mapping[str, Any]], where: str, known: Sequence[str], class_agnostic: bool
    ) -> tuple[list[int | None], Mapping[str, int]]:
        """Class index of each result, ``None`` for a class that is not listed, and how many such there are by name."""
        if class_agnostic:
            return [0] * len(results), {}
        if all(isinstance(result.get("category"), str) for result in results):
            names = [result["category"] for result in results]
            by_name = join_class_names([*known, *names], self.class_names, where)
            counts = Counter(names)
            unlisted = {name: counts[name] for name in (*known, *names) if name not in by_name}
            return [by_name.get(name) for name in names], unlisted
        categories = dict(zip(self.category_ids, self.class_names))
        numbers = join_class_numbers([result.get("category_id") for result in results], categories, where)
        index = {category: position for position, category in enumerate(self.category_ids)}
        return [index[number] for number in numbers], {}


def check_detections(images: Sequence[EvaluationImage], max_detections: int) -> None:
    """InputError for an image with more predictions than an evaluation looks at."""
    for image in images:
        if len(image.predictions) > max_detections:
            raise InputError(
                f"{image.file_name}: {len(image.predictions)} predictions, but TEST.DETECTIONS_PER_IMAGE is "
                f"{max_detections}: raise it to what the model may output (--max-detections of tools/evaluate.py)"
            )


def truth_from_coco(
    document: Mapping[str, Any], image_root: Path | None = None, where: str = "ground truth"
) -> EvaluationSet:
    """Images of a COCO instance document as :func:`bccd_d2.structures.coco.read_coco` returns it, without predictions.

    ``image_root`` is the folder of the images, ``None`` where they are not at hand.
    """
    categories = sorted(document["categories"], key=lambda category: category["id"])
    names = [category["name"] for category in categories]
    class_index = {category["id"]: index for index, category in enumerate(categories)}
    by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    images = []
    for entry in document["images"]:
        height, width = entry["height"], entry["width"]
        name = f"{where}, image {entry['id']} ({entry['file_name']})"
        cells, regions = (
            _cells(
                [
                    (a, class_index[a["category_id"]])
                    for a in by_image[entry["id"]]
                    if bool(a.get("iscrowd")) == crowd
                ],
                height,
                width,
                name,
            )
            for crowd in (False, True)
        )
        path = image_path(image_root, entry["file_name"]) if image_root is not None else None
        unlabeled = [names.index(one) for one in unlabeled_categories(document, entry, where)]
        images.append(
            EvaluationImage(
                entry["id"], entry["file_name"], path, cells, regions, _no_cells(height, width), unlabeled
            )
        )
    return EvaluationSet(images, names, [category["id"] for category in categories])


def read_evaluation_set(
    truth_file: Path, predictions_file: Path | None = None, image_root: Path | None = None
) -> EvaluationSet:
    """Read ground truth (COCO instance JSON), and predictions (COCO results JSON) where a file is named.

    ``image_root`` is the folder of the images, in which they are found by path, file name or stem; ``None`` takes
    ``info.image_root`` of the ground truth. Images that are not there are left without path, and counted in the log.
    Raises InputError where a file is missing or malformed, or they do not belong together.
    """
    document = read_coco(truth_file)
    root = written_root(document, truth_file) if image_root is None else image_root
    truth = truth_from_coco(document, root, str(truth_file))
    paths: dict[str, Path | None] = {i.file_name: i.path for i in truth.images if i.path and i.path.is_file()}
    if image_root is not None and len(paths) < len(truth.images):
        unused = [name for name, path in ImageFiles(image_root).paths.items() if path not in paths.values()]
        files = ImageFiles(image_root, unused)
        lost = [image.file_name for image in truth.images if image.file_name not in paths]
        paths |= {
            name: files.paths[file] for name, file in files.match(lost, f"--images {image_root}").items()
        }
    missing = len(truth.images) - len(paths)
    if missing:
        _logger.warning("%d of %d images are not below %s", missing, len(truth.images), root)
    images = [replace(image, path=paths.get(image.file_name)) for image in truth.images]
    truth = replace(truth, images=images)
    if predictions_file is None:
        return truth
    return truth.with_results(read_json(predictions_file), str(predictions_file))


def _is_counted(cells: Cells, image: EvaluationImage) -> NDArray[np.bool_]:
    """(N,) whether the truth can tell if a prediction is right: not where it may be a cell that is not annotated."""
    doubtful = np.isin(cells.classes, image.unlabeled)
    if not doubtful.any():
        return ~doubtful
    same_class = cells.classes[:, None] == image.truth.classes
    return ~doubtful | (same_class & (cells.ious(image.truth) >= FOUND_IOU)).any(axis=1)


def _no_cells(height: int, width: int) -> Cells:
    return Cells.from_masks(height, width, [])


def _cells(entries: Sequence[tuple[Mapping[str, Any], int]], height: int, width: int, where: str) -> Cells:
    """Cells of COCO entries with their class indices."""
    segmentations = [entry["segmentation"] for entry, _ in entries]
    classes, scores = [index for _, index in entries], [entry.get("score", 1.0) for entry, _ in entries]
    try:
        cells = Cells.from_rles(height, width, segmentations, classes=classes, scores=scores)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    boxes = cells.boxes.copy()
    for index, (entry, _) in enumerate(entries):
        if entry.get("bbox") is not None:
            x, y, box_width, box_height = entry["bbox"]
            boxes[index] = x, y, x + box_width, y + box_height
    return replace(cells, boxes=boxes)


def _check_result(result: Any, name: str) -> None:
    if not isinstance(result, Mapping):
        raise InputError(f"{name}: {type(result).__name__}, expected an object")
    for key in ("score", "segmentation"):
        if key not in result:
            raise InputError(f"{name}: no key {key!r}")
    score = result["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{name}: score {score!r}, expected a number in [0, 1]")
    box = result.get("bbox")
    if box is None:
        return
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(abs(value) <= MAX_SIDE for value in box):  # false for NaN
        raise InputError(f"{name}: bbox {box!r}, expected [x, y, width, height]")
