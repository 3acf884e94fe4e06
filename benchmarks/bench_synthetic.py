"""How long a synthetic smear takes to draw, and how its measurements compare with those of real pairs."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bccd_d2.errors import InputError, run_command
from bccd_d2.synthetic import draw_smear

REPOSITORY = Path(__file__).resolve().parent.parent
MIN_AREA = 100
Picture = NDArray[np.uint8]


def measure(image: Picture, mask: Picture) -> dict[str, float]:
    """Measure a smear.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8, not 0 on cells.

    Returns:
        Name to value; lengths in pixels, colours in CIELAB units.
    """
    cells = (mask > 127).astype(np.uint8)
    height, width = cells.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cells, connectivity=8)
    boxes, areas = stats[1:, :4], stats[1:, cv2.CC_STAT_AREA]
    whole = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 0] + boxes[:, 2] < width)
    whole &= (boxes[:, 1] + boxes[:, 3] < height) & (areas >= MIN_AREA)
    diameters = 2 * np.sqrt(areas[whole] / np.pi)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    glass = cv2.erode(1 - cells, np.ones((31, 31), np.uint8)) > 0
    inner = cv2.erode(cells, np.ones((7, 7), np.uint8)) > 0
    if not (glass.any() and inner.any() and whole.any()):
        raise InputError("a smear without whole cells or without free glass cannot be measured")
    colour = {
        f"{name} {channel}": float(np.median(lab[..., index][where]))
        for name, where in (("glass", glass), ("cells", inner))
        for index, channel in enumerate("Lab")
    }
    fine = lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 2)
    inside = [lab[..., 0][(labels == label) & inner].std() for label in np.flatnonzero(whole)[:40] + 1]
    return {
        "cells": float((areas >= MIN_AREA).sum()),
        "foreground, share": float(cells.mean()),
        "diameter": float(np.median(diameters)),
        "diameter, relative spread": float(diameters.std() / diameters.mean()),
        "touching, share": _touching(labels.astype(np.int32)),
        **colour,
        "contrast in L": colour["glass L"] - colour["cells L"],
        "spread of L inside a cell": float(np.mean(inside)),
        "grain of the glass": float(fine[glass].std()),
        "grain of the cells": float(fine[inner].std()),
        "edge width": _edge_width(lab[..., 0].astype(np.float32), cells),
    }


def _touching(labels: NDArray[np.int32]) -> float:
    """Share of cells with another cell within 3 pixels."""
    values = labels.astype(np.float32)
    near = np.ones((7, 7), np.uint8)
    highest = cv2.dilate(values, near)
    lowest = cv2.erode(np.where(labels > 0, values, np.float32(1e9)), near)
    touching = np.unique(labels[(labels > 0) & ((highest > labels) | (lowest < labels))])
    return len(touching) / max(int(labels.max()), 1)


def _edge_width(lightness: NDArray[np.float32], cells: Picture) -> float:
    """Distance over which the mean profile across outlines rises from 10 to 90 % of its height."""
    outside = cv2.distanceTransform(1 - cells, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(cells, cv2.DIST_L2, 5)
    distance = np.where(cells > 0, 0.5 - inside, outside - 0.5)
    steps = np.arange(-9.5, 10)  # no pixel centre lies on the outline itself
    profile = np.array([np.median(lightness[np.abs(distance - step) <= 0.5]) for step in steps])
    relative = (profile - profile.min()) / max(float(np.ptp(profile)), 1e-6)
    dense = np.linspace(-9.5, 9.5, 381)
    rise = np.interp(dense, steps, relative)
    return float(dense[np.argmax(rise > 0.9)] - dense[len(rise) - 1 - np.argmax(rise[::-1] < 0.1)])


def real_pairs(root: Path) -> Iterator[tuple[Picture, Picture]]:
    """The images of a folder in the Kaggle layout with their masks, (H, W, 3) BGR and (H, W)."""
    for path in sorted(root.glob("**/original/*")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(path.parent.parent / "mask" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None:
            raise InputError(f"{path}: found no readable pair, expected an image and mask/{path.stem}.png")
        yield image.astype(np.uint8), mask.astype(np.uint8)


def column(pairs: Iterable[tuple[Picture, Picture]]) -> dict[str, str]:
    """Median and quartiles of every measurement."""
    measured = [measure(image, mask) for image, mask in pairs]
    if not measured:
        raise InputError("found no pairs to measure")
    table = {}
    for name in measured[0]:
        low, middle, high = np.percentile([values[name] for values in measured], [25, 50, 75])
        table[name] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return table


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("BCCD_ROOT", REPOSITORY.parent / "shared" / "data" / "bccd_with_mask"))
    parser.add_argument("--real", type=Path, default=default, help="real pairs (default: BCCD_ROOT)")
    parser.add_argument("--images", type=int, default=30, help="synthetic images (default: %(default)s)")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    for width, height in ((1600, 1200), (800, 600)):
        start = time.process_time()
        for seed in range(8):
            draw_smear(seed, width, height)
        print(f"{width}x{height}: {(time.process_time() - start) / 8:.2f} s of one core an image")
    synthetic = column((smear.image, smear.mask) for smear in map(draw_smear, range(options.images)))
    columns = [("synthetic", synthetic)]
    if options.real.is_dir():
        columns.insert(0, ("real", column(real_pairs(options.real))))
    else:
        print(f"no real pairs at {options.real}: set BCCD_ROOT to compare")
    rows = [[name, *(values[name] for _, values in columns)] for name in synthetic]
    print(
        tabulate(rows, headers=["median (quartiles)", *(name for name, _ in columns)], disable_numparse=True)
    )
    return 0


if __name__ == "__main__":
    run_command(main)
