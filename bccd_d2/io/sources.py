"""What an image is to the predictor: something that is read region by region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

# Up to this many blocks of this side are read of an image to learn its colours: all of 6144x6144 pixels, or an even
# sample of more.
_BLOCK = 512
_BLOCKS_A_SIDE = 12
SAMPLED_PIXELS = 250_000


class ImageSource(ABC):
    """An image ``height`` by ``width`` that is read region by region, in native pixels, upright as its EXIF
    orientation says. ``name`` is what messages call it; ``microns_per_pixel`` is ``None`` where the file says
    nothing.
    """

    name: str  # what messages call it
    height: int  # in native pixels
    width: int  # in native pixels
    microns_per_pixel: float | None = None  # as the file says; ``None`` where it says nothing

    @abstractmethod
    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A region inside the image, (height, width, 3) uint8 BGR, from its left column ``x`` and upper row ``y``.
        Raises InputError where this part of the file cannot be decoded.
        """

    def close(self) -> None:  # noqa: B027  most sources hold no file open
        """Give back what :func:`bccd_d2.io.images.open_source` took."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ArraySource(ImageSource):
    """An image in memory, (height, width, 3) uint8 BGR; raises ValueError for any other array."""

    def __init__(
        self, image: NDArray[np.uint8], name: str = "image", microns_per_pixel: float | None = None
    ) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"image of shape {image.shape}, {image.dtype}; expected (height, width, 3) of uint8"
            )
        self._image = image
        self.name = name
        self.height, self.width = image.shape[:2]
        self.microns_per_pixel = microns_per_pixel

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See :meth:`ImageSource.read`."""
        return self._image[y : y + height, x : x + width]


def sample_blocks(
    height: int, width: int, read: Callable[[int, int, int, int], NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    """Pixels spread evenly over an image of any size, row of blocks by row of blocks, a quarter of a million at
    most.

    Up to 6144x6144 pixels all blocks together are every n-th row and column of the image; of larger ones some blocks
    are read. ``read`` is called with x, y, width and height and gives (height, width, channels).
    """
    ys, xs = _block_starts(height), _block_starts(width)
    covered = min(height, len(ys) * _BLOCK) * min(width, len(xs) * _BLOCK)
    step = max(1, int(np.ceil(np.sqrt(covered / SAMPLED_PIXELS))))
    for y in ys:
        rows = range(-(-y // step) * step, min(y + _BLOCK, height), step)
        if not rows:
            continue
        row_of_blocks = []
        for x in xs:
            columns = range(-(-x // step) * step, min(x + _BLOCK, width), step)
            if columns:
                block = read(x, y, min(_BLOCK, width - x), min(_BLOCK, height - y))
                row_of_blocks.append(block[rows.start - y :: step, columns.start - x :: step])
        yield np.concatenate(row_of_blocks, axis=1)


def sample_image(source: ImageSource) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8 BGR: pixels of a source as :func:`sample_blocks` picks them, as one image."""
    rows = list(sample_blocks(source.height, source.width, source.read))
    columns = min(row.shape[1] for row in rows)
    return np.concatenate([row[:, :columns] for row in rows])


def sample_pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same of an image in memory, (height, width, 3) uint8."""
    return sample_image(ArraySource(image))


def _block_starts(length: int) -> list[int]:
    """Where blocks begin: one after the other where they cover the length, else spread evenly."""
    needed = -(-length // _BLOCK)
    if needed <= _BLOCKS_A_SIDE:
        return [index * _BLOCK for index in range(needed)]
    return [round(index * (length - _BLOCK) / (_BLOCKS_A_SIDE - 1)) for index in range(_BLOCKS_A_SIDE)]
