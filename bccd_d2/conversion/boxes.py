"""Annotated boxes of one image, and how they are fitted to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError

MIN_SIDE = 3
"""Boxes with a shorter side, in pixels, are slips of the mouse: the smallest platelets are some 15 pixels wide."""
MAX_COORDINATE = 1 << 24


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of one image as a file gives them."""

    source: str  # the file, for messages
    # int64 (n, 4), x0, y0, x1, y1 in pixels of the native image, half-open: a box that covers the whole image is 0,
    # 0, width, height
    corners: NDArray[np.int64]
    names: tuple[str, ...]  # category of each box in the words of the file
    difficult: NDArray[np.bool_]  # bool (n,), boxes that their annotator was not sure of
    # (height, width) of the image according to the file, ``None`` where it does not say
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def only(self, chosen: NDArray[np.bool_]) -> ImageBoxes:
        """The boxes where ``chosen``, bool (n,), is true."""
        names = tuple(name for name, kept in zip(self.names, chosen) if kept)
        return ImageBoxes(self.source, self.corners[chosen], names, self.difficult[chosen], self.size)


FindBoxes = Callable[[ImageRecord], ImageBoxes | None]
"""Gives the boxes of an image, ``None`` where it has none; raises InputError for a broken file. Picklable, because
images are converted in several processes."""


def make_boxes(
    source: str,
    corners: list[tuple[int, int, int, int]],
    names: list[str],
    difficult: list[bool] | None = None,
    size: tuple[int, int] | None = None,
) -> ImageBoxes:
    """Put lists together; a list without boxes gives arrays of the right shape too."""
    flags = np.array(difficult or [False] * len(names), bool)
    return ImageBoxes(source, np.array(corners, np.int64).reshape(-1, 4), tuple(names), flags, size)


def fit_boxes(boxes: ImageBoxes, image: ImageRecord) -> tuple[ImageBoxes, Counter[str]]:
    """Clip boxes to the image and drop those that nothing can be seen in. Raises InputError if the file speaks of
    an image of another size.
    """
    if boxes.size is not None and boxes.size != (image.height, image.width):
        raise InputError(
            f"{boxes.source}: boxes for an image of {boxes.size[1]}x{boxes.size[0]} pixels, "
            f"expected {image.width}x{image.height} as {image.path}"
        )
    limits = np.array([image.width, image.height, image.width, image.height])
    corners = np.clip(boxes.corners, 0, limits)
    clipped = np.any(corners != boxes.corners, axis=1)
    large = np.all(corners[:, 2:] - corners[:, :2] >= MIN_SIDE, axis=1)
    counts = Counter({"boxes": len(boxes)})
    if n := int((clipped & large).sum()):
        counts["boxes clipped to the image"] = n
    if n := int((~large).sum()):
        counts[f"boxes under {MIN_SIDE} pixels or outside the image, dropped"] = n
    return replace(boxes, corners=corners).only(large), counts


def shared_stem_error(image: ImageRecord, source: str) -> InputError:
    """Boxes are joined by stem, and the stem of ``image`` carries a folder because another image has the same."""
    name = image.stem.rpartition("/")[2]
    return InputError(
        f"{source}: boxes for {name!r}, a stem that several images share ({image.path} is one of them), expected "
        "different stems"
    )


def parse_coordinate(value: Any, where: str) -> float:
    """A finite number of a sensible size from JSON or text; raises InputError for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_COORDINATE:
        raise InputError(f"{where}: {str(value)[:40]!r}, expected a number of pixels")
    return number
