"""What happens to every image, in training, evaluation and prediction alike: reading, scale, colours.

White balance makes the background behind the cells white, whatever the lamp and the camera: each channel is multiplied
so that its background, taken for the 90th percentile, comes to one level. Most of a smear is background, and where
cells cover it, their pale middles are not far from it.

Density balance makes red cells look alike, however strongly and in whatever tone a laboratory stains: each channel's
optical density is multiplied so that its median over the cells comes to one value. Most cells of a smear are red
cells, so nuclei keep what sets them apart from these.

Importing this needs neither torch nor Detectron2: exported models run without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.io.images import read_image
from bccd_d2.io.sources import sample_pixels

if TYPE_CHECKING:
    from detectron2.config import CfgNode

BACKGROUND_LEVEL = 225.0
"""What the background becomes in each channel; a little below white, so that what is brighter keeps its shape."""

BACKGROUND_PERCENTILE = 90
# A gain beyond these would amplify the noise of an image that shows no background, or none that was lit.
MIN_GAIN, MAX_GAIN = 0.5, 3.0
# Likewise a factor of optical density, where there are no cells.
MIN_FACTOR, MAX_FACTOR = 0.25, 2.5


def read_dataset_image(file_name: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """As :func:`bccd_d2.io.images.read_image`, also of an address that Detectron2's ``PathManager`` knows."""
    from detectron2.utils.file_io import PathManager

    return read_image(PathManager.get_local_path(file_name), image_format)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width in network pixels of ``height`` x ``width`` native pixels; at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8, averaging over areas when shrinking, which keeps thin membranes."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def white_balance_gain(sample: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3,) factors of the channels that bring the background of (h, w, 3) uint8, a sample of an image's pixels, to
    ``BACKGROUND_LEVEL``.
    """
    levels = np.percentile(sample.reshape(-1, 3), BACKGROUND_PERCENTILE, axis=0)
    return np.clip(BACKGROUND_LEVEL / np.maximum(levels, 1), MIN_GAIN, MAX_GAIN)


def density_factor(balanced: NDArray[np.uint8], target: Sequence[float]) -> NDArray[np.float64]:
    """(3,) factors of the channels' optical densities that bring the cells to ``target``; 1 where all pixels are alike.

    ``balanced`` is (h, w, 3) uint8, a sample of an image after white balance. Optical density is
    ``-ln(level / BACKGROUND_LEVEL)``, to which dye adds in proportion (Ruifrok and Johnston 2001). Cells are what lies
    above Otsu's threshold of the square root of the mean density: roots of background, red cells and nuclei are
    about equally far apart, so that the threshold is that of the background.
    """
    levels = balanced.reshape(-1, 3).astype(np.float64)
    density = -np.log(np.clip(levels, 1, BACKGROUND_LEVEL) / BACKGROUND_LEVEL)
    root = np.sqrt(density.mean(axis=1))
    if np.ptp(root) == 0:
        return np.ones(3)
    cells = np.median(density[root > threshold_otsu(root)], axis=0)
    return np.clip(np.asarray(target) / np.maximum(cells, 1e-3), MIN_FACTOR, MAX_FACTOR)


def balance_table(gain: NDArray[np.float64], factor: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    """(256, 3) uint8: what each level becomes in each channel, multiplied by (3,) ``gain`` and clipped at 255.

    ``factor``, (3,), then multiplies the optical densities; levels above the background's have none and stay.
    """
    levels = np.arange(256)[:, None] * gain
    if factor is not None:
        denser = BACKGROUND_LEVEL * (levels / BACKGROUND_LEVEL) ** factor
        levels = np.where(levels < BACKGROUND_LEVEL, denser, levels)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def apply_table(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A (H, W, 3) uint8 image with its levels replaced by those of a (256, 3) table."""
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


@dataclass(frozen=True)
class ColorStatistics:
    """What :class:`ColorNormalizer` must know of a whole image."""

    table: NDArray[np.uint8] | None = None  # see balance_table; None without white balance
    stain: StainStatistics | None = None  # of the balanced image; None without normalization or cells


class ColorNormalizer:
    """White balance, density balance, then stain normalization, each if it is asked for.

    Args:
        white_balance: see :func:`white_balance_gain`.
        cell_density: the target of :func:`density_factor`, in the colour order of the images; empty for none.
        stain: the last step.
    """

    def __init__(
        self,
        white_balance: bool = False,
        cell_density: Sequence[float] = (),
        stain: ReinhardNormalizer | None = None,
    ) -> None:
        self.white_balance, self.cell_density, self.stain = white_balance, tuple(cell_density), stain

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ColorNormalizer:
        """From ``INPUT.WHITE_BALANCE``, ``INPUT.CELL_DENSITY`` and ``INPUT.STAIN``."""
        stain = ReinhardNormalizer.from_config(cfg) if cfg.INPUT.STAIN.ENABLED else None
        return cls(cfg.INPUT.WHITE_BALANCE, cfg.INPUT.CELL_DENSITY, stain)

    @property
    def active(self) -> bool:
        """Whether it changes anything; an image need not be measured otherwise."""
        return self.white_balance or self.stain is not None

    def balance(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """White and density balance alone, of a whole (H, W, 3) uint8 image."""
        return apply_table(image, self._table(sample_pixels(image))) if self.white_balance else image

    def statistics(self, image: NDArray[np.uint8]) -> ColorStatistics:
        """Measure a whole (H, W, 3) uint8 image by a sample of its pixels."""
        return self.measure(sample_pixels(image)) if self.active else ColorStatistics()

    def measure(self, sample: NDArray[np.uint8]) -> ColorStatistics:
        """The same of the sample, (h, w, 3) uint8, see :func:`bccd_d2.io.sources.sample_image`."""
        table = self._table(sample) if self.white_balance else None
        if self.stain is None:
            return ColorStatistics(table)
        balanced = sample if table is None else apply_table(sample, table)
        return ColorStatistics(table, self.stain.measure(balanced))

    def apply(self, image: NDArray[np.uint8], statistics: ColorStatistics) -> NDArray[np.uint8]:
        """All steps on (h, w, 3) uint8: the image that was measured, or a crop or resized copy of it."""
        if statistics.table is not None:
            image = apply_table(image, statistics.table)
        return image if self.stain is None else self.stain.apply(image, statistics.stain)

    def _table(self, sample: NDArray[np.uint8]) -> NDArray[np.uint8]:
        gain = white_balance_gain(sample)
        table = balance_table(gain)
        if not self.cell_density:
            return table
        return balance_table(gain, density_factor(apply_table(sample, table), self.cell_density))


class ImagePreprocessor:
    """Resizes by ``scale`` network pixels per native pixel, then normalizes the colours."""

    def __init__(self, scale: float, colors: ColorNormalizer, image_format: str) -> None:
        self.scale, self.colors, self.image_format = float(scale), colors, image_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ImagePreprocessor:
        """From ``INPUT``."""
        return cls(cfg.INPUT.SCALE, ColorNormalizer.from_config(cfg), cfg.INPUT.FORMAT)

    def read(self, file_name: str) -> NDArray[np.uint8]:
        """Read an image in the configured colour order, see :func:`read_dataset_image`."""
        return read_dataset_image(file_name, self.image_format)

    def __call__(self, image: NDArray[np.uint8], statistics: ColorStatistics) -> NDArray[np.uint8]:
        """Prepare (H, W, 3) uint8 native pixels, a part of the whole image that ``statistics`` are of.

        Returns (h, w, 3) uint8 of size ``scaled_size(H, W, scale)``.
        """
        image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], self.scale))
        return self.colors.apply(image, statistics)
