"""Images of more than eight bits, brought to eight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

CAMERA_BITS = (8, 10, 12, 14, 16, 24, 32)


def full_scale(pixels: NDArray[Any], name: str = "image") -> float:
    """The level that stands for full brightness.

    Cameras of 10, 12 or 14 bits write their levels into 16-bit files as they are, so the file's own 65,535 would turn
    such an image almost black. Taken is the smallest of ``CAMERA_BITS`` that holds the largest level. Unlike
    percentiles this depends on the camera and not on what the image shows, so its colours stay comparable.

    Args:
        pixels: unsigned or signed integers, or floats in [0, 1]; the image or a sample of it.
        name: what messages call it.

    Raises:
        InputError: floats beyond 1 or not finite: nothing says what is full brightness.
    """
    if pixels.dtype == np.uint8:
        return 255.0
    largest = float(pixels.max(initial=0))
    if np.issubdtype(pixels.dtype, np.floating):
        if not largest <= 1:
            raise InputError(f"{name}: floating-point levels up to {largest:g}; expected levels in [0, 1]")
        return 1.0
    if pixels.dtype == np.bool_:
        return 1.0
    return float(2 ** next(bits for bits in CAMERA_BITS if largest < 2**bits or bits == CAMERA_BITS[-1]) - 1)


def to_uint8(pixels: NDArray[Any], full: float) -> NDArray[np.uint8]:
    """Levels from 0 to ``full`` as 0 to 255; levels outside are clipped.

    Args:
        pixels: of any shape and number type; uint8 is left as it is.
        full: see :func:`full_scale`.
    """
    if pixels.dtype == np.uint8:
        return pixels
    scaled = np.clip(pixels.astype(np.float32) * np.float32(255 / full), 0, 255)
    return np.rint(scaled).astype(np.uint8)
