"""How hand-made boxes and mask components fit together, and how to cut a component that boxes share.

    python benchmarks/bench_classes.py --root FOLDER_OF_THE_PAIRS --boxes bbbc041_boxes.json

First table: what became of the boxes, by category. Second: what became of the components. Third: pairs of neighbouring
cells, each with a box and a mask of its own, are welded by a closing of 7 pixels and cut apart again; the pieces are
compared with the masks before. What is really merged in a mask has no truth to compare with; welded cells touch, but
overlap less. Fourth: of the components that really are shared, how well the bounding box of a piece agrees with the box
it was cut for, which is no proof, as the cut saw the box, but shows cuts that went astray.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.conversion.box_files import Bbbc041Boxes
from bccd_d2.conversion.box_matching import CUT_METHODS, BoxMatch, cut_by_boxes, match_boxes
from bccd_d2.conversion.boxes import ImageBoxes, fit_boxes
from bccd_d2.conversion.instances import label_instances
from bccd_d2.conversion.layout import ImageRecord, find_pairs
from bccd_d2.errors import run_command
from bccd_d2.io.masks import read_mask

WELD = 7
MARGIN = 9
Mask = NDArray[np.bool_]


def count_boxes(match: BoxMatch, boxes: ImageBoxes, counts: Counter[tuple[str, str]]) -> None:
    """Add the boxes of one image by category and fate."""
    for category, component in zip(boxes.names, match.claimed.tolist()):
        fate = "missing"
        if component:
            several = len(match.by_component[component]) > 1
            fate = "shared" if several else "own" if match.is_one_cell(component) else "reaches out"
        counts[category, "boxes"] += 1
        counts[category, fate] += 1


def count_components(labels: NDArray[np.int32], match: BoxMatch, counts: Counter[str]) -> None:
    """Add the components of one image by number of boxes."""
    edge = set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])).tolist())
    for component in range(1, int(labels.max()) + 1):
        if component in match.by_component:
            number = len(match.by_component[component])
            counts[f"{number} boxes" if number > 1 else "1 box"] += 1
            counts["1 box, reaching out of it"] += number == 1 and not match.is_one_cell(component)
        elif component in match.pieces:
            counts["inside a box that has its cell"] += 1
        else:
            counts["no box"] += 1
            counts["no box, at the border"] += component in edge


def weld_neighbours(
    labels: NDArray[np.int32], match: BoxMatch, boxes: ImageBoxes
) -> Iterator[tuple[Mask, NDArray[np.int64], Mask, Mask]]:
    """Welded component, the two boxes in its frame, and the two masks, for each pair of close neighbours."""
    alone = [
        (component, claims[0])
        for component, claims in match.by_component.items()
        if len(claims) == 1 and match.inside[claims[0]] > 0.95
    ]
    for (first, box), (second, other) in combinations(alone, 2):
        corners = boxes.corners[[box, other]]
        if (np.minimum(*corners[:, 2:]) - np.maximum(*corners[:, :2]) < 5).any():
            continue
        x0, y0 = np.maximum(np.min(corners[:, :2], axis=0) - MARGIN, 0)
        x1, y1 = np.max(corners[:, 2:], axis=0) + MARGIN
        window = np.pad(labels[y0:y1, x0:x1], MARGIN)
        masks = window == first, window == second
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WELD, WELD))
        welded = cv2.morphologyEx((masks[0] | masks[1]).view(np.uint8), cv2.MORPH_CLOSE, kernel)
        if cv2.connectedComponents(welded)[0] == 2:
            shift = [x0 - MARGIN, y0 - MARGIN] * 2
            yield welded > 0, corners - shift, *masks


def piece_overlaps(
    labels: NDArray[np.int32], match: BoxMatch, boxes: ImageBoxes, method: str | None
) -> list[float]:
    """Intersection over union of each box of a shared component with the bounding box of its piece."""
    found = []
    for component, claims in match.by_component.items():
        if len(claims) < 2:
            continue
        inside = np.asarray(labels == component)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        y0, x0 = rows[0], columns[0]
        inside = inside[y0 : rows[-1] + 1, x0 : columns[-1] + 1]
        corners = boxes.corners[claims] - [x0, y0, x0, y0]
        pieces = np.ones_like(inside, int) if method is None else cut_by_boxes(inside, corners, method)
        for number, box in enumerate(corners, start=1):
            rows, columns = np.nonzero(inside & (pieces == (1 if method is None else number)))
            found.append(box_iou(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))
    return found


def box_iou(a: Sequence[int] | NDArray, b: Sequence[int] | NDArray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))


def print_overlaps(overlaps: dict[str, list[float]]) -> None:
    """Print a line for each way to cut."""
    print("| cut | number | mean IoU | median | below 0.8 | below 0.5 |\n|---|---|---|---|---|---|")
    for name, values in overlaps.items():
        array = np.array(values)
        print(
            f"| {name} | {array.size} | {array.mean():.3f} | {np.median(array):.3f} | {(array < 0.8).mean():.3f} | "
            f"{(array < 0.5).mean():.3f} |"
        )


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the image/mask pairs")
    parser.add_argument("--boxes", type=Path, required=True, help="BBBC041 JSON")
    args = parser.parse_args()
    file = Bbbc041Boxes.read(args.boxes)
    by_category: Counter[tuple[str, str]] = Counter()
    components: Counter[str] = Counter()
    overlaps: dict[str, list[float]] = {"not cut": [], **{method: [] for method in CUT_METHODS}}
    agreement: dict[str, list[float]] = {name: [] for name in overlaps}
    for pair in tqdm(find_pairs(args.root), unit="image", disable=None):
        labels = label_instances(read_mask(pair.mask).array).labels
        record = ImageRecord(0, pair.stem, pair.image.name, pair.image, *labels.shape)
        found = file.find(record)
        if found is None:
            print(f"{pair.stem}: no boxes")
            continue
        boxes = fit_boxes(found, record).boxes
        match = match_boxes(labels, boxes)
        count_boxes(match, boxes, by_category)
        count_components(labels, match, components)
        for name in agreement:
            method = None if name == "not cut" else name
            agreement[name] += piece_overlaps(labels, match, boxes, method)
        for welded, corners, *masks in weld_neighbours(labels, match, boxes):
            overlaps["not cut"] += [iou(welded, mask) for mask in masks]
            for method in CUT_METHODS:
                pieces = cut_by_boxes(welded, corners, method)
                overlaps[method] += [iou(pieces == k, mask) for k, mask in enumerate(masks, start=1)]
    fates = ("boxes", "own", "shared", "reaches out", "missing")
    print(
        "| category | boxes | component of their own | share a component | component reaches out | no component |"
    )
    print("|---|---|---|---|---|---|")
    for category in [*sorted({name for name, _ in by_category}), "all"]:
        row = [
            sum(n for (name, f), n in by_category.items() if f == fate and category in (name, "all"))
            for fate in fates
        ]
        print(f"| {category} | {' | '.join(map(str, row))} |")
    print("\n| components with | |\n|---|---|")
    for name, number in sorted(components.items()):
        print(f"| {name} | {number} |")
    print(f"\n{len(overlaps['not cut']) // 2} welded pairs: pieces and masks\n")
    print_overlaps(overlaps)
    print("\nshared components: boxes and bounding boxes of pieces\n")
    print_overlaps(agreement)
    return 0


if __name__ == "__main__":
    run_command(main)
