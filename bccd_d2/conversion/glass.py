"""Colour of the empty glass everywhere in an image, behind the cells too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def glass_surface(
    colours: NDArray[np.float32], glass: NDArray[np.bool_], degree: int = 2
) -> NDArray[np.float32]:
    """Fit a smooth surface to the glass, because the light of a microscope is uneven and falls off to the corners.

    Args:
        colours: float32 (height, width, channels).
        glass: bool (height, width), the pixels to fit.
        degree: of the polynomial in x and y, least squares.

    Returns:
        float32 (height, width, channels).
    """
    height, width = glass.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms = np.stack([x**i * y**j for i, j in powers], axis=-1)
    inside = terms[glass].astype(np.float64)
    # By the normal equations, which for a handful of terms in [-1, 1] are as good as an SVD of all pixels and take a
    # twentieth of the time; by lstsq, because few pixels may leave some terms open.
    coefficients = np.linalg.lstsq(inside.T @ inside, inside.T @ colours[glass], rcond=None)[0]
    return np.asarray(terms @ coefficients.astype(np.float32), np.float32)
