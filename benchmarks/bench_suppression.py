"""CPU time of suppression, against torchvision's hard NMS of the same boxes and against masks as whole frames.

1000 boxes are detections of synthetic cells in an image of 1600x1200, each cell found several times a few pixels off;
300 masks are what a model outputs there: a disc for each box. Rates are times of torchvision's NMS on those boxes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from tabulate import tabulate
from torchvision.ops import nms

from bccd_d2.modeling.suppression import BoxSuppression, MaskSuppression
from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH = 1200, 1600
DIAMETERS = (70, 130)
THRESHOLD = 0.5


def draw_detections(boxes: int, cells: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (N, 4) xyxy around ``cells`` places on a shaken grid, as cells lie beside each other, and scores (N,)."""
    generator = np.random.default_rng(seed)
    owner = generator.integers(cells, size=boxes)
    columns = int(np.ceil(np.sqrt(cells * WIDTH / HEIGHT)))
    pitch = np.array([WIDTH / columns, HEIGHT / np.ceil(cells / columns)])
    grid = np.stack([np.arange(cells) % columns, np.arange(cells) // columns], axis=1)
    places = ((grid + generator.uniform(0.2, 0.8, (cells, 2))) * pitch)[owner]
    sides = generator.uniform(*DIAMETERS, cells)[owner]
    centres = places + generator.normal(0, 0.08, (boxes, 2)) * sides[:, None]
    half = 0.5 * sides[:, None] * generator.uniform(0.9, 1.1, (boxes, 2))
    corners = np.concatenate([centres - half, centres + half], axis=1)
    return np.clip(corners, 0, [WIDTH, HEIGHT] * 2), generator.uniform(0.05, 1, boxes)


def discs(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> Cells:
    """An ellipse in each box."""
    masks, origins = [], []
    for x0, y0, x1, y1 in boxes.round().astype(int):
        rows, columns = np.mgrid[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] + 0.5
        centre_y, centre_x = (y0 + y1) / 2, (x0 + x1) / 2
        radius_y, radius_x = max(y1 - y0, 1) / 2, max(x1 - x0, 1) / 2
        masks.append(((columns - centre_x) / radius_x) ** 2 + ((rows - centre_y) / radius_y) ** 2 <= 1)
        origins.append((int(x0), int(y0)))
    return Cells.from_masks(HEIGHT, WIDTH, masks, origins=origins, scores=scores)


def soft_nms_plainly(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> list[int]:
    """Gaussian Soft-NMS as its paper's loop, each box against all that are left."""
    left, areas = scores.copy(), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while left.max() > 0:
        best = int(left.argmax())
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[:, 2:]) - np.maximum(boxes[best, :2], boxes[:, :2])
        shared = np.prod(np.clip(sides, 0, None), axis=1)
        iou = shared / np.maximum(areas[best] + areas - shared, 1e-9)
        left *= np.exp(-(iou**2) / 0.5)
        left[best] = -1
    return kept


def greedy(ious: NDArray[Any], scores: NDArray[np.float64]) -> list[int]:
    """What is kept, by all pairs of IoU."""
    kept: list[int] = []
    for index in np.argsort(-scores):
        if not kept or ious[index, kept].max() <= THRESHOLD:
            kept.append(int(index))
    return kept


def by_whole_frames(frames: torch.Tensor, scores: NDArray[np.float64]) -> list[int]:
    """Mask NMS on (N, H, W) masks by one product of matrices."""
    flat = frames.flatten(1).float()
    shared, areas = flat @ flat.T, flat.sum(1)
    return greedy((shared / (areas[:, None] + areas - shared)).numpy(), scores)


def by_rle(cells: Cells) -> list[int]:
    """Mask NMS on COCO RLE of the image's size, encoding included."""
    rles = cells.rles()
    return greedy(coco_mask.iou(rles, rles, [0] * len(rles)), cells.scores)


def best_time(function: Callable[[], Any], repeats: int) -> float:
    """Shortest of ``repeats`` timings in seconds of CPU time, which other processes disturb least; one goes untimed."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Time every kind and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--masks", type=int, default=300, help="(default 300)")
    parser.add_argument("--cells", type=int, default=120, help="true cells in the image (default 120)")
    parser.add_argument("--repeats", type=int, default=20, help="the best of so many (default 20)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    boxes, scores = draw_detections(options.boxes, options.cells)
    classes = np.arange(len(boxes)) % 3
    found = discs(*draw_detections(options.masks, options.cells, seed=1))
    frames = torch.from_numpy(np.stack([found.full_mask(k) for k in range(len(found))]))
    as_tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    of_masks = torch.from_numpy(found.boxes), torch.from_numpy(found.scores)

    def suppressed(**changes: Any) -> Callable[[], Any]:
        return lambda: BoxSuppression(iou_threshold=THRESHOLD, **changes)(boxes, scores, classes)

    boxes_name, masks_name = f"{len(boxes)} boxes", f"{len(found)} masks"
    cases: list[tuple[str, str, Callable[[], Any]]] = [
        (boxes_name, "torchvision hard NMS", lambda: nms(*as_tensors, THRESHOLD)),
        (boxes_name, "bccd_d2 hard, class-agnostic", suppressed(class_agnostic=True)),
        (
            boxes_name,
            "bccd_d2 soft_linear, class-agnostic",
            suppressed(kind="soft_linear", class_agnostic=True),
        ),
        (
            boxes_name,
            "bccd_d2 soft_gaussian, class-agnostic",
            suppressed(kind="soft_gaussian", class_agnostic=True),
        ),
        (boxes_name, "bccd_d2 soft_gaussian, 3 classes", suppressed(kind="soft_gaussian")),
        (boxes_name, "Gaussian Soft-NMS, plain NumPy loop", lambda: soft_nms_plainly(boxes, scores)),
        (masks_name, "torchvision hard NMS of their boxes", lambda: nms(*of_masks, THRESHOLD)),
        (masks_name, "bccd_d2 mask NMS, iou", lambda: MaskSuppression("iou", THRESHOLD)(found)),
        (
            masks_name,
            "bccd_d2 mask NMS, containment",
            lambda: MaskSuppression("containment", THRESHOLD)(found),
        ),
        (masks_name, "mask NMS by pycocotools' RLE", lambda: by_rle(found)),
        (masks_name, "mask NMS on whole frames", lambda: by_whole_frames(frames, found.scores)),
    ]
    assert MaskSuppression("iou", THRESHOLD)(found).tolist() == by_rle(found)
    rows, baseline = [], dict[str, float]()
    for what, name, function in cases:
        slow = "frames" in name
        seconds = best_time(function, 1 if slow else options.repeats)
        baseline.setdefault(what, seconds)
        rows.append([what, name, f"{1e3 * seconds:.2f}", f"{seconds / baseline[what]:.1f}"])
    print(tabulate(rows, ["", "way", "ms", "x torchvision hard NMS"], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
