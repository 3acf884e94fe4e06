"""Average precision of predicted boxes against the boxes that people drew.

    python benchmarks/bench_hand_boxes.py --truth datasets/voc/annotations/instances_val.json --spec bccd_voc \
        --boxes BCCD/Annotations --predictions output/classes/inference/coco_instances_results.json

Published figures of detectors are against all boxes that people drew, and so are these. A COCO file can have others:
those of the Kaggle masks lie tight around the masks, and a box in which no weak mask was found is a region to ignore.
What is printed for each class: the hand-drawn boxes, box AP50 and AP; then, at a score of at least 0.5 and an IoU of at
least 0.5, the boxes that were found and the predictions that found none. Where the file was converted with
--ignore-unlabelled, the last columns say how many of these lie mostly in a region that looks like an unlabelled cell,
and AP50 without such predictions.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bccd_d2.conversion.box_classes import named_boxes
from bccd_d2.conversion.box_files import Bbbc041Boxes, VocFolder
from bccd_d2.conversion.boxes import BoxFile
from bccd_d2.conversion.classes import IGNORE, ClassTable
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.conversion.layout import ImageRecord
from bccd_d2.errors import InputError, run_command
from bccd_d2.evaluation.average_precision import COCOMetrics
from bccd_d2.evaluation.dataset import EvaluationImage, read_evaluation_set
from bccd_d2.evaluation.matching import MOSTLY, box_ious, match_optimal
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.cells import Cells, concatenate

FOUND = 0.5
SCORE = 0.5
ONE_CLASS = "cell"


def with_hand_boxes(
    image: EvaluationImage, boxes: BoxFile, table: ClassTable, class_index: Mapping[str, int]
) -> EvaluationImage:
    """The same predictions; truth are the boxes that people drew, their masks being the rectangles.

    Raises:
        InputError: the boxes are broken, or of a class that ``class_index`` does not know.
    """
    height, width = image.truth.height, image.truth.width
    record = ImageRecord(
        image.image_id, Path(image.file_name).stem, image.file_name, Path(image.file_name), height, width
    )
    found = named_boxes(boxes, table, record)
    unknown = set(found.classes) - {*class_index, IGNORE}
    if unknown:
        raise InputError(
            f"{found.boxes.source}: boxes of class {sorted(unknown)[0]}, expected one of {list(class_index)}"
        )
    corners = found.boxes.corners
    rectangles = Cells.from_masks(
        height,
        width,
        [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in corners.tolist()],
        origins=[(x0, y0) for x0, y0, _, _ in corners.tolist()],
        classes=[class_index.get(name, 0) for name in found.classes],
    )
    ignored = np.array([name == IGNORE for name in found.classes], bool)
    regions = [replace(rectangles[ignored], classes=np.full(ignored.sum(), k)) for k in class_index.values()]
    return replace(image, truth=rectangles[~ignored], ignore=concatenate(regions))


def unlabelled(image: EvaluationImage, regions: Cells) -> NDArray[np.bool_]:
    """(N,) predictions that lie mostly in ``regions`` and have no hand-drawn box of their class."""
    found, truth = image.predictions, image.truth
    close = (box_ious(found.boxes, truth.boxes) >= FOUND) & (found.classes[:, None] == truth.classes[None])
    covered = np.zeros((found.height, found.width), bool)
    for index in range(len(regions)):
        x0, y0, x1, y1 = regions.windows[index]
        covered[y0:y1, x0:x1] |= regions.masks[index]
    shares = [
        covered[y0:y1, x0:x1][mask].mean() if mask.any() else 0.0
        for (x0, y0, x1, y1), mask in zip(found.windows.tolist(), found.masks)
    ]
    return ~close.any(axis=1) & (np.array(shares).reshape(-1) >= MOSTLY)


def counted(
    images: Sequence[EvaluationImage], left_out: Sequence[NDArray[np.bool_]], label: int
) -> list[int]:
    """Boxes, boxes found, predictions that found none, and how many of these are ``left_out``; of one class."""
    total = np.zeros(4, int)
    for image, outside in zip(images, left_out):
        chosen = (image.predictions.classes == label) & (image.predictions.scores >= SCORE)
        boxes = image.truth.boxes[image.truth.classes == label]
        found, _ = match_optimal(box_ious(image.predictions.boxes[chosen], boxes), FOUND)
        wrong = np.ones(int(chosen.sum()), bool)
        wrong[found] = False
        total += [len(boxes), len(found), wrong.sum(), (wrong & outside[chosen]).sum()]
    return total.tolist()


def merged(cells: Cells) -> Cells:
    """The same cells, all of class 0."""
    return replace(cells, classes=np.zeros_like(cells.classes))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a class, and one of the means (AP) and sums (counts)."""
    section = read_spec(args.spec).classes
    if section is None:
        raise InputError(f"--spec {args.spec}: no section 'classes' that says what the boxes are")
    table = ClassTable.from_mapping(section)
    boxes: BoxFile = VocFolder(args.boxes) if table.format == "voc" else Bbbc041Boxes.read(args.boxes)
    predicted = read_evaluation_set(args.truth, args.predictions)
    names = [ONE_CLASS] if args.one_class else list(predicted.class_names)
    index = dict.fromkeys(table.class_ids, 0) if args.one_class else {n: k for k, n in enumerate(names)}
    images = [with_hand_boxes(image, boxes, table, index) for image in predicted.images]
    if args.one_class:
        images = [replace(i, truth=merged(i.truth), predictions=merged(i.predictions)) for i in images]
    left_out = [unlabelled(image, before.ignore) for image, before in zip(images, predicted.images)]
    kept = [replace(i, predictions=i.predictions[~outside]) for i, outside in zip(images, left_out)]
    options = EvaluationOptions()
    precision, without = (COCOMetrics(part, names, options).table("bbox") for part in (images, kept))
    rows, sums = [], np.zeros(4, int)
    for label, name in enumerate(names):
        numbers = counted(images, left_out, label)
        sums += numbers
        rows.append(row(name, precision.by_class[name], without.by_class[name], numbers))
    return [*rows, row("all", precision.overall, without.overall, sums.tolist())]


def row(name: str, precision: Any, without: Any, numbers: Sequence[int]) -> dict[str, Any]:
    """One line of the table."""
    boxes, found, wrong, outside = numbers
    return {
        "class": name,
        "boxes": boxes,
        "AP50": precision.AP50,
        "AP": precision.AP,
        "found": found,
        "recall": found / boxes if boxes else "-",
        "wrong": wrong,
        "of them unlabelled": outside,
        "AP50 without these": without.AP50,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--truth", type=Path, required=True, help="COCO JSON that tools/convert_bccd.py wrote"
    )
    parser.add_argument("--predictions", type=Path, required=True, help="COCO results on its images")
    parser.add_argument("--boxes", type=Path, required=True, help="folder of VOC files, or BBBC041's JSON")
    parser.add_argument("--spec", required=True, help="which says what the boxes' categories are")
    parser.add_argument("--one-class", action="store_true", help="a box is a box, whatever its class")
    print(tabulate(measure(parser.parse_args(arguments)), headers="keys", floatfmt=".3f"))


if __name__ == "__main__":
    run_command(main)
