"""What happens to every image, in training, evaluation and prediction alike: reading, scale, stain."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray

from bccd_d2.data.scaling import resize_image, scaled_size
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.errors import InputError
from bccd_d2.io.images import PNG_SIGNATURE, png_chunks
from bccd_d2.io.levels import full_scale, to_uint8


def read_image(file_name: str, image_format: str = "BGR") -> NDArray[np.uint8]:
    """Read an image at native size, turned upright as its EXIF orientation says.

    OpenCV decodes a PNG in three quarters of the time that Pillow takes. More than eight bits are scaled by
    :func:`bccd_d2.io.levels.full_scale`.

    Args:
        file_name: a path, or an address that Detectron2's ``PathManager`` knows.
        image_format: "BGR" or "RGB".

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: the file is no image that OpenCV can decode, or the format is unknown.
        OSError: the file cannot be read.
    """
    if image_format not in ("BGR", "RGB"):
        raise InputError(f"INPUT.FORMAT is {image_format!r}; expected BGR or RGB")
    with PathManager.open(file_name, "rb") as file:
        encoded = np.frombuffer(file.read(), dtype=np.uint8)
    if encoded[: len(PNG_SIGNATURE)].tobytes() == PNG_SIGNATURE and not all(
        fits for _, fits in png_chunks(io.BytesIO(encoded.data), encoded.size)
    ):
        # OpenCV would take the word of a chunk for its length: up to half a minute and 2 GB.
        raise InputError(f"{file_name}: not an image that can be decoded ({encoded.size} bytes, cut short)")
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if encoded.size else None
    except cv2.error as error:  # more pixels than OpenCV takes, or than there is memory for
        raise InputError(f"{file_name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError(f"{file_name}: not an image that can be decoded ({encoded.size} bytes)")
    image = to_uint8(image, full_scale(image, file_name))
    return np.asarray(image if image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


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
        """Read an image in the configured colour order, see :func:`read_image`."""
        return read_image(file_name, self.image_format)

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
