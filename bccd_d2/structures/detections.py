"""What the network says of one image, before its masks are put into the image, and how they are put there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bccd_d2.structures.cells import Cells

MASK_THRESHOLD = 0.5  # probability from which on a pixel belongs to a cell, as everywhere in Detectron2

_SMALLEST_SIDE = 1e-6  # of a box in pixels, where it is divided by


@dataclass(frozen=True)
class Detections:
    """N cells of one image or tile, each with the mask as the network sees it: a square stretched over its box."""

    height: int
    width: int
    boxes: NDArray[np.float32]  # (N, 4) float32 xyxy in pixels of the image, inside it
    classes: NDArray[np.int64]  # (N,) int64 class indices
    scores: NDArray[np.float32]  # (N,) float32 in [0, 1], falling
    masks: NDArray[np.float32]  # (N, M, M) float32 probabilities in [0, 1]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
        return Detections(
            self.height,
            self.width,
            self.boxes[index],
            self.classes[index],
            self.scores[index],
            self.masks[index],
        )

    def resized(self, height: int, width: int) -> Detections:
        """The same in pixels of a copy of the image that has another size."""
        scale = np.array([width / self.width, height / self.height] * 2, np.float32)
        return replace(self, height=height, width=width, boxes=self.boxes * scale)

    def mirrored(self) -> Detections:
        """The same in an image whose left and right change places."""
        x0, y0, x1, y1 = self.boxes.T
        boxes = np.stack([self.width - x1, y0, self.width - x0, y1], axis=1)
        return replace(self, boxes=boxes, masks=self.masks[:, :, ::-1])

    def turned(self) -> Detections:
        """The same in an image turned by 90 degrees counter-clockwise."""
        x0, y0, x1, y1 = self.boxes.T
        boxes = np.stack([y0, self.width - x1, y1, self.width - x0], axis=1)
        masks = np.rot90(self.masks, axes=(1, 2))
        return replace(self, height=self.width, width=self.height, boxes=boxes, masks=masks)

    def windows(self) -> NDArray[np.int64]:
        """(N, 4) ``x0, y0, x1, y1``, end exclusive: the pixels that each box touches."""
        low, high = np.floor(self.boxes[:, :2]), np.ceil(self.boxes[:, 2:])
        # Stretching a box can carry it over the border by a rounding error.
        return np.clip(np.concatenate([low, high], axis=1), 0, [self.width, self.height] * 2).astype(np.int64)

    def probability(self, index: int, window: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mask probabilities of one cell, as Detectron2's ``paste_masks_in_image`` samples them: float32 of the
        shape of ``window`` (``x0, y0, x1, y1`` in pixels of the image), 0 far outside the box.

        Where the box ends in the outermost pixel of the image the mask goes on: Detectron2's falls to 0 there, and
        leaves a line of background between the border and the cells that it cuts. Bilinear sampling is one product of
        matrices for the rows and one for the columns.
        """
        x0, y0, x1, y1 = self.boxes[index]
        mask = self.masks[index]
        rows = _interpolation(window[1], window[3], y0, y1, mask.shape[0], self.height)
        columns = _interpolation(window[0], window[2], x0, x1, mask.shape[1], self.width)
        return np.asarray(rows @ mask @ columns.T, np.float32)

    def paste(self) -> Cells:
        """The cells with their masks in pixels of the image, in the same order; a mask can be empty."""
        windows = self.windows()
        return Cells.from_masks(
            self.height,
            self.width,
            (self.probability(i, window) >= MASK_THRESHOLD for i, window in enumerate(windows)),
            origins=[(int(x0), int(y0)) for x0, y0, _, _ in windows],
            boxes=self.boxes,
            classes=self.classes,
            scores=self.scores,
        )


def _interpolation(
    start: int, stop: int, low: float, high: float, size: int, length: int
) -> NDArray[np.float32]:
    """(stop - start, size) float32: the weight of each of ``size`` samples between ``low`` and ``high`` at each
    pixel of a line of ``length``.
    """
    centres = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    positions = (centres - low) * np.float32(size / max(high - low, _SMALLEST_SIDE)) - np.float32(0.5)
    if low < 1:
        positions = np.maximum(positions, np.float32(0))
    if high > length - 1:
        positions = np.minimum(positions, np.float32(size - 1))
    distances = np.abs(positions[:, None] - np.arange(size, dtype=np.float32))
    return np.maximum(np.float32(1) - distances, np.float32(0))
