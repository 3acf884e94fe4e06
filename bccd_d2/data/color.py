"""White balance by the image's own background, and what else is done to the colours of a whole image.

The background behind the cells becomes white, whatever the lamp and the camera.
Each channel is multiplied so that its background comes to one level, as a photograph is corrected by a shot of the
empty slide. The background is taken for the 90th percentile of the channel: most of a smear is background, and where
cells cover it, their pale middles are not far from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # an exported network balances without Detectron2
    from detectron2.config import CfgNode

    from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics

BACKGROUND_LEVEL = 225.0
"""What the background becomes in each channel; a little below white, so that what is brighter keeps its shape."""

_BACKGROUND_PERCENTILE = 90
# A gain beyond these would amplify the noise of an image that shows no background, or none that was lit.
_MIN_GAIN, _MAX_GAIN = 0.5, 3.0
# A percentile needs a sample of the pixels only.
_MAX_SAMPLED_PIXELS = 250_000


def white_balance_gain(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3,) factors of the channels that bring the background of a (H, W, 3) uint8 image to ``BACKGROUND_LEVEL``."""
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / _MAX_SAMPLED_PIXELS)))
    levels = np.percentile(image[::step, ::step].reshape(-1, 3), _BACKGROUND_PERCENTILE, axis=0)
    return np.clip(BACKGROUND_LEVEL / np.maximum(levels, 1), _MIN_GAIN, _MAX_GAIN)


def apply_gain(image: NDArray[np.uint8], gain: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A (H, W, 3) uint8 image with its channels multiplied by (3,) ``gain`` and clipped at 255."""
    table = np.clip(np.rint(np.arange(256)[:, None] * gain), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


@dataclass(frozen=True)
class ColorStatistics:
    """What :class:`ColorNormalizer` must know of a whole image.

    Attributes:
        gain: see :func:`white_balance_gain`; ``None`` without white balance.
        stain: of the balanced image; ``None`` without stain normalization, or where the image shows no cells.
    """

    gain: NDArray[np.float64] | None = None
    stain: StainStatistics | None = None


class ColorNormalizer:
    """White balance, then stain normalization, each if it is asked for; in training, evaluation and prediction alike.

    Args:
        white_balance: bring the background to ``BACKGROUND_LEVEL``.
        stain: the stain normalization, or ``None``.
    """

    def __init__(self, white_balance: bool = False, stain: ReinhardNormalizer | None = None) -> None:
        self.white_balance, self.stain = white_balance, stain

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ColorNormalizer:
        """From ``INPUT.WHITE_BALANCE`` and ``INPUT.STAIN``."""
        from bccd_d2.data.stain import ReinhardNormalizer

        stain = ReinhardNormalizer(cfg) if cfg.INPUT.STAIN.ENABLED else None
        return cls(cfg.INPUT.WHITE_BALANCE, stain)

    @property
    def active(self) -> bool:
        """Whether it changes anything; an image need not be measured otherwise."""
        return self.white_balance or self.stain is not None

    def balance(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The first step alone, on a whole (H, W, 3) uint8 image."""
        return apply_gain(image, white_balance_gain(image)) if self.white_balance else image

    def statistics(self, image: NDArray[np.uint8]) -> ColorStatistics:
        """Measure a whole (H, W, 3) uint8 image, or a sample of it."""
        gain = white_balance_gain(image) if self.white_balance else None
        if self.stain is None:
            return ColorStatistics(gain)
        return ColorStatistics(
            gain, self.stain.statistics(image if gain is None else apply_gain(image, gain))
        )

    def apply(self, image: NDArray[np.uint8], statistics: ColorStatistics) -> NDArray[np.uint8]:
        """Both steps on (h, w, 3) uint8: the image that was measured, or a crop or resized copy of it."""
        if statistics.gain is not None:
            image = apply_gain(image, statistics.gain)
        return image if self.stain is None else self.stain.apply(image, statistics.stain)
