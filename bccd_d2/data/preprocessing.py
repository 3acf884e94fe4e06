"""What happens to every image, in training, evaluation and prediction alike: reading, scale, colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray

from bccd_d2.data.color import ColorNormalizer, ColorStatistics
from bccd_d2.data.scaling import resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image


def read_dataset_image(file_name: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """As :func:`bccd_d2.io.images.read_image`, also of an address that Detectron2's ``PathManager`` knows."""
    return read_image(PathManager.get_local_path(file_name), image_format)


class ImagePreprocessor:
    """Resizes by a fixed scale, then normalizes the colours.

    Args:
        scale: network pixels per native pixel.
        colors: white balance and stain normalization.
        image_format: "BGR" or "RGB".

    Raises:
        InputError: ``scale`` is not positive.
    """

    @configurable
    def __init__(self, *, scale: float, colors: ColorNormalizer, image_format: str) -> None:
        if scale <= 0:
            raise InputError(f"INPUT.SCALE is {scale}; expected a positive number")
        self.scale = float(scale)
        self.colors = colors
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``INPUT``."""
        return {
            "scale": cfg.INPUT.SCALE,
            "colors": ColorNormalizer.from_config(cfg),
            "image_format": cfg.INPUT.FORMAT,
        }

    def read(self, file_name: str) -> NDArray[np.uint8]:
        """Read an image in the configured colour order, see :func:`read_dataset_image`."""
        return read_dataset_image(file_name, self.image_format)

    def statistics(self, image: NDArray[np.uint8]) -> ColorStatistics:
        """What :meth:`__call__` must know of the whole native image."""
        return self.colors.statistics(image)

    def __call__(self, image: NDArray[np.uint8], statistics: ColorStatistics) -> NDArray[np.uint8]:
        """Prepare an image, or a crop or tile of it.

        Args:
            image: (H, W, 3) uint8, native pixels.
            statistics: of the whole image that ``image`` is a part of, from :meth:`statistics`.

        Returns:
            (h, w, 3) uint8 of size ``scaled_size(H, W, scale)``.
        """
        image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], self.scale))
        return self.colors.apply(image, statistics)
