"""Reading image sizes and mask files, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bccd_d2.errors import InputError

EXIF_ORIENTATION = 0x0112
EXIF_TRANSPOSED = frozenset({5, 6, 7, 8})


def read_image_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` in pixels, as a viewer that honours EXIF shows it, from the header alone.

    Raises:
        InputError: the file is empty or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(EXIF_ORIENTATION) in EXIF_TRANSPOSED
    except (UnidentifiedImageError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
    return (width, height) if turned else (height, width)


def read_binary_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask of two values, 0 and one other, in one channel or in equal channels.

    Returns:
        uint8 array (height, width), 1 where the mask is not 0.

    Raises:
        InputError: the file is no image, its channels differ, or it holds more than two values.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (UnidentifiedImageError, SyntaxError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(f"{path}: not a readable mask ({error})") from error
    if values.ndim == 3:
        first = np.ascontiguousarray(values[..., 0])
        if any(
            not np.array_equal(first, values[..., channel]) for channel in range(1, min(values.shape[2], 3))
        ):
            raise InputError(
                f"{path}: coloured mask, expected two values in one channel or in equal channels"
            )
        values = first
    foreground = values != 0
    if foreground.any():
        inside = values[foreground]
        if inside.min() != inside.max():
            found = np.unique(inside)
            raise InputError(
                f"{path}: mask with {len(found) + 1} values ({found[0]} to {found[-1]}), "
                "expected 0 and one other value"
            )
    return foreground.astype(np.uint8)
