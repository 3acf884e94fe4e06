"""The one rule for levels: which stored numbers are black and white, and how they become eight bits.

Cameras of 10, 12 or 14 bits write their levels into 16-bit files unchanged. So white is the largest level of the
smallest camera depth that holds the image; unlike percentiles this depends on the camera and not on what the image
shows, so colours stay comparable. A share of the pixels at either end does not count: hot pixels change nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

CAMERA_BITS = (8, 10, 12, 14, 16, 24, 32)
_TAIL = 1e-3  # share of the brightest and of the darkest levels that does not count: hot and dead pixels
_NOISE = 0.05  # levels this far below 0, in shares of the brightest, are noise around black
_OFFSET, _OFFSET_BITS = 2**15, 14
"""Signed levels stored as unsigned ones are shifted by half the range; cameras with up to this many bits are known."""
_OVERSHOOT = 2.0  # floating-point levels up to this are a range of [0, 1] that processing has overshot
_EXPOSURES = 2.0
"""Brightest levels of images of one camera follow one another by less than this factor; a camera with two bits more
shows the same scene four times as bright."""
_LEAST_CONTRAST = 0.1  # of the range from black to white; smears that show cells have a quarter and more
CHECKED_STEP = 8  # rows and columns apart at which the contrast is measured of an image of eight bits
_ADVICE = "stretch the contrast and save it as 8 bits (Fiji: Image > Adjust > Brightness/Contrast, Apply)"

_warned: set[str] = set()


@dataclass(frozen=True)
class Levels:
    """What the stored levels of an image mean."""

    black: float  # level of no light
    white: float  # level of full brightness
    low: float  # darkest level of the image, few pixels aside
    high: float  # brightest level of the image, few pixels aside
    note: str = ""  # what to tell the user about them; empty where they are usual

    @property
    def warning(self) -> str:
        """What to tell the user, low contrast included; empty where there is nothing to tell."""
        if self.high - self.low >= _LEAST_CONTRAST * (self.white - self.black):
            return self.note
        contrast = (
            f"its levels lie between {self.low:g} and {self.high:g} in a range of {self.black:g} to {self.white:g}; "
            f"if it shows cells, {_ADVICE}"
        )
        return f"{self.note}; {contrast}" if self.note else contrast


def find_levels(pixels: NDArray[Any], name: str = "image", declared_bits: int | None = None) -> Levels:
    """Black and white of an image, from ``pixels`` of any shape and number type, all or an even sample.
    ``declared_bits`` are the camera's, where the file declares them. Raises InputError for floating-point levels of
    which nothing says what is full brightness.
    """
    if pixels.dtype == np.bool_:
        return Levels(0, 1, 0, 1)
    if np.issubdtype(pixels.dtype, np.floating) and not np.isfinite(pixels).all():
        raise InputError(f"{name}: levels that are not finite; expected levels in [0, 1]")
    low, high = _robust_range(pixels)
    if pixels.dtype == np.uint8:
        return Levels(0, 255, low, high)
    if np.issubdtype(pixels.dtype, np.floating):
        return _floating(low, high, name)
    kind = np.iinfo(pixels.dtype)
    black, note = 0.0, ""
    if kind.min < 0 and low < -_NOISE * max(high, 1):
        if kind.bits > _OFFSET_BITS and high < kind.min + 2**_OFFSET_BITS:
            black = float(kind.min)
        else:
            bits = next((b for b in CAMERA_BITS if low >= -(2 ** (b - 1)) and high < 2 ** (b - 1)), kind.bits)
            black = -(2.0 ** (bits - 1))
            note = f"signed levels from {low:g} to {high:g}; {black:g} is taken as black and {-black - 1:g} as white"
            return Levels(black, -black - 1, low, high, note)
    elif kind.min == 0 and kind.bits == 16 and low >= _OFFSET and high < _OFFSET + 2**_OFFSET_BITS:
        black = float(_OFFSET)
    if black:
        note = f"levels from {low:g} to {high:g}; {black:g} is taken as black"
    bits = declared_bits if declared_bits and high - black < 2**declared_bits else _camera_bits(high - black)
    return Levels(black, min(black + 2.0**bits - 1, float(kind.max)), low, high, note)


def agree(own: Levels, others: Iterable[Levels]) -> Levels:
    """``own`` with the white of its data set, so that an image a little darker is not shown four times as bright.

    Of ``others``, images of the same folder, size and type, those count that an unbroken row of exposures joins to
    it; so the same scene from a camera of another depth does not.
    """
    if own.white - own.black < 255:  # fractions, which know no camera
        return own
    highest = own.high
    for other in sorted(others, key=lambda levels: levels.high):
        if other.black == own.black and highest < other.high < own.black + _EXPOSURES * (highest - own.black):
            highest = other.high
    bits = _camera_bits(highest - own.black)
    if bits == _camera_bits(own.high - own.black):  # a signed type may end below the white of these bits
        return own
    return replace(own, white=max(own.white, own.black + 2.0**bits - 1))


def to_uint8(pixels: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Levels from black to white as 0 to 255; levels outside are clipped, uint8 is left as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    scaled = pixels.astype(np.float32)
    if levels.black:
        scaled -= np.float32(levels.black)
    scaled *= np.float32(255 / (levels.white - levels.black))
    return np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)


def warn_once(path: str | Path, text: str) -> None:
    """Log a warning about a file, once a process; nothing where ``text`` is empty."""
    line = f"{path}: {text}"
    if text and line not in _warned:
        _warned.add(line)
        logging.getLogger(__name__).warning(line)


def _robust_range(pixels: NDArray[Any]) -> tuple[float, float]:
    if not pixels.size:
        return 0.0, 0.0
    if pixels.dtype == np.uint8:  # counting takes a tenth of the time of sorting
        counts = np.cumsum(np.bincount(pixels.ravel(), minlength=256))
        ranks = np.rint((pixels.size - 1) * np.array([_TAIL, 1 - _TAIL]))
        low, high = np.searchsorted(counts, ranks, side="right")
    else:
        low, high = np.quantile(pixels, (_TAIL, 1 - _TAIL), method="nearest")
    return float(low), float(high)


def _camera_bits(highest: float) -> int:
    return next((bits for bits in CAMERA_BITS if highest < 2**bits), CAMERA_BITS[-1])


def _floating(low: float, high: float, name: str) -> Levels:
    span = f"floating-point levels from {low:g} to {high:g}"
    if low < -_NOISE * max(high, 0):
        if low >= -1 and high <= 1:
            return Levels(-1, 1, low, high, f"{span}; -1 is taken as black and 1 as white")
    elif high <= 1:
        return Levels(0, 1, low, high)
    elif high <= _OVERSHOOT:
        return Levels(0, 1, low, high, f"{span}; those above 1 are taken as white")
    elif high < 2**16:
        white = 2.0 ** _camera_bits(high) - 1
        return Levels(0, white, low, high, f"{span}; {white:g} is taken as white")
    raise InputError(f"{name}: {span}; expected levels in [0, 1]; {_ADVICE}")
