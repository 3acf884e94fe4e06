"""Stain as a random transform: each crop goes to a target drawn around the configured one.

Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in convolutional
neural networks for computational pathology", Medical Image Analysis 58, 2019, find such jitter to help across
laboratories, with and without normalization.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.data.augmentation import draw_generator
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics, StainTarget
from bccd_d2.errors import InputError

# One affine map a channel moves all cells of an image, so classes keep their order, and their distances shrink by
# no more than the smallest factor on the deviations. In normalized images of the BCCD detection set 15 to 43 units
# lie between nuclei of white cells and red cells; the strongest jitter left at least half of that.
_MAX_STD_JITTER = 0.5
# A shift by more would push dark nuclei (L about 20) against black, where their texture is lost.
_MAX_MEAN_JITTER = 15.0


class StainTransform(Transform):
    """Moves an image's stain to a target; geometry stays."""

    def __init__(
        self, normalizer: ReinhardNormalizer, statistics: StainStatistics | None, target: StainTarget
    ) -> None:
        super().__init__()
        self.normalizer, self.statistics, self.target = normalizer, statistics, target

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Transform (H, W, 3) uint8 in the normalizer's colour order."""
        return self.normalizer.apply(img, self.statistics, self.target)

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        """Labels have no colour."""
        return segmentation

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Points stay."""
        return coords


class RandomStain(T.Augmentation):
    """Draws a stain target around the normalizer's own, or around the image's statistics.

    Its input needs an attribute ``stain_statistics``, those of the whole image.

    Args:
        normalizer: applies the target.
        around_target: draw around the normalizer's target; else around the image's own statistics, which
            leaves its stain unnormalized.
        mean_jitter: largest shift of L, a and b, in CIELAB units, each uniform in both directions.
        std_jitter: each deviation is multiplied by a uniform factor in [1 - std_jitter, 1 + std_jitter].

    Raises:
        InputError: a jitter is out of the bounds within which cell classes stay apart.
    """

    def __init__(
        self,
        normalizer: ReinhardNormalizer,
        *,
        around_target: bool,
        mean_jitter: Sequence[float],
        std_jitter: float,
    ) -> None:
        super().__init__()
        if len(mean_jitter) != 3 or not all(0 <= value <= _MAX_MEAN_JITTER for value in mean_jitter):
            raise InputError(
                f"INPUT.STAIN.JITTER_MEAN is {list(mean_jitter)}; "
                f"expected three numbers in [0, {_MAX_MEAN_JITTER:g}], for L, a and b"
            )
        if not 0 <= std_jitter <= _MAX_STD_JITTER:
            raise InputError(
                f"INPUT.STAIN.JITTER_STD is {std_jitter}; expected a number in [0, {_MAX_STD_JITTER}]"
            )
        self.normalizer = normalizer
        self.around_target = around_target
        self.mean_jitter = np.asarray(mean_jitter, dtype=np.float64)
        self.std_jitter = float(std_jitter)

    def get_transform(self, image: NDArray[np.uint8], stain_statistics: StainStatistics | None) -> Transform:
        """Draw a target.

        Args:
            image: not looked at.
            stain_statistics: of the whole image that the crop is a part of; None leaves it as it is.
        """
        if stain_statistics is None:
            return T.NoOpTransform()
        base = self.normalizer.target if self.around_target else stain_statistics
        generator = draw_generator()
        mean = np.array(base.mean) + generator.uniform(-self.mean_jitter, self.mean_jitter)
        std = np.array(base.std) * generator.uniform(1 - self.std_jitter, 1 + self.std_jitter, 3)
        target = StainTarget(tuple(mean.tolist()), tuple(std.tolist()))
        return StainTransform(self.normalizer, stain_statistics, target)


def build_stain_augmentation(cfg: CfgNode) -> RandomStain | None:
    """Stain normalization and jitter as ``INPUT.STAIN`` asks for; None where it asks for neither."""
    stain = cfg.INPUT.STAIN
    if not stain.ENABLED and not any(stain.JITTER_MEAN) and not stain.JITTER_STD:
        return None
    return RandomStain(
        ReinhardNormalizer(cfg),
        around_target=stain.ENABLED,
        mean_jitter=stain.JITTER_MEAN,
        std_jitter=stain.JITTER_STD,
    )
