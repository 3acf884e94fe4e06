"""How far the given masks are from the visible cells: ten crops of the validation images, outlined again by hand.

    python benchmarks/bench_label_noise.py --data-root output/real/dataset \\
        --predictions output/shipped/inference/bccd_val/coco_instances_results.json

The outlines lie in benchmarks/label_noise/annotations.json and were drawn before any mask was looked at. Whole cells
are compared: a cell that the edge of a crop cuts is neither right nor wrong, one that the image's own border cuts
counts, except in the rows of interior cells. Intervals are 95 % percentile intervals over crops (F1, AP, AP50) or over
matched cells (IoU, offset). docs/label_noise.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tabulate import tabulate

from bccd_d2.errors import InputError, run_command
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.evaluate import Evaluation, evaluate
from bccd_d2.evaluation.image_metrics import PixelCounts, iou_and_dice
from bccd_d2.evaluation.matching import match_cells, overlaps
from bccd_d2.evaluation.options import ALL_CLASSES, EvaluationOptions
from bccd_d2.structures.cells import Cells

ANNOTATIONS = Path(__file__).parent / "label_noise" / "annotations.json"
FIRST = ANNOTATIONS.with_name("first_outlines.json")
"""Before they were corrected on enlarged pictures of one cell or a few; those of heaps were not drawn yet."""
STEPS = 8
OPTIONS = EvaluationOptions()


@dataclass(frozen=True)
class Crop:
    """A square of an image whose cells were outlined by hand.

    Attributes:
        stem: of the image.
        x: of its left column in the image.
        y: of its upper row.
        size: px on either side.
        outlines: (P, 2) x, y of each cell in px of the crop; pixel (0, 0) covers [0, 1) x [0, 1).
        unsure: whether a cell lies in a heap, so that parts of its outline are guessed.
    """

    stem: str
    x: int
    y: int
    size: int
    outlines: Sequence[NDArray[np.float64]]
    unsure: Sequence[bool]


@dataclass(frozen=True)
class Frame:
    """Where a crop lies on its canvas: with a margin of a pixel at the border of the image, none elsewhere.

    So a cell touches the border of the canvas where the crop cuts it, but not where the image does.
    """

    x0: int
    y0: int
    width: int
    height: int

    @classmethod
    def of(cls, crop: Crop, width: int, height: int, margin: int = 1) -> Frame:
        """Frame of a crop of an image of this size; a margin of 0 makes the image's border one like the others."""
        left, top = margin * (crop.x == 0), margin * (crop.y == 0)
        right, bottom = margin * (crop.x + crop.size == width), margin * (crop.y + crop.size == height)
        return cls(crop.x - left, crop.y - top, crop.size + left + right, crop.size + top + bottom)


def read_crops(path: Path) -> list[Crop]:
    """Read the outlines."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [
        Crop(
            crop["image"],
            crop["x"],
            crop["y"],
            document["size"],
            [np.array(cell["outline"], float) for cell in crop["cells"]],
            [cell["unsure"] for cell in crop["cells"]],
        )
        for crop in document["crops"]
    ]


def closed_curve(points: NDArray[np.float64], steps: int = STEPS) -> NDArray[np.float64]:
    """Points of the closed Catmull-Rom curve through (P, 2) points, (P * steps, 2): a polygon would cut corners."""
    a, b, c, d = (np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = b + (c - a) * t / 2 + (a - 2.5 * b + 2 * c - d / 2) * t**2 + (1.5 * (b - c) + (d - a) / 2) * t**3
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def fill(outline: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """(size, size) pixels inside the curve through these points; OpenCV would add the pixels of the curve itself."""
    rles = coco_mask.frPyObjects([closed_curve(outline).ravel().tolist()], size, size)
    return np.asarray(coco_mask.decode(rles)[:, :, 0] > 0)


def drawn_cells(crop: Crop, frame: Frame) -> Cells:
    """The outlines of a crop as cells on its canvas."""
    return Cells.from_masks(
        frame.height,
        frame.width,
        [fill(outline, crop.size) for outline in crop.outlines],
        origins=[(crop.x - frame.x0, crop.y - frame.y0)] * len(crop.outlines),
    )


def cut_out(cells: Cells, crop: Crop, frame: Frame) -> Cells:
    """What of an image's cells lies in a crop, on its canvas."""
    masks, origins, kept = [], [], []
    for index, (mask, (x0, y0, x1, y1)) in enumerate(zip(cells.masks, cells.windows.tolist())):
        left, top = max(x0, crop.x), max(y0, crop.y)
        right, bottom = min(x1, crop.x + crop.size), min(y1, crop.y + crop.size)
        part = mask[max(top - y0, 0) : max(bottom - y0, 0), max(left - x0, 0) : max(right - x0, 0)]
        if part.any():
            masks.append(part)
            origins.append((left - frame.x0, top - frame.y0))
            kept.append(index)
    return Cells.from_masks(
        frame.height,
        frame.width,
        masks,
        origins=origins,
        scores=cells.scores[kept],
        classes=cells.classes[kept],
    )


