"""The background of a smear: its colour, and what differs from it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

BLUR = 1.5  # standard deviation, in pixels, of the smoothing against noise and JPEG blocks


def find_foreground(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What differs from the background in colour: bool (height, width) of a uint8 (height, width, 3) RGB image."""
    contrast = background_contrast(smooth_lab(image))
    return contrast > contrast_threshold(contrast)


def smooth_lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB of a uint8 (height, width, 3) RGB image, blurred by :data:`BLUR`."""
    smooth = cv2.GaussianBlur(image, (0, 0), BLUR)
    return np.asarray(cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def background_contrast(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each pixel of (height, width, 3) CIELAB from the colour of the background: (height, width)."""
    lightness = colours[..., 0]
    background = np.median(colours[lightness >= threshold_otsu(lightness)], axis=0)
    return np.sqrt(((colours - background) ** 2).sum(axis=-1))


def contrast_threshold(contrast: NDArray[np.float32]) -> float:
    """Otsu's (1979) threshold between background and cells.

    The darkest nuclei are cut off, or it would part them from the rest.
    """
    return float(threshold_otsu(np.minimum(contrast, np.percentile(contrast, 90))))


def background_surface(
    colours: NDArray[np.float32], background: NDArray[np.bool_], degree: int = 2
) -> NDArray[np.float32]:
    """Colour of the background everywhere, behind the cells too: the light of a microscope falls off to the
    corners.

    A polynomial in x and y is fitted by least squares to the pixels of ``colours``, float32 (height, width,
    channels), where ``background`` is true; returned is an array like ``colours``.
    """
    height, width = background.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms = np.stack([x**i * y**j for i, j in powers], axis=-1)
    inside = terms[background].astype(np.float64)
    # By the normal equations, which for a handful of terms in [-1, 1] are as good as an SVD of all pixels and take a
    # twentieth of the time; by lstsq, because few pixels may leave some terms open.
    coefficients = np.linalg.lstsq(inside.T @ inside, inside.T @ colours[background], rcond=None)[0]
    return np.asarray(terms @ coefficients.astype(np.float32), np.float32)
