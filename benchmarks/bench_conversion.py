"""How fast masks become instances, against decoding the mask alone and against the usual loop, in one run.

    python benchmarks/bench_conversion.py --root FOLDER_OF_THE_PAIRS [--images 20] [--workers 2]

"usual loop" is one full-frame comparison and one encoding a label; "within boxes" crops to each label's box first. All
on one core, the least processor time of several rounds an image, then the means. Without --root, smears are
drawn first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.convert_image import ImageConverter
from bccd_d2.conversion.pairs import ImageMaskPair, find_pairs
from bccd_d2.conversion.splits import SplitPlan
from bccd_d2.io.masks import read_mask
from bccd_d2.parallel import map_in_order
from bccd_d2.segmentation.instances import label_instances
from bccd_d2.structures.rle import EncodedInstance, encode_labels
from bccd_d2.synthetic import SyntheticSet, write_synthetic_set

ROUNDS = 4
MIN_AREA = 100
MANY = 300


def usual_loop(mask: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Label, then compare and encode the whole frame for each label."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    annotations = []
    for label in range(1, count):
        inside = (labels == label).astype(np.uint8)
        code = coco_mask.encode(np.asfortranarray(inside))
        if coco_mask.area(code) >= MIN_AREA:
            annotations.append({**code, "bbox": coco_mask.toBbox(code).tolist()})
    return annotations


def cropped(mask: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Label, then encode each label within its box; to be codes of the frame they would still need moving."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    annotations = []
    for label in range(1, count):
        x, y, width, height, area = stats[label].tolist()
        if area >= MIN_AREA:
            inside = labels[y : y + height, x : x + width] == label
            annotations.append(coco_mask.encode(np.asfortranarray(inside.astype(np.uint8))))
    return annotations


def ours(mask: NDArray[np.uint8]) -> list[EncodedInstance]:
    """Label, then encode all labels at once."""
    return encode_labels(label_instances(mask).labels)


def decode(path: Path) -> NDArray:
    """Decode the mask and do nothing with it."""
    with Image.open(path) as image:
        return np.asarray(image)


def best_time(function: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Least processor time of several rounds, in seconds: what else runs on the machine only ever adds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def check_identity(pair: ImageMaskPair, mask: NDArray[np.uint8]) -> None:
    """Raise unless our codes are those of the usual loop."""
    codes = sorted(instance.segmentation["counts"] for instance in ours(mask))
    if codes != sorted(code["counts"].decode() for code in usual_loop(mask)):
        raise AssertionError(f"{pair.mask}: other run-length codes than the usual loop")


def one_core(root: Path, pairs: list[ImageMaskPair]) -> None:
    """Print the table of times an image."""
    converter = ImageConverter(root)
    measured: dict[str, list[float]] = {}
    for pair in tqdm(pairs, unit="image", disable=None):
        mask = read_mask(pair.mask).astype(np.uint8, copy=False)
        check_identity(pair, mask)
        work: dict[str, Callable[[], Any]] = {
            "decode the mask, nothing else": partial(decode, pair.mask),
            "image and mask file to annotations (ours)": partial(converter, (1, pair, False)),
            "decoded mask to annotations: ours": partial(ours, mask),
            "decoded mask to annotations: within boxes": partial(cropped, mask),
            "decoded mask to annotations: usual loop": partial(usual_loop, mask),
        }
        for name, function in work.items():
            measured.setdefault(name, []).append(best_time(function))
    mean = {name: float(np.mean(times)) for name, times in measured.items()}
    decoding, loop = next(iter(mean.values())), list(mean.values())[-1]
    print(f"{len(pairs)} images, one core, run-length codes identical to the usual loop's")
    rows = [[name, 1000 * seconds, seconds / decoding, loop / seconds] for name, seconds in mean.items()]
    head = ["what", "ms per image", "relative to decoding", "usual loop relative to it"]
    print(tabulate(rows, head, tablefmt="pipe", floatfmt=".2f"))


def many_cores(root: Path, pairs: list[ImageMaskPair], most: int) -> None:
    """Print images a second for 1, 2, 4, ... processes that have started, over enough images to tell."""
    numbered = [(n, pair, False) for n, pair in enumerate(pairs * max(1, -(-MANY // len(pairs))))]
    for workers in [w for w in (1, 2, 4, 8, 16) if w <= most]:
        results = map_in_order(ImageConverter(root), numbered, workers)
        for _ in range(4 * workers):
            next(results)
        start = time.perf_counter()
        count = sum(1 for _ in results)
        print(f"{workers} processes: {count / (time.perf_counter() - start):.1f} images a second")


def memory(root: Path, pairs: list[ImageMaskPair]) -> None:
    """Print the peak of memory that Python holds for few and for many images."""
    peaks = []
    for count in (len(pairs) // 4, len(pairs)):
        with tempfile.TemporaryDirectory() as out:
            tracemalloc.start()
            convert_dataset(root, Path(out) / "out", ConversionOptions(split=SplitPlan(max_images=count)))
            peaks.append((count, tracemalloc.get_traced_memory()[1] / 2**20))
            tracemalloc.stop()
    print("peak memory: " + ", ".join(f"{peak:.1f} MiB for {count} images" for count, peak in peaks))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of image/mask pairs (default: synthetic smears)")
    parser.add_argument("--images", type=int, default=20, help="how many of them for the times (default 20)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as drawn:
        root = args.root
        if root is None:
            root = Path(drawn)
            print("drawing smears ...", file=sys.stderr)
            write_synthetic_set(root, SyntheticSet(images=args.images))
        pairs = find_pairs(root)
        one_core(root, pairs[: args.images])
        many_cores(root, pairs, args.workers)
        memory(root, pairs)
    return 0


if __name__ == "__main__":
    run_command(main)