def offset_of_outline(mine: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean signed and mean absolute distance in px from the outline of a mask to that of another.

    Both are of the same size with background all around. Positive where the other mask reaches further out.
    """
    a, b = mine.astype(np.uint8), other.astype(np.uint8)
    outline = (a - cv2.erode(a, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))).astype(bool)
    depth = cv2.distanceTransform(b, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - b, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The edge lies half a pixel outwards of the last pixel inside, and so does that of ``mine``.
    signed = np.where(b > 0, depth - 0.5, 0.5 - outside)[outline] - 0.5
    return float(signed.mean()), float(np.abs(signed).mean())


def pixels_of_whole_cells(image: EvaluationImage) -> PixelCounts:
    """Pixels of both unions, without those of ignore regions and of any cell that the edge cuts."""
    sides = []
    cut = image.ignore.label_image() > 0
    for cells in (image.predictions, image.truth):
        at_edge = cells.touches_border()
        sides.append(cells.label_image() > 0)
        cut |= cells[at_edge].label_image() > 0
    predicted, true = (side & ~cut for side in sides)
    return PixelCounts(int((predicted & true).sum()), int(predicted.sum()), int(true.sum()))


def make_set(
    truth: Sequence[Cells], predictions: Sequence[Cells], ignore: Sequence[Cells] | None = None
) -> EvaluationSet:
    """Crops as images of their own."""
    if ignore is None:
        ignore = [Cells.from_masks(cells.height, cells.width, []) for cells in truth]
    return EvaluationSet(
        [
            EvaluationImage(number, f"crop {number}", None, *cells)
            for number, cells in enumerate(zip(truth, ignore, predictions), start=1)
        ],
        ["cell"],
        [1],
    )


def matched_pairs(data: EvaluationSet) -> NDArray[np.float64]:
    """(P, 3) IoU, signed and absolute offset of the outlines of each matched pair of whole cells at IoU 0.5."""
    rows = []
    for image in data.images:
        overlap = overlaps(image)
        found = match_cells(overlap, OPTIONS.score_threshold, interior=True)
        for p, t in zip(found.predicted.tolist(), found.true.tolist()):
            masks = [np.pad(cells.full_mask(i), 1) for cells, i in ((image.truth, t), (image.predictions, p))]
            rows.append([overlap.iou[p, t], *offset_of_outline(*masks)])
    return np.array(rows).reshape(-1, 3)


def lone(cells: Cells) -> NDArray[np.bool_]:
    """(N,) whether a cell shares no pixel with another."""
    shared = cells.intersections(cells)
    np.fill_diagonal(shared, 0)
    return np.asarray(~shared.any(axis=1))


def mean_with_interval(values: NDArray[np.float64]) -> str:
    """Mean with its interval, values drawn with replacement."""
    generator = np.random.default_rng(OPTIONS.seed)
    drawn = values[generator.integers(0, len(values), (OPTIONS.bootstrap_samples, len(values)))].mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def agreement_row(name: str, data: EvaluationSet) -> list[str]:
    """One row of the first table."""
    found = evaluate(data, OPTIONS)
    metrics, sure = found.instances["interior"][ALL_CLASSES], found.intervals["interior"]
    pairs = matched_pairs(data)
    quartiles = " / ".join(f"{q:.3f}" for q in np.percentile(pairs[:, 0], (25, 50, 75)))
    pixels = PixelCounts(*np.sum([pixels_of_whole_cells(i) for i in data.images], axis=0).tolist())
    iou, dice = iou_and_dice(pixels)
    with_interval = [
        f"{sure[k].value:.3f} ({sure[k].low:.3f} to {sure[k].high:.3f})" for k in ("F1", "AP", "AP50")
    ]
    return [
        name,
        f"{metrics.cells} / {metrics.predicted}",
        mean_with_interval(pairs[:, 0]),
        quartiles,
        f"{metrics.precision:.3f} / {metrics.recall:.3f}",
        *with_interval,
        f"{metrics.mean_f1:.3f}",
        f"{dice:.3f} / {iou:.3f}",
        mean_with_interval(pairs[:, 1]),
        f"{pairs[:, 2].mean():.2f}",
    ]


def bins_of_whole_cells(found: Evaluation, kind: str) -> Counter[str]:
    """Bins (see bccd_d2/evaluation/taxonomy.py) of the cells that nothing cuts; ``kind`` is "truth" or "prediction"."""
    return Counter(
        str(record["bin"])
        for record in found.per_cell
        if record["kind"] == kind and not record["touches_border"]
    )


def crop_table(data: EvaluationSet, crops: Sequence[Crop]) -> list[list[Any]]:
    """One row a crop: cells on both sides, how well outlines agree, and the bins that are not correct."""
    rows = []
    for image, crop in zip(data.images, crops):
        alone = EvaluationSet([image], data.class_names, data.category_ids)
        found = evaluate(alone, OPTIONS)
        metrics = found.instances["interior"][ALL_CLASSES]
        pairs = matched_pairs(alone)
        agreement = [f"{v:.3f}" for v in pairs[:, :2].mean(axis=0)] if len(pairs) else ["-", "-"]
        mine, given = (bins_of_whole_cells(found, kind) for kind in ("truth", "prediction"))
        faults = [", ".join(f"{n} {b}" for b, n in bins.items() if b != "correct") for bins in (mine, given)]
        rows.append(
            [f"{crop.stem[:8]} at {crop.x}, {crop.y}", metrics.cells, metrics.predicted]
            + agreement
            + [text or "-" for text in faults]
        )
    return rows


def comparisons(
    crops: Sequence[Crop], images: Mapping[str, EvaluationImage], margin: int
) -> Iterator[tuple[str, EvaluationSet]]:
    """What is compared with what; ``margin`` see :class:`Frame`."""
    frames = [Frame.of(c, images[c.stem].truth.width, images[c.stem].truth.height, margin) for c in crops]
    mine = [drawn_cells(c, f) for c, f in zip(crops, frames)]
    masks = [cut_out(images[c.stem].truth, c, f) for c, f in zip(crops, frames)]
    model = [cut_out(images[c.stem].predictions, c, f) for c, f in zip(crops, frames)]
    yield "redrawn, judged by the masks", make_set(masks, mine)
    yield "masks, judged by redrawn", make_set(mine, masks)
    yield "model, judged by the masks", make_set(masks, model)
    yield "model, judged by redrawn", make_set(mine, model)
    clear = [~np.array(crop.unsure, bool) for crop in crops]
    for which, chosen in (
        ("but for heaps", clear),
        ("lone cells", [c & lone(m) for c, m in zip(clear, mine)]),
    ):
        truth = [cells[kept] for cells, kept in zip(mine, chosen)]
        ignored = [cells[~kept] for cells, kept in zip(mine, chosen)]
        for name, found in (("masks", masks), ("model", model)):
            yield f"{name}, judged by redrawn, {which}", make_set(truth, found, ignored)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="of tools/convert_bccd.py"
    )
    parser.add_argument("--part", default="val", help="part that holds the images (default %(default)s)")
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="FILE", help="COCO results of a model on that part"
    )
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    given = read_evaluation_set(
        options.data_root / "annotations" / f"instances_{options.part}.json", options.predictions
    )
    images = {Path(image.file_name).stem: image for image in given.images}
    crops = read_crops(ANNOTATIONS)
    unknown = [crop.stem for crop in crops if crop.stem not in images]
    if unknown:
        raise InputError(
            f"{options.data_root}: part {options.part!r} lacks {unknown[0]}, which {ANNOTATIONS} outlines"
        )
    rows = []
    for region, margin in (("whole", 1), ("interior", 0)):
        for name, data in comparisons(crops, images, margin):
            rows.append(agreement_row(f"{name}; {region}", data))
            if margin and name == "masks, judged by redrawn":
                table = crop_table(data, crops)
    headers = [
        "",
        "cells / found",
        "matched IoU",
        "quartiles",
        "precision / recall",
        "F1",
        "AP",
        "AP50",
        "mean F1",
    ]
    print(tabulate(rows, [*headers, "Dice / IoU", "offset, px", "absolute"], tablefmt="pipe"))
    headers = ["crop", "redrawn", "masks", "IoU", "offset, px", "redrawn cells not found", "masks not right"]
    print("\n" + tabulate(table, headers, tablefmt="pipe"))
    frames = [Frame(c.x, c.y, c.size, c.size) for c in crops]
    first = [drawn_cells(c, f) for c, f in zip(read_crops(FIRST), frames)]
    pairs = matched_pairs(make_set([drawn_cells(c, f) for c, f in zip(crops, frames)], first))
    print(
        f"\nFirst outlines of {len(pairs)} cells against the corrected ones: IoU {mean_with_interval(pairs[:, 0])}, "
        f"offset {mean_with_interval(pairs[:, 1])} px, absolute {pairs[:, 2].mean():.2f} px"
    )


if __name__ == "__main__":
    run_command(main)
