"""From pixel values to the nearest class, where edges are anti-aliased or a JPEG has smeared them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

EDGE_REACH = 5
"""Side of the window, in pixels, in which a mixed pixel looks for the classes it may be a mixture of."""


def nearest_class(
    pixels: NDArray, listed: NDArray, meaning: NDArray[np.uint8], tolerance: float
) -> tuple[NDArray[np.uint8], int, str]:
    """Class of each pixel, uint8 (height, width), the number of pixels beyond the tolerance, and the commonest
    value among these in words.

    A pixel within ``tolerance`` (per channel) of a value ``listed``, (n, 1 or 3), has its ``meaning``, uint8 (n,).
    Any other is an edge pixel: it gets the class that is nearest in value among those in its 5x5 neighbourhood.
    Without that limit the anti-aliased edge of a white cell on black passes through grey, and every cell gets a rim
    of whatever class is grey.
    """
    height, width = pixels.shape[:2]
    # Few distinct values stand for millions of pixels: everything is decided once a value.
    values, inverse = _distinct(colour_codes(pixels))
    colours = _from_codes(values, listed.shape[1]).astype(np.int64)
    difference = np.abs(colours[:, None, :] - listed[None].astype(np.int64))
    near = difference.max(axis=2).argmin(axis=1)
    exact = difference.max(axis=2).min(axis=1) <= tolerance
    classes = np.where(exact, meaning[near], 0).astype(np.uint8)[inverse]
    mixed = ~exact[inverse]
    unlisted = int(np.count_nonzero(mixed))
    if unlisted == 0:
        return classes, 0, ""
    counts = np.bincount(inverse[mixed], minlength=len(values))
    commonest = str(colours[counts.argmax()].tolist()).strip("[]")
    distance = (difference**2).sum(axis=2)
    kernel = np.ones((EDGE_REACH, EDGE_REACH), np.uint8)
    # A mixed pixel may hit a listed value by chance; alone among mixed pixels it is no proof of that class.
    beside = cv2.dilate(mixed.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool) & ~mixed
    firm = [_opened((classes == kind) & ~mixed) for kind in np.unique(meaning)]
    mixed |= beside & ~np.any(firm, axis=0)
    best = np.full((height, width), np.iinfo(np.int64).max)
    for kind, anchors in zip(np.unique(meaning), firm):
        around = cv2.dilate(anchors.view(np.uint8), kernel).view(bool) & mixed
        of_kind = distance[:, meaning == kind].min(axis=1)[inverse]
        better = around & (of_kind < best)
        classes[better], best[better] = kind, of_kind[better]
    lost = mixed & (best == np.iinfo(np.int64).max)
    classes[lost] = meaning[distance.argmin(axis=1)][inverse][lost]
    return classes, unlisted, commonest


def _opened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``mask`` without what is thinner than two pixels."""
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)).view(bool)


def colour_codes(pixels: NDArray) -> NDArray:
    """One number a pixel, (height, width): the value of a grey image, 24-bit RGB of a colour image."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def _from_codes(codes: NDArray, channels: int) -> NDArray:
    """Inverse of :func:`colour_codes`, (n, channels)."""
    if channels == 1:
        return codes[:, None]
    return np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=1)


def _distinct(codes: NDArray) -> tuple[NDArray, NDArray]:
    """Sorted distinct values and, for each pixel, which of them it has."""
    if codes.dtype in (np.uint8, np.uint16):
        counts = np.bincount(codes.ravel(), minlength=1)
        values = np.flatnonzero(counts)
        lookup = np.zeros(counts.size, np.intp)
        lookup[values] = np.arange(values.size)
        return values, lookup[codes]
    values = np.unique(codes)
    return values, np.searchsorted(values, codes)
