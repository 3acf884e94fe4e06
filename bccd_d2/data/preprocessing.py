"""What happens to every image, in training, evaluation and prediction alike: reading, scale, stain."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray

from bccd_d2.data.scaling import resize_image, scaled_size
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image


def read_dataset_image(file_name: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """As :func:`bccd_d2.io.images.read_image`, also of an address that Detectron2's ``PathManager`` knows."""
    return read_image(PathManager.get_local_path(file_name), image_format)


class ImagePreprocessor:
    """Resizes by a fixed scale, then normalizes the stain.

    Args:
        scale: network pixels per native pixel.
        stain: the stain normalization, or None.
        image_format: "BGR" or "RGB".

    Raises:
        InputError: ``scale`` is not positive.
    """

    @configurable
    def __init__(self, *, scale: float, stain: ReinhardNormalizer | None, image_format: str) -> None:
        if scale <= 0:
            raise InputError(f"INPUT.SCALE is {scale}; expected a positive number")
        self.scale = float(scale)
        self.stain = stain
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``INPUT.SCALE``, ``INPUT.STAIN`` and ``INPUT.FORMAT``."""
        stain = ReinhardNormalizer(cfg) if cfg.INPUT.STAIN.ENABLED else None
        return {"scale": cfg.INPUT.SCALE, "stain": stain, "image_format": cfg.INPUT.FORMAT}

    def read(self, file_name: str) -> NDArray[np.uint8]:
        """Read an image in the configured colour order, see :func:`read_dataset_image`."""
        return read_dataset_image(file_name, self.image_format)

    def statistics(self, image: NDArray[np.uint8]) -> StainStatistics | None:
        """What :meth:`__call__` must know of the whole native image; None where there is no stain step."""
        return self.stain.statistics(image) if self.stain else None

    def __call__(self, image: NDArray[np.uint8], statistics: StainStatistics | None) -> NDArray[np.uint8]:
        """Prepare an image, or a crop or tile of it.

        Args:
            image: (H, W, 3) uint8, native pixels.
            statistics: of the whole image that ``image`` is a part of, from :meth:`statistics`.

        Returns:
            (h, w, 3) uint8 of size ``scaled_size(H, W, scale)``.
        """
        image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], self.scale))
        return self.normalize(image, statistics)

    def normalize(self, image: NDArray[np.uint8], statistics: StainStatistics | None) -> NDArray[np.uint8]:
        """The stain step alone, on an image that has its size already."""
        return self.stain.apply(image, statistics) if self.stain else image
