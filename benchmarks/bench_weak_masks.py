"""How far masks guessed from boxes are from masks drawn by hand.

    python benchmarks/bench_weak_masks.py --voc BCCD_VOC [--root FOLDER_OF_THE_PAIRS --boxes bbbc041_boxes.json]

White cells: the boxes of the BCCD detection set against masks in its folder wbc_masks. Red cells: the boxes of BBBC041
against the masks of every fifth pair, where box and component belong to each other alone. The settings of the guess
were chosen on every second image of the first and the first six of the second, which are therefore shown apart. For
comparison: the whole box, and the ellipse inscribed in it, its axes shrunken to 0.9.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.conversion.box_files import Bbbc041Boxes, read_voc
from bccd_d2.conversion.box_matching import inscribed_ellipse, match_boxes
from bccd_d2.conversion.boxes import fit_boxes
from bccd_d2.conversion.instances import label_instances
from bccd_d2.conversion.layout import ImageRecord, find_pairs
from bccd_d2.conversion.weak_masks import guess_masks
from bccd_d2.errors import run_command
from bccd_d2.io.images import read_image
from bccd_d2.io.masks import MaskRule, read_mask

Mask = NDArray[np.bool_]
ELLIPSE = 0.9
CHOSEN_ON_PAIRS = 6


class Sample(NamedTuple):
    """An image, its boxes (n, 4), and the drawn mask by box for those that have one."""

    chosen_on: bool
    image: NDArray[np.uint8]
    corners: NDArray[np.int64]
    drawn: dict[int, Mask]


def white_cells(root: Path) -> Iterator[Sample]:
    """Images of the VOC set that have a mask of their white cells."""
    for index, path in enumerate(
        tqdm(sorted((root / "wbc_masks").glob("*.png")), unit="image", disable=None)
    ):
        image = read_image(root / "JPEGImages" / f"{path.stem}.jpg", "RGB")
        height, width = image.shape[:2]
        record = ImageRecord(0, path.stem, path.name, path, height, width)
        boxes = fit_boxes(read_voc(root / "Annotations" / f"{path.stem}.xml"), record).boxes
        labels = label_instances(read_mask(path, MaskRule(threshold=127)).array).labels
        white = boxes.only(np.array([name == "WBC" for name in boxes.names], bool))
        numbers = np.flatnonzero([name == "WBC" for name in boxes.names])
        match = match_boxes(labels, white)
        drawn = {
            int(numbers[claims[0]]): labels == c
            for c, claims in match.by_component.items()
            if len(claims) == 1
        }
        yield Sample(index % 2 == 0, image, boxes.corners, drawn)


def red_cells(root: Path, file: Path) -> Iterator[Sample]:
    """Every fifth pair."""
    boxes_of = Bbbc041Boxes.read(file)
    for index, pair in enumerate(tqdm(find_pairs(root)[::5], unit="image", disable=None)):
        labels = label_instances(read_mask(pair.mask).array).labels
        record = ImageRecord(0, pair.stem, pair.image.name, pair.image, *labels.shape)
        found = boxes_of.find(record)
        if found is not None:
            boxes = fit_boxes(found, record).boxes
            match = match_boxes(labels, boxes)
            alone = {c: claims[0] for c, claims in match.by_component.items() if match.is_one_cell(c)}
            drawn = {box: labels == c for c, box in alone.items() if match.inside[box] > 0.95}
            yield Sample(index < CHOSEN_ON_PAIRS, read_image(pair.image, "RGB"), boxes.corners, drawn)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))


def compare(sample: Sample, overlaps: dict[tuple[str, bool], list[float]]) -> int:
    """Add the overlaps of one image; returns for how many of its drawn cells no mask was found."""
    guessed = guess_masks(sample.image, sample.corners)
    for box, drawn in sample.drawn.items():
        x0, y0, x1, y1 = sample.corners[box].tolist()
        whole, ellipse = np.zeros_like(drawn), np.zeros_like(drawn)
        whole[y0:y1, x0:x1] = True
        height, width = round(ELLIPSE * (y1 - y0)), round(ELLIPSE * (x1 - x0))
        top, left = (y0 + y1 - height) // 2, (x0 + x1 - width) // 2
        ellipse[top : top + height, left : left + width] = inscribed_ellipse(height, width)
        for name, mask in (("box", whole), ("ellipse", ellipse), ("weak mask", guessed.labels == box + 1)):
            overlaps[name, sample.chosen_on].append(iou(mask, drawn))
    return len(set(guessed.failed) & set(sample.drawn))


def report(title: str, samples: Iterator[Sample]) -> None:
    """Print the table of one set."""
    overlaps: dict[tuple[str, bool], list[float]] = defaultdict(list)
    failed = sum(compare(sample, overlaps) for sample in samples)
    print(f"\n{title}; no mask found for {failed}\n")
    print(
        "| images | masks | cells | mean IoU | median | 10th percentile | below 0.5 |\n|---|---|---|---|---|---|---|"
    )
    for (name, chosen_on), values in sorted(overlaps.items(), key=lambda item: item[0][::-1]):
        array = np.array(values)
        images = "settings chosen on" if chosen_on else "others"
        print(
            f"| {images} | {name} | {array.size} | {array.mean():.3f} | {np.median(array):.3f} | "
            f"{np.percentile(array, 10):.3f} | {(array < 0.5).mean():.3f} |"
        )


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--voc", type=Path, required=True, help="folder of the BCCD detection set, with wbc_masks/"
    )
    parser.add_argument("--root", type=Path, help="folder of the image/mask pairs")
    parser.add_argument("--boxes", type=Path, help="BBBC041 JSON for them")
    args = parser.parse_args()
    if (args.root is None) != (args.boxes is None):
        parser.error("--root and --boxes go together")
    cv2.setNumThreads(1)
    report("White cells", white_cells(args.voc))
    if args.root is not None:
        report("Red cells", red_cells(args.root, args.boxes))
    return 0


if __name__ == "__main__":
    run_command(main)
