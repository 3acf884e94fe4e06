"""Images whose audit is known: discs of known size at known places on an even background."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 240, 320
RADIUS = 12
BACKGROUND, CELL = (235, 238, 240), (110, 60, 150)  # RGB
PLACES = [(x, y) for y in (50, 110, 170) for x in (60, 130, 200, 270)]
"""Centres (x, y) of twelve cells, none near another or the border."""


def blank() -> NDArray[np.uint8]:
    """(240, 320) mask of zeros."""
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def disc(mask: NDArray[np.uint8], x: int, y: int, radius: int = RADIUS) -> NDArray[np.uint8]:
    """Add a disc to a mask, in place."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    mask[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = 255
    return mask


def cells(places: list[tuple[int, int]] = PLACES) -> NDArray[np.uint8]:
    """A mask of discs."""
    mask = blank()
    for x, y in places:
        disc(mask, x, y)
    return mask


def paint(mask: NDArray[np.uint8], cell: tuple[int, int, int] = CELL, seed: int = 0) -> NDArray[np.uint8]:
    """An RGB image of cells where the mask says, with a little noise."""
    image = np.where(mask[..., None] > 0, np.float64(cell), np.float64(BACKGROUND))
    image += np.random.default_rng(seed).normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_pair(
    folder: Path, stem: str, image: NDArray[np.uint8], mask: NDArray[np.uint8], suffix: str = ".png"
) -> None:
    """Write an RGB image and its mask as ``original/STEM`` and ``mask/STEM.png``."""
    for name, pixels in (
        (f"original/{stem}{suffix}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR)),
        (f"mask/{stem}.png", mask),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        good, data = cv2.imencode(path.suffix, pixels)
        assert good
        path.write_bytes(data.tobytes())
