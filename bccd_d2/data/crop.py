"""Random windows of native images, resized to network pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.data.augmentation import draw_generator
from bccd_d2.data.label_map import resize_labels
from bccd_d2.data.preprocessing import resize_image, scaled_size

_MIN_ZOOM, _MAX_ZOOM = 0.1, 10.0


class CropResizeTransform(Transform):
    """Takes a window, ``width`` x ``height`` native pixels from (``x``, ``y``) on, and resizes it to network pixels."""

    def __init__(self, x: int, y: int, width: int, height: int, new_width: int, new_height: int) -> None:
        super().__init__()
        self.x, self.y, self.width, self.height = x, y, width, height
        self.new_width, self.new_height = new_width, new_height

    @property
    def area_scale(self) -> float:
        """Network pixels per native pixel, in area."""
        return self.new_width * self.new_height / (self.width * self.height)

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crop and resize (H, W, 3) uint8."""
        return resize_image(self._window(img), self.new_height, self.new_width)

    def apply_segmentation(self, segmentation: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Crop and resize a (H, W, L) label map with nearest neighbour."""
        return resize_labels(self._window(segmentation), self.new_height, self.new_width)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Move (N, 2) xy points, corners of pixels being whole numbers."""
        return (coords - (self.x, self.y)) * (self.new_width / self.width, self.new_height / self.height)

    def _window(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[self.y : self.y + self.height, self.x : self.x + self.width]


class RandomZoomCrop(T.Augmentation):
    """A window anywhere in the image, at a random magnification around the fixed scale.

    ``size`` is the (height, width) of the window at magnification 1 in native pixels; ``None`` takes the whole image.
    The crop is as large in network pixels whatever the magnification: more of the native image is taken for a smaller
    one, so no border has to be made up. Where the image is smaller than the window, all of it is taken.

    The magnification is drawn evenly in its logarithm from ``zoom``, or, of an image whose cell diameter is given, so
    that its cells come to ``cell_diameters`` (smallest, largest) network pixels.
    """

    def __init__(
        self,
        size: Sequence[int] | None,
        scale: float,
        zoom: tuple[float, float] = (1.0, 1.0),
        cell_diameters: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale, self.zoom, self.cell_diameters = size, scale, zoom, cell_diameters

    def get_transform(self, image: NDArray[np.uint8], cell_diameter: float = 0.0) -> CropResizeTransform:
        """Draw a window of (H, W, 3) uint8 and a magnification; ``cell_diameter`` is in native pixels, 0: not known."""
        generator = draw_generator()
        limits = np.array(self.zoom)
        if self.cell_diameters is not None and cell_diameter > 0:
            limits = np.array(self.cell_diameters) / (self.scale * cell_diameter)
            limits = np.clip(limits, _MIN_ZOOM, _MAX_ZOOM)
        zoom = float(np.exp(generator.uniform(*np.log(limits))))
        height, width = image.shape[:2]
        wanted = scaled_size(self.size[0], self.size[1], 1 / zoom) if self.size else (height, width)
        crop_height, crop_width = min(wanted[0], height), min(wanted[1], width)
        new_height, new_width = scaled_size(crop_height, crop_width, self.scale * zoom)
        if self.size:
            # Rounding must not make crops differ by a pixel: they would be padded to one batch.
            full_height, full_width = scaled_size(self.size[0], self.size[1], self.scale)
            new_height = full_height if crop_height == wanted[0] else new_height
            new_width = full_width if crop_width == wanted[1] else new_width
        y = int(generator.integers(height - crop_height + 1))
        x = int(generator.integers(width - crop_width + 1))
        return CropResizeTransform(x, y, crop_width, crop_height, new_width, new_height)
