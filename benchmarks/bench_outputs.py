"""How long measuring and writing take, per image of 1600x1200 with 300 cells, against the usual ways.

    python benchmarks/bench_outputs.py

The usual ways: scikit-image's regionprops_table on a label image with the same properties; pycocotools on masks of the
image's size. Each time is CPU time, the least of four runs.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 before it is imported

import cv2  # isort: skip
import numpy as np
from bench_conversion import best_time
from pycocotools import mask as coco_mask
from skimage.measure import regionprops_table
from tabulate import tabulate

from bccd_d2.inference.measurements import measure_cells
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import FORMATS, write_formats
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH, CELLS = 1200, 1600, 300
PROPERTIES = (
    *("centroid", "area", "equivalent_diameter_area", "perimeter_crofton", "eccentricity", "solidity"),
    *("intensity_mean", "intensity_std"),
)


def drawn() -> ImageResult:
    """A grid of ellipses of every direction on noise."""
    rng = np.random.default_rng(0)
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for index in range(CELLS):
        middle = (40 + 80 * (index % 20), 40 + 80 * (index // 20))
        axes = (int(rng.integers(25, 38)), int(rng.integers(25, 38)))
        cv2.ellipse(labels, middle, axes, float(rng.uniform(0, 180)), 0, 360, index + 1, cv2.FILLED)
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    cells = Cells.from_label_image(labels, {index + 1: index % 3 for index in range(CELLS)})
    return ImageResult("smear.png", ArraySource(image), cells, ["RBC", "WBC", "Platelet"])


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    result = drawn()
    cells, image = result.cells, result.source.read(0, 0, WIDTH, HEIGHT)
    labels = cells.label_image()
    masks = list(cells.full_masks())
    pairs = [
        (
            "measurements",
            best_time(lambda: measure_cells(result.source, cells, result.class_names)),
            best_time(lambda: regionprops_table(labels, image, properties=PROPERTIES)),
        ),
        (
            "run-length codes",
            best_time(cells.rles),
            best_time(lambda: [coco_mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]),
        ),
    ]
    rows = [[name, f"{ours:.3f}", f"{usual:.3f}", f"{usual / ours:.1f}"] for name, ours, usual in pairs]
    print(tabulate(rows, headers=["", "here (s)", "usual way (s)", "ratio"], tablefmt="pipe"))
    _ = result.measurements  # so that the formats below are timed without it
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            [key, f"{best_time(partial(write_formats, result, Path(folder), [key])):.3f}"] for key in FORMATS
        ]
    print("\n" + tabulate(rows, headers=["format", "writing (s)"], tablefmt="pipe"))


if __name__ == "__main__":
    main()
