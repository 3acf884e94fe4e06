"""Small drawn data sets for the tests of the conversion."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 120, 160
KAGGLE_TRAIN = "BCCD Dataset with mask/train"


def draw_mask(seed: int = 0) -> NDArray[np.uint8]:
    """(120, 160) uint8, 0 or 255: a disc cut by the left border, a whole disc, and a speck of 9 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (0, 30), 14, 255, -1)
    cv2.circle(mask, (80 + seed, 60), 20, 255, -1)
    mask[110:113, 150:153] = 255
    return mask


def draw_image(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3) BGR uint8: dark violet cells on pale background."""
    return np.where(mask[..., None] > 0, np.uint8([150, 60, 110]), np.uint8([235, 240, 238]))


def write(path: Path, pixels: NDArray) -> Path:
    """Write an image (BGR order), whatever the characters of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix, pixels)
    assert good
    path.write_bytes(data.tobytes())
    return path


def write_pairs(
    root: Path, stems: list[str], folder: str = KAGGLE_TRAIN, names: tuple[str, str] = ("original", "mask")
) -> Path:
    """Write a drawn pair for each stem; returns ``root``."""
    for seed, stem in enumerate(stems):
        mask = draw_mask(seed % 20)
        write(root / folder / names[0] / f"{stem}.png", draw_image(mask))
        write(root / folder / names[1] / f"{stem}.png", np.dstack([mask] * 3))
    return root
