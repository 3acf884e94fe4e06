"""Masks against hand-made boxes: merged and missing cells by part, and how many errors of a model are of that kind.

    python benchmarks/bench_box_noise.py --data-root output/real/dataset --boxes bbbc041_boxes.json \\
        --predictions output/shipped/inference/bccd_val/coco_instances_results.json

BBBC041's boxes were drawn by other people than the masks: where both agree there is a cell, and where they differ one
of them is wrong. A component of the mask that two boxes or more claim (see bccd_d2/conversion/box_matching.py), or that
reaches far out of its only box, holds several cells. docs/label_noise.md says what came out.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bccd_d2.conversion.box_files import Bbbc041Boxes
from bccd_d2.conversion.box_matching import match_boxes
from bccd_d2.conversion.boxes import ImageBoxes
from bccd_d2.errors import InputError, run_command
from bccd_d2.evaluation.class_table import count_agreement
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.matching import MOSTLY, box_ious, match_cells, match_optimal, overlaps
from bccd_d2.evaluation.options import ALL_CLASSES, FOUND_IOU, REGIONS, EvaluationOptions

OPTIONS = EvaluationOptions(bootstrap_samples=0)
PARTS = ("train", "val", "test")
MERGED, ONE_CELL, NO_BOX = "merged", "one cell", "no box"


@dataclass(frozen=True)
class MaskFaults:
    """What the boxes of an image say about its masks.

    Attributes:
        cells: (M,) each true cell as ``MERGED``, ``ONE_CELL`` or ``NO_BOX``.
        held: (M,) how many boxes claim it.
        box_border: (B,) bool, boxes that touch the image border.
        box_missing: (B,) bool, boxes that no cell fills.
        boxes: (B, 4) x0, y0, x1, y1.
    """

    cells: NDArray[np.str_]
    held: NDArray[np.int64]
    box_border: NDArray[np.bool_]
    box_missing: NDArray[np.bool_]
    boxes: NDArray[np.float64]


def find_faults(image: EvaluationImage, boxes: ImageBoxes) -> MaskFaults:
    """Join boxes with the true cells of an image, which must not overlap."""
    truth = image.truth
    size = np.array([truth.width, truth.height] * 2)
    corners = np.clip(boxes.corners, 0, size)
    boxes = ImageBoxes(boxes.source, corners, boxes.names, boxes.difficult, boxes.size)
    match = match_boxes(truth.label_image(), boxes)
    kinds, held = [], []
    for component in range(1, len(truth) + 1):
        claims = match.by_component.get(component, [])
        held.append(len(claims))
        if component in match.pieces:
            kinds.append(ONE_CELL)  # a piece of a cell that has its box
        elif not claims:
            kinds.append(NO_BOX)
        else:
            kinds.append(ONE_CELL if match.is_one_cell(component) else MERGED)
    touches = np.asarray((corners[:, :2] <= 0).any(axis=1) | (corners[:, 2:] >= size[2:]).any(axis=1))
    return MaskFaults(
        np.array(kinds, str),
        np.array(held, np.int64),
        touches,
        match.claimed == 0,
        corners.astype(float),
    )


def count_faults(image: EvaluationImage, faults: MaskFaults) -> Counter[str]:
    """Counts of one image, away from the border but for the first two."""
    inside = ~image.truth.touches_border()
    kinds, held = faults.cells, faults.held
    return Counter(
        {
            "masks": len(kinds),
            "boxes": len(faults.boxes),
            "masks inside": int(inside.sum()),
            "boxes inside": int((~faults.box_border).sum()),
            "merged": int((inside & (kinds == MERGED)).sum()),
            "claimed by two or more": int((inside & (held > 1)).sum()),
            "boxes in those": int(held[inside & (held > 1)].sum()),
            "masks without box": int((inside & (kinds == NO_BOX)).sum()),
            "boxes without mask": int((faults.box_missing & ~faults.box_border).sum()),
        }
    )


def explain_errors(image: EvaluationImage, faults: MaskFaults) -> tuple[Counter[str], Counter[str], int]:
    """Wrong predictions and missed cells away from the border, each by the first fault that explains it, and matches.

    A prediction that a box agrees with (IoU of boxes at least 0.5, each box once) found a cell that somebody saw.
    """
    overlap = overlaps(image)
    found = match_cells(overlap, OPTIONS.score_threshold, interior=True)
    counted = np.flatnonzero(overlap.scores >= OPTIONS.score_threshold)
    rows, _ = match_optimal(box_ious(image.predictions.boxes[counted], faults.boxes), FOUND_IOU)
    boxed = set(counted[rows].tolist())
    merged = faults.cells == MERGED
    lies_on = overlap.shared[:, merged].sum(axis=1) >= MOSTLY * np.maximum(overlap.predicted_areas, 1)
    untouched = overlap.iou.max(axis=1, initial=0.0) < 0.1
    wrong: Counter[str] = Counter()
    for p in found.false_positives.tolist():
        if lies_on[p]:
            wrong["on a merged mask, " + ("a box agrees" if p in boxed else "no box agrees")] += 1
        elif p in boxed:
            wrong["a box agrees, " + ("no mask there" if untouched[p] else "the mask differs")] += 1
        else:
            wrong["no box agrees, " + ("no mask there" if untouched[p] else "a cell with its own mask")] += 1
    missed = Counter(str(faults.cells[t]) for t in found.false_negatives.tolist())
    return wrong, missed, len(found.true)


def part_file(data_root: Path, part: str) -> Path:
    """Annotations of a part."""
    return data_root / "annotations" / f"instances_{part}.json"


def part_table(data_root: Path, boxes: Bbbc041Boxes) -> str:
    """Faults of the masks by part, and the counts by boxes and masks."""
    columns = []
    for part in PARTS:
        total: Counter[str] = Counter()
        by_masks, by_boxes = [], []
        images = read_evaluation_set(part_file(data_root, part)).images
        for image in images:
            counts = count_faults(image, find_faults(image, boxes_of(image, boxes)))
            total.update(counts)
            by_masks.append(counts["masks inside"])
            by_boxes.append(counts["boxes inside"])
        agreement = count_agreement(by_boxes, by_masks)
        columns.append(
            {
                "images": str(len(images)),
                **{name: str(number) for name, number in total.items()},
                "masks off boxes, mean of images": f"{agreement.mean_relative_error:.3f}",
            }
        )
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return str(tabulate(rows, ["", *PARTS], tablefmt="pipe", disable_numparse=True))


def error_tables(data: EvaluationSet, boxes: Bbbc041Boxes) -> str:
    """Errors of the model by what explains them, and its figures once masks that are wrong are left out."""
    wrong, missed = Counter[str](), Counter[str]()
    cleared: list[EvaluationImage] = []
    by_masks, by_model, by_mended = [], [], []
    for image in data.images:
        faults = find_faults(image, boxes_of(image, boxes))
        image_wrong, image_missed, matched = explain_errors(image, faults)
        wrong.update(image_wrong)
        missed.update(image_missed)
        merged = faults.cells == MERGED
        cleared.append(replace(image, truth=image.truth[~merged], ignore=image.truth[merged]))
        by_masks.append(matched + image_missed.total())
        by_model.append(matched + image_wrong.total())
        several = ~image.truth.touches_border() & (faults.held > 1)
        by_mended.append(by_masks[-1] + int((faults.held[several] - 1).sum()))
    parts = [
        tabulate(sorted(wrong.items()), [f"{wrong.total()} wrong predictions", "number"], tablefmt="pipe"),
        tabulate(sorted(missed.items()), [f"{missed.total()} missed cells", "number"], tablefmt="pipe"),
    ]
    rows = []
    for name, judged in (("as they are", data), ("merged masks ignored", replace(data, images=cleared))):
        found = evaluate(judged, OPTIONS)
        precision = [found.average_precision["segm"][region].overall for region in REGIONS]
        f1 = [found.instances[region][ALL_CLASSES].f1 for region in REGIONS]
        rows.append(
            [name]
            + [" / ".join(f"{getattr(p, key):.3f}" for p in precision) for key in ("AP", "AP50")]
            + [f"{found.overlap.Dice:.3f}, {found.overlap.IoU:.3f}", " / ".join(f"{v:.3f}" for v in f1)]
        )
    headers = ["masks, all / interior", "AP", "AP50", "Dice, IoU", "F1"]
    parts.append(tabulate(rows, headers, tablefmt="pipe"))
    counts: list[list[Any]] = []
    for name, true, counted in (
        ("model against masks", by_masks, by_model),
        ("model against masks, merged ones counted as their boxes", by_mended, by_model),
        ("masks against masks, merged ones counted as their boxes", by_mended, by_masks),
    ):
        agreement = count_agreement(true, counted)
        counts.append([name, sum(true), sum(counted), agreement.bias, agreement.mean_relative_error])
    headers = ["interior counts", "true", "counted", "bias, an image", "mean relative error"]
    parts.append(tabulate(counts, headers, tablefmt="pipe", floatfmt=".3f"))
    return "\n\n".join(parts)


def boxes_of(image: EvaluationImage, boxes: Bbbc041Boxes) -> ImageBoxes:
    """Boxes of an image by its stem."""
    found = boxes.by_stem.get(Path(image.file_name).stem)
    if found is None:
        raise InputError(f"{boxes.path}: no boxes of {image.file_name}")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="of tools/convert_bccd.py"
    )
    parser.add_argument("--boxes", type=Path, required=True, metavar="FILE", help="boxes in BBBC041's format")
    parser.add_argument(
        "--part", default="val", choices=PARTS, help="of the predictions (default %(default)s)"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="COCO results of a model on that part"
    )
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    boxes = Bbbc041Boxes.read(options.boxes)
    print(part_table(options.data_root, boxes))
    if options.predictions is not None:
        data = read_evaluation_set(part_file(options.data_root, options.part), options.predictions)
        print("\n" + error_tables(data, boxes))


if __name__ == "__main__":
    run_command(main)
