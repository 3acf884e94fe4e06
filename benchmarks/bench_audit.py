"""How far the audit's findings can be trusted, and what they cost.

    python benchmarks/bench_audit.py --root FOLDER_OF_THE_PAIRS --boxes bbbc041_boxes.json

1. Outlines with several cells: components with two annotated boxes or more against rules on area and shape. A box
   belongs to the component that covers most of it, and at least 40 % of it. Components without a box, mostly at the
   border, are not counted.
2. Cells without an outline: a share of the outlines is erased at random, and the search must find the erased cells.
   "elsewhere" counts regions that are on no erased cell: at share 0 those are real omissions and mistakes.
3. Masks that do not fit: separation of each image with its own mask and with that of another image.
4. CPU time of one image, against decoding its two files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.audit.image_statistics import colour_statistics, instance_shapes
from bccd_d2.audit.issues import MERGED_AREA, MERGED_DISC
from bccd_d2.audit.measure import measure_pair
from bccd_d2.conversion.dataset_spec import DatasetSpec, ImageMaskPair, find_pairs
from bccd_d2.conversion.instances import label_instances
from bccd_d2.conversion.unlabelled import find_unlabelled
from bccd_d2.errors import run_command
from bccd_d2.io.images import read_image
from bccd_d2.io.masks import read_mask

ERASED = (0.0, 0.1, 0.3, 0.6)
FOUND = 0.5
"""An erased cell is found if regions cover this share of it."""
ON_A_CELL = 0.2


COVERED = 0.4
"""A box belongs to the component that covers this share of it."""
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


def merged_table(pairs: Sequence[ImageMaskPair], boxes_file: Path) -> None:
    """Precision and recall of rules for outlines with several cells."""
    boxes = read_boxes(boxes_file)
    rows = []
    for pair in tqdm(pairs, "merged", unit="image", disable=None):
        labels = _labels(pair)
        shapes = instance_shapes(labels)
        typical = np.median(shapes.areas[~shapes.border])
        owned = boxes_by_component(labels, boxes[pair.stem])
        for label, area, solidity, disc in zip(
            shapes.labels, shapes.areas, shapes.solidities, shapes.disc_shares
        ):
            rows.append((area / typical, solidity, disc, len(owned.get(int(label), ()))))
    times, solidity, disc, owned_boxes = np.array(rows).T
    several, with_box = owned_boxes >= 2, owned_boxes >= 1
    print(f"\n{len(rows)} components, {with_box.sum()} with a box, {several.sum()} with two or more\n")
    print("| rule | marked | precision | recall |\n|---|---:|---:|---:|")
    rules = {f"area > {least} median": times > least for least in (1.3, 1.5, 1.8)}
    rules |= {
        f"area > {least}, solidity < {most}": (times > least) & (solidity < most)
        for least in (1.3, 1.5)
        for most in (0.92, 0.94, 0.96)
    }
    rules |= {
        f"area > {MERGED_AREA}, disc < {most}": (times > MERGED_AREA) & (disc < most)
        for most in (0.6, MERGED_DISC, 0.7)
    }
    for name, marked in rules.items():
        precision = (marked & several).sum() / max(1, (marked & with_box).sum())
        print(
            f"| {name} | {marked.sum()} | {precision:.2f} | {(marked & several).sum() / several.sum():.2f} |"
        )


def unlabelled_table(pairs: Sequence[ImageMaskPair]) -> None:
    """Recall of erased cells."""
    print(
        "\n| erased | cells | found inside | found at the border | regions elsewhere |\n|---:|---:|---:|---:|---:|"
    )
    for share in ERASED:
        found, total, elsewhere = np.zeros(2), np.zeros(2), 0
        for number, pair in enumerate(tqdm(pairs, f"erase {share:.0%}", unit="image", disable=None)):
            image, labels = read_image(pair.image, "RGB"), _labels(pair)
            shapes = instance_shapes(labels)
            erased = np.random.default_rng(number).random(labels.max() + 1) < share
            erased[0] = False
            regions = find_unlabelled(image, np.where(erased[labels], 0, labels))
            covered = np.bincount(labels[regions > 0], minlength=len(erased)) / np.bincount(labels.ravel())
            for label, border in zip(shapes.labels, shapes.border):
                total[int(border)] += erased[label]
                found[int(border)] += erased[label] and covered[label] > FOUND
            sizes = np.bincount(regions.ravel())[1:]
            on_cells = np.bincount(regions[erased[labels]], minlength=len(sizes) + 1)[1:]
            elsewhere += int((on_cells < ON_A_CELL * sizes).sum())
        inner, border = (f"{100 * f / t:.1f} %" if t else "" for f, t in zip(found, total))
        print(f"| {share:.0%} | {int(total.sum())} | {inner} | {border} | {elsewhere} |")


def fit_table(pairs: Sequence[ImageMaskPair]) -> None:
    """Separation with the right mask and with a wrong one."""
    labels = [_labels(pair) for pair in pairs]
    own, other = [], []
    for number, pair in enumerate(tqdm(pairs, "fit", unit="image", disable=None)):
        image, wrong = read_image(pair.image, "RGB"), labels[(number + 7) % len(pairs)]
        nothing = np.zeros_like(labels[number])
        own.append(colour_statistics(image, labels[number], nothing).separation)
        if wrong.shape == nothing.shape:
            other.append(colour_statistics(image, wrong, nothing).separation)
    print("\n| mask | images | lowest | median | highest |\n|---|---:|---:|---:|---:|")
    for name, values in (("its own", own), ("of another image", other)):
        low, middle, high = np.quantile(values, (0, 0.5, 1))
        print(f"| {name} | {len(values)} | {low:.2f} | {middle:.2f} | {high:.2f} |")


def time_table(pairs: Sequence[ImageMaskPair], root: Path) -> None:
    """CPU time of measuring an image, and of decoding alone."""
    cv2.setNumThreads(1)
    chosen = pairs[:: max(1, len(pairs) // 20)]
    measure_pair(chosen[0], root, DatasetSpec())  # once for nothing, to have everything loaded
    start = time.process_time()
    for pair in chosen:
        read_image(pair.image, "RGB")
        read_mask(pair.mask)
    decoded = time.process_time()
    for pair in chosen:
        measure_pair(pair, root, DatasetSpec())
    measured = time.process_time()
    decode, measure = (decoded - start) / len(chosen), (measured - decoded) / len(chosen)
    print(
        f"\nCPU time an image: decode {decode:.3f} s, measure {measure:.3f} s, {measure / decode:.1f} times decoding"
    )


def _labels(pair: ImageMaskPair) -> NDArray[np.int32]:
    return np.ascontiguousarray(label_instances(read_mask(pair.mask).array).labels)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the pairs")
    parser.add_argument("--boxes", type=Path, required=True, help="their boxes in the format of BBBC041")
    args = parser.parse_args(arguments)
    pairs = find_pairs(args.root)
    merged_table(pairs, args.boxes)
    unlabelled_table(pairs)
    fit_table(pairs)
    time_table(pairs, args.root)
    return 0


if __name__ == "__main__":
    run_command(main)
