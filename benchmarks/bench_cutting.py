"""Does cutting touching cells help? Precision and recall of the cuts against hand-made boxes (BBBC041).

    python benchmarks/bench_cutting.py --root FOLDER_OF_THE_PAIRS [--boxes bbbc041_boxes.json]

Without --root the folder is that of BCCD_ROOT; drawn smears would be no evidence.

A box belongs to the component that covers most of it, and at least 40 % of it. A component with two boxes or more
holds several cells, one with one box holds one; those without a box (mostly at the border) are not judged. A cut is
right if its component holds several cells. "found" is the share of boxes that have a piece of their own, with an
intersection over union of box and the piece's box of at least 0.5.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from bccd_d2.conversion.instances import CutRule, cut_touching, label_instances
from bccd_d2.conversion.layout import find_pairs
from bccd_d2.errors import run_command
from bccd_d2.io.masks import read_mask

COVERED = 0.4
IOU = 0.5
BOXES = "bbbc041_boxes.json"
RULES = [
    *(CutRule("h-maxima", distance) for distance in (0.005, 0.01, 0.02, 0.05, 0.1)),
    *(CutRule("min-distance", distance) for distance in (0.2, 0.3, 0.4, 0.6)),
]
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, the last two exclusive."""


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Boxes by image stem of a BBBC041 JSON."""
    boxes: dict[str, list[Box]] = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        found = [(o["bounding_box"]["minimum"], o["bounding_box"]["maximum"]) for o in entry["objects"]]
        stem = Path(entry["image"]["pathname"]).stem
        boxes[stem] = [(low["c"], low["r"], high["c"], high["r"]) for low, high in found]
    return boxes


def boxes_by_component(labels: NDArray[np.int32], boxes: Sequence[Box]) -> dict[int, list[Box]]:
    """Boxes of each component that has any."""
    owned: dict[int, list[Box]] = {}
    for x0, y0, x1, y1 in boxes:
        inside = labels[y0:y1, x0:x1]
        counts = np.bincount(inside[inside > 0], minlength=1)
        if counts.max() >= COVERED * inside.size > 0:
            owned.setdefault(int(counts.argmax()), []).append((x0, y0, x1, y1))
    return owned


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def found_boxes(pieces: Sequence[Box], boxes: Sequence[Box]) -> int:
    """How many boxes have a piece of their own."""
    free = list(pieces)
    found = 0
    for box in boxes:
        best = max(free, key=lambda piece: box_iou(piece, box), default=None)
        if best is not None and box_iou(best, box) >= IOU:
            free.remove(best)
            found += 1
    return found


def judge(labels: NDArray[np.int32], cut: NDArray[np.int32], boxes: Sequence[Box]) -> Counter[str]:
    """Counts for one image, before and after cutting."""
    counts: Counter[str] = Counter()
    slices = find_objects(cut)
    for component, owned in boxes_by_component(labels, boxes).items():
        pieces = [
            (slices[p - 1][1].start, slices[p - 1][0].start, slices[p - 1][1].stop, slices[p - 1][0].stop)
            for p in np.unique(cut[labels == component])
        ]
        several = len(owned) > 1
        counts["several" if several else "one"] += 1
        if len(pieces) > 1:
            counts["right cuts" if several else "wrong cuts"] += 1
            counts["right number"] += len(pieces) == len(owned)
        counts["boxes"] += len(owned)
        counts["boxes found"] += found_boxes(pieces, owned)
        if several:
            counts["boxes in several"] += len(owned)
            counts["boxes in several found"] += found_boxes(pieces, owned)
    return counts


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of the image/mask pairs (default: $BCCD_ROOT)")
    parser.add_argument("--boxes", type=Path, help="BBBC041 JSON (default: bbbc041_boxes.json in --root)")
    args = parser.parse_args()
    root = args.root or Path(os.environ.get("BCCD_ROOT", ""))
    file = args.boxes or next(
        (p for p in (root / BOXES, root / "bccd_with_mask" / BOXES) if p.is_file()), None
    )
    if file is None:
        print("not measured: this needs real pairs with boxes; --root or BCCD_ROOT says where they are")
        return 0
    boxes = read_boxes(file)
    pairs = [pair for pair in find_pairs(args.root or file.parent) if pair.stem in boxes]
    totals: dict[CutRule | None, Counter[str]] = {rule: Counter() for rule in [None, *RULES]}
    for pair in tqdm(pairs, unit="image", disable=None):
        labels = label_instances(read_mask(pair.mask).array).labels
        median = float(np.median(np.bincount(labels.ravel())[1:]))
        for rule, total in totals.items():
            total += judge(
                labels, labels if rule is None else cut_touching(labels, rule, median)[0], boxes[pair.stem]
            )
    none = totals[None]
    print(
        f"{len(pairs)} images, {none['one'] + none['several']} components with a box, "
        f"{none['several']} of them with several ({none['boxes in several']} boxes)"
    )
    print("| rule | cuts | precision | recall | right number | boxes found | of those in several |")
    print("|---|---|---|---|---|---|---|")
    for rule, t in totals.items():
        cuts = t["right cuts"] + t["wrong cuts"]
        name = "none" if rule is None else f"{rule.method} {rule.distance}"
        precision = f"{t['right cuts'] / cuts:.3f}" if cuts else "-"
        right = f"{t['right number'] / cuts:.3f}" if cuts else "-"
        print(
            f"| {name} | {cuts} | {precision} | {t['right cuts'] / t['several']:.3f} | {right} "
            f"| {t['boxes found'] / t['boxes']:.4f} | {t['boxes in several found'] / t['boxes in several']:.3f} |"
        )
    return 0


if __name__ == "__main__":
    run_command(main)
