"""True and predicted cells, image by image, from COCO files; NumPy and pycocotools, no torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bccd_d2.conversion.boxes import MAX_COORDINATE
from bccd_d2.errors import InputError
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import check_entries, is_among, read_coco, read_json
from bccd_d2.structures.coco import image_root as written_root


@dataclass(frozen=True)
class EvaluationImage:
    """One image with what is true and what was predicted, in native pixels.

    Attributes:
        image_id: of the COCO file.
        file_name: as the COCO file has it.
        path: of the image; ``None`` where it is not known, and then nothing is said about contrast.
        truth: annotated cells; ``scores`` are 1.
        ignore: regions with ``iscrowd``: predictions that match nothing and lie mostly in one of their class are
            neither right nor wrong.
        predictions: all of the model, whatever their score; ``classes`` index the same names as those of ``truth``.
    """

    image_id: int
    file_name: str
    path: Path | None
    truth: Cells
    ignore: Cells
    predictions: Cells


@dataclass(frozen=True)
class EvaluationSet:
    """Images of one data set.

    Attributes:
        images: in the order of the COCO file.
        class_names: by class index, in the order of the category ids, as Detectron2 counts them.
        category_ids: likewise.
    """

    images: Sequence[EvaluationImage]
    class_names: Sequence[str]
    category_ids: Sequence[int]

    def with_results(self, results: Sequence[Mapping[str, Any]], where: str = "predictions") -> EvaluationSet:
        """The same truth with the predictions of a COCO results list.

        Args:
            results: ``image_id``, ``category_id``, ``score``, ``segmentation`` (RLE or polygons) and maybe ``bbox``
                ``[x, y, width, height]``, in native pixels.
            where: what error messages call the list.

        Raises:
            InputError: an entry lacks a key, has an image, category or size that the truth does not know, or a
                score outside [0, 1].
        """
        if not isinstance(results, Sequence) or isinstance(results, str):
            raise InputError(f"{where}: {type(results).__name__} at the top, expected a list of COCO results")
        class_index = {category: index for index, category in enumerate(self.category_ids)}
        by_image: dict[Any, list[Mapping[str, Any]]] = {image.image_id: [] for image in self.images}
        for number, result in enumerate(results):
            _check_result(result, f"{where}, entry {number}", by_image, class_index)
            by_image[result["image_id"]].append(result)
        return self.with_predictions(
            {
                image.image_id: _cells(
                    by_image[image.image_id],
                    image.truth.height,
                    image.truth.width,
                    class_index,
                    f"{where}, image {image.image_id} ({image.file_name})",
                )
                for image in self.images
            }
        )

    def with_predictions(self, predictions: Mapping[int, Cells]) -> EvaluationSet:
        """The same truth with other predictions.

        Args:
            predictions: by image id; an image that is missing was found empty.

        Raises:
            InputError: an image id is unknown, or the predictions lie on an image of another size.
        """
        unknown = set(predictions) - {image.image_id for image in self.images}
        if unknown:
            raise InputError(
                f"predictions for image {sorted(unknown)[0]!r}, which the ground truth does not hold"
            )
        images = []
        for image in self.images:
            cells = predictions.get(image.image_id, _no_cells(image.truth.height, image.truth.width))
            if (cells.height, cells.width) != (image.truth.height, image.truth.width):
                raise InputError(
                    f"{image.file_name}: predictions on an image of {cells.height} x {cells.width}, expected "
                    f"{image.truth.height} x {image.truth.width}"
                )
            images.append(replace(image, predictions=cells))
        return replace(self, images=images)


def truth_from_coco(
    document: Mapping[str, Any], image_root: Path | None = None, where: str = "ground truth"
) -> EvaluationSet:
    """Images of a COCO instance document, without predictions.

    Args:
        document: with ``images``, ``annotations`` and ``categories``.
        image_root: folder that ``file_name`` is relative to; ``None`` where the images are not at hand.
        where: what error messages call the document.

    Raises:
        InputError: an annotation lacks a key, has an image or category that is not listed, or its mask another size.
    """
    check_entries(document, where)
    for annotation in document["annotations"]:
        _check_box(annotation.get("bbox"), f"{where}, annotation {annotation.get('id')!r}")
    categories = sorted(document["categories"], key=lambda category: category["id"])
    class_index = {category["id"]: index for index, category in enumerate(categories)}
    by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    images = []
    for entry in document["images"]:
        height, width = entry["height"], entry["width"]
        name = f"{where}, image {entry['id']} ({entry['file_name']})"
        cells = [a for a in by_image[entry["id"]] if not a.get("iscrowd")]
        regions = [a for a in by_image[entry["id"]] if a.get("iscrowd")]
        images.append(
            EvaluationImage(
                entry["id"],
                entry["file_name"],
                image_root / entry["file_name"] if image_root is not None else None,
                _cells(cells, height, width, class_index, name),
                _cells(regions, height, width, class_index, name),
                _no_cells(height, width),
            )
        )
    return EvaluationSet(
        images, [category["name"] for category in categories], [category["id"] for category in categories]
    )


def read_evaluation_set(
    truth_file: Path, predictions_file: Path | None = None, image_root: Path | None = None
) -> EvaluationSet:
    """Read ground truth, and predictions where a file is named.

    Args:
        truth_file: COCO instance JSON.
        predictions_file: COCO results JSON.
        image_root: folder of the images; ``None`` takes ``info.image_root`` of the ground truth, which
            ``tools/convert_bccd.py`` writes. Images that are not there are left without path, and counted in the log.

    Raises:
        InputError: a file is missing or malformed, or they do not belong together.
    """
    document = read_coco(truth_file)
    if image_root is None:
        image_root = written_root(document, truth_file)
    found = truth_from_coco(document, image_root, str(truth_file))
    images = [i if i.path and i.path.is_file() else replace(i, path=None) for i in found.images]
    missing = sum(image.path is None for image in images)
    if missing:
        logging.getLogger(__name__).warning(
            "%d of %d images are not below %s", missing, len(images), image_root
        )
    found = replace(found, images=images)
    if predictions_file is None:
        return found
    return found.with_results(read_json(predictions_file), str(predictions_file))


def _no_cells(height: int, width: int) -> Cells:
    return Cells.from_masks(height, width, [])


def _cells(
    entries: Sequence[Mapping[str, Any]], height: int, width: int, class_index: Mapping[Any, int], where: str
) -> Cells:
    try:
        cells = Cells.from_rles(
            height,
            width,
            [entry["segmentation"] for entry in entries],
            classes=[class_index[entry["category_id"]] for entry in entries],
            scores=[entry.get("score", 1.0) for entry in entries],
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    boxes = cells.boxes.copy()
    for index, entry in enumerate(entries):
        if entry.get("bbox") is not None:
            x, y, box_width, box_height = entry["bbox"]
            boxes[index] = x, y, x + box_width, y + box_height
    return replace(cells, boxes=boxes)


def _check_result(result: Any, name: str, images: Mapping[Any, Any], classes: Mapping[Any, int]) -> None:
    if not isinstance(result, Mapping):
        raise InputError(f"{name}: {type(result).__name__}, expected an object")
    for key in ("image_id", "category_id", "score", "segmentation"):
        if key not in result:
            raise InputError(f"{name}: no key {key!r}")
    if not is_among(result["image_id"], images):
        raise InputError(f"{name}: image {result['image_id']!r}, which the ground truth does not hold")
    if not is_among(result["category_id"], classes):
        raise InputError(f"{name}: category {result['category_id']!r}, expected one of {list(classes)}")
    score = result["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{name}: score {score!r}, expected a number in [0, 1]")
    _check_box(result.get("bbox"), name)


def _check_box(box: Any, name: str) -> None:
    if box is None:
        return
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(abs(value) <= MAX_COORDINATE for value in box):  # false for NaN
        raise InputError(f"{name}: bbox {box!r}, expected [x, y, width, height]")
