"""Reinhard stain normalization: moves the colours of the cells of every image to one common target.

Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications 21(5), 2001, in
CIELAB as is usual for stains: per channel, ``x' = (x - mean_source) * std_target / std_source +
mean_target``.

Most of a smear is empty glass, so statistics of the whole image would describe the glass. They are taken over
the foreground instead: what Otsu's threshold on the green channel calls dark, since eosin and methylene blue
both absorb green.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

_TO_LAB = {"BGR": cv2.COLOR_BGR2LAB, "RGB": cv2.COLOR_RGB2LAB}
_FROM_LAB = {"BGR": cv2.COLOR_LAB2BGR, "RGB": cv2.COLOR_LAB2RGB}
_GREEN = 1
# OpenCV's 8-bit CIELAB holds L * 255 / 100, a + 128 and b + 128.
_LAB8_SCALE = np.array([255 / 100, 1.0, 1.0])
_LAB8_OFFSET = np.array([0.0, 128.0, 128.0])
# Statistics need a sample of the pixels only: one in 16 of a 2-megapixel image is 120 thousand.
_MAX_SAMPLED_PIXELS = 160_000
# Otsu splits anything in two. Where the two halves are closer than this, or the dark one is smaller than this
# share, it has split noise: the image shows no cells.
_MIN_CONTRAST_GREY_LEVELS = 12.0
_MIN_FOREGROUND_SHARE = 0.001


@dataclass(frozen=True)
class StainStatistics:
    """Colour statistics of the foreground of one image, in CIELAB.

    Attributes:
        mean: (3,) float64, L in [0, 100], a and b signed.
        std: (3,) float64, same units.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def foreground_threshold(green: NDArray[np.uint8]) -> int | None:
    """Otsu's threshold between cells and glass.

    Args:
        green: (H, W) uint8, the green channel.

    Returns:
        The largest grey level that counts as foreground, or None where the image has none.
    """
    threshold, dark = cv2.threshold(
        np.ascontiguousarray(green), 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU
    )
    share = np.count_nonzero(dark) / dark.size
    if not _MIN_FOREGROUND_SHARE <= share < 1:
        return None
    light = cv2.bitwise_not(dark)
    contrast = cv2.mean(green, light)[0] - cv2.mean(green, dark)[0]
    return int(threshold) if contrast >= _MIN_CONTRAST_GREY_LEVELS else None


class ReinhardNormalizer:
    """Moves an image's foreground statistics to a target.

    Args:
        target_mean: mean of L, a and b; L in [0, 100], a and b signed.
        target_std: standard deviation of L, a and b, same units, positive.
        image_format: "BGR" or "RGB", the colour order of the images.
        min_std: floor on a source deviation, in the same units, so that a flat channel is not blown up to
            noise.

    Raises:
        InputError: a value is out of range or a list is not three numbers long.
    """

    def __init__(
        self,
        target_mean: Sequence[float],
        target_std: Sequence[float],
        *,
        image_format: str = "BGR",
        min_std: float = 1.0,
    ) -> None:
        if image_format not in _TO_LAB:
            raise InputError(f"INPUT.FORMAT is {image_format!r}; stain normalization knows BGR and RGB")
        for key, values in (("INPUT.STAIN.TARGET_MEAN", target_mean), ("INPUT.STAIN.TARGET_STD", target_std)):
            if len(values) != 3:
                raise InputError(f"{key} holds {len(values)} numbers; expected three, for L, a and b")
        if min(target_std) <= 0 or min_std <= 0:
            raise InputError(
                f"INPUT.STAIN.TARGET_STD is {list(target_std)}, INPUT.STAIN.MIN_STD {min_std}; "
                "expected positive numbers"
            )
        self.target_mean = np.asarray(target_mean, dtype=np.float64)
        self.target_std = np.asarray(target_std, dtype=np.float64)
        self.image_format = image_format
        self.min_std = float(min_std)

    def statistics(self, image: NDArray[np.uint8]) -> StainStatistics | None:
        """Foreground statistics of an image, or of what a crop belongs to.

        Args:
            image: (H, W, 3) uint8 in ``image_format``.

        Returns:
            The statistics, or None where the image shows no foreground.
        """
        step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / _MAX_SAMPLED_PIXELS)))
        sample = np.ascontiguousarray(image[::step, ::step])
        green = np.ascontiguousarray(sample[:, :, _GREEN])
        threshold = foreground_threshold(green)
        if threshold is None:
            return None
        lab = cv2.cvtColor(sample, _TO_LAB[self.image_format])
        mean, std = cv2.meanStdDev(lab, mask=(green <= threshold).astype(np.uint8))
        return StainStatistics((mean[:, 0] - _LAB8_OFFSET) / _LAB8_SCALE, std[:, 0] / _LAB8_SCALE)

    def apply(self, image: NDArray[np.uint8], statistics: StainStatistics | None) -> NDArray[np.uint8]:
        """Move ``image`` from the given statistics to the target.

        Args:
            image: (H, W, 3) uint8 in ``image_format``; the image, or a crop or a resized copy of it.
            statistics: of the whole image, as :meth:`statistics` gives them; None leaves the image as it is.

        Returns:
            (H, W, 3) uint8 in the same colour order.
        """
        if statistics is None:
            return image
        scale = self.target_std / np.maximum(statistics.std, self.min_std)
        levels = (np.arange(256)[:, None] - _LAB8_OFFSET) / _LAB8_SCALE
        levels = (levels - statistics.mean) * scale + self.target_mean
        table = np.clip(np.rint(levels * _LAB8_SCALE + _LAB8_OFFSET), 0, 255).astype(np.uint8)
        lab = cv2.cvtColor(image, _TO_LAB[self.image_format])
        moved = cv2.cvtColor(cv2.LUT(lab, table[None]), _FROM_LAB[self.image_format])
        return np.asarray(moved, dtype=np.uint8)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Normalize a whole image: :meth:`statistics`, then :meth:`apply`."""
        return self.apply(image, self.statistics(image))
