"""Whether a mask can be that of its image: inverted masks, turned ones, and masks of other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.io.file_kinds import upright
from bccd_d2.segmentation.background import find_foreground

_LONG_SIDE = 400  # images are shrunk to this many pixels: where the cells are shows at any size
_MOST = 0.5  # of the image; an instance that covers more and touches all sides is taken for the background
_INVERTED, _UNRELATED = -0.3, 0.3
"""Fits below which a mask is the wrong way round, and lies where it might lie anywhere. Real masks of all cells reach
0.75 and more, of white cells only 0.45; those of another image 0.15."""
_CLEARLY = 0.2  # by so much a turned mask must fit better to count as the right one


class MaskFit(NamedTuple):
    """How well a mask lies on what its image shows."""

    # Share of the mask that Otsu's foreground covers, less that of the rest (Youden, "Index for rating diagnostic
    # tests", Cancer 3, 1950): 1 for a perfect mask, 0 for one of another image, -1 for an inverted one; not a
    # number where the mask is empty or full.
    fit: float
    is_inverted: bool  # the image shows cells where the mask has none, and the other way round
    is_unrelated: bool  # the mask might lie anywhere
    fits_turned: bool  # the mask lies on the image as it is stored, before its orientation


def fills_image(bbox: Sequence[float], area: float, height: int, width: int) -> bool:
    """Whether an instance with the tight ``bbox`` [x, y, width, height] covers most of an image and touches all its
    sides, as a background does.
    """
    return list(bbox) == [0, 0, width, height] and area > _MOST * height * width


def measure_fit(image: NDArray[np.uint8], mask: NDArray[np.bool_], orientation: int = 1) -> MaskFit:
    """Compare a bool (height, width) mask with the foreground of its image, uint8 (height, width, 3) RGB, upright,
    that was turned by the EXIF ``orientation``.
    """
    height, width = mask.shape
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    foreground = find_foreground(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
    small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
    turned = upright(small, orientation)
    comparable = orientation != 1 and turned.shape == small.shape
    fit = _youden(foreground, small)
    fits_turned = comparable and _youden(foreground, turned) > fit + _CLEARLY
    return MaskFit(fit, fit < _INVERTED, fit < _UNRELATED, fits_turned)


def _youden(foreground: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    if not mask.any() or mask.all():
        return float("nan")
    return float(foreground[mask].mean() - foreground[~mask].mean())
