"""TIFF of any layout, read by the strips or tiles that a region needs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.io.images import image_errors
from bccd_d2.io.levels import full_scale, to_uint8
from bccd_d2.io.resolution import plausible_microns_per_pixel, tiff_microns_per_pixel
from bccd_d2.io.source import ImageSource, sample_blocks

# Strips as wide as the image are needed again by every tile of a row.
_CACHE_BYTES = 256 * 2**20
# Orientation of TIFF and EXIF: whether rows and columns change places, and then whether columns and rows run backward.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_WHOLE_SLIDES = ("is_svs", "is_scn", "is_ndpi", "is_philips", "is_bif", "is_qpi")
_TRANSPARENT_SAMPLES = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}


def tiff_pages(file: tifffile.TiffFile) -> list[Any]:
    """The images of a TIFF at full size: reduced copies, masks and a slide's label are left out."""
    series = file.series
    if any(getattr(file, kind, False) for kind in _WHOLE_SLIDES):
        series = series[:1]
    pages = [page.aspage() for one in series for page in one.levels[0].pages if page is not None]
    full = [page for page in pages if not (page.is_reduced or page.is_mask)]
    return full or pages[:1]


class TiffSource(ImageSource):
    """One page of a TIFF: strips or tiles, any compression that ``imagecodecs`` knows, 1 to 32 bits.

    Grey, RGB, palette, YCbCr (JPEG) and CMYK; an alpha channel is dropped. More than eight bits are scaled by
    :func:`bccd_d2.io.levels.full_scale`, found on an even sample of the image.

    Args:
        path: the file.
        page: index into :func:`tiff_pages`.
        max_pixels: a strip or tile of more pixels is refused.

    Raises:
        InputError: the file is broken or cut short, has no such page, or a kind of pixels that is not read.
    """

    def __init__(self, path: Path, page: int, max_pixels: int) -> None:
        self.name = str(path)
        self._path = path
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._cached_bytes = 0
        with image_errors(path):
            self._file = tifffile.TiffFile(path)
        try:
            with image_errors(path):
                self._open_page(page, max_pixels)
        except BaseException:
            self._file.close()
            raise

    def _open_page(self, page: int, max_pixels: int) -> None:
        pages = tiff_pages(self._file)
        if not 0 <= page < len(pages):
            raise InputError(f"{self.name}: page {page} does not exist, found pages 0 to {len(pages) - 1}")
        self._page = pages[page]
        self._check(max_pixels)
        height, width = self._page.imagelength, self._page.imagewidth
        orientation = self._page.tags.valueof(274, default=1)
        self._transposed, self._columns_backward, self._rows_backward = _ORIENTATIONS.get(
            orientation, _ORIENTATIONS[1]
        )
        self.height, self.width = (width, height) if self._transposed else (height, width)
        self.microns_per_pixel = plausible_microns_per_pixel(tiff_microns_per_pixel(self._file, self._page))
        self._pixels = (
            tifffile.memmap(self._path, page=self._page.index, mode="r")
            if self._page.is_memmappable and not self._page.is_subifd
            else None
        )
        self._full = 255.0
        if self._page.dtype != np.uint8 and self._page.photometric.name != "PALETTE":
            bits = self._page.bitspersample
            sample = np.concatenate([b.ravel() for b in sample_blocks(height, width, self._stored)])
            self._full = full_scale(sample, self.name) if bits in (16, 32, 64) else float(2**bits - 1)

    def _check(self, max_pixels: int) -> None:
        page = self._page
        if page.photometric.name not in _TRANSPARENT_SAMPLES:
            raise InputError(
                f"{self.name}: TIFF of colour space {page.photometric.name}, expected one of "
                f"{', '.join(_TRANSPARENT_SAMPLES)}"
            )
        if page.imagedepth != 1 or page.dtype is None or np.issubdtype(page.dtype, np.complexfloating):
            raise InputError(
                f"{self.name}: TIFF of shape {page.shape} and type {page.dtype}, expected an image"
            )
        size = self._file.filehandle.size
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts) if count]
        if not ends or max(ends) > size:
            raise InputError(
                f"{self.name}: {size} bytes, expected {max(ends, default=0)}: the file is cut short"
            )
        rows, columns = self._segment_size()
        if not page.is_memmappable and rows * columns > max_pixels:
            raise InputError(
                f"{self.name}: a piece of {columns}x{rows} pixels must be decoded at once, more than the limit of "
                f"{max_pixels} pixels; raise the limit if the file can be trusted"
            )

    def _segment_size(self) -> tuple[int, int]:
        page = self._page
        if page.is_tiled:
            return page.tilelength, page.tilewidth
        return min(page.rowsperstrip, page.imagelength), page.imagewidth

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See :meth:`ImageSource.read`."""
        if self._columns_backward:
            x = self.width - x - width
        if self._rows_backward:
            y = self.height - y - height
        if self._transposed:
            x, y, width, height = y, x, height, width
        with image_errors(self._path):
            image = self._to_bgr(self._stored(x, y, width, height))
        if self._transposed:
            image = image.transpose(1, 0, 2)
        image = image[:: -1 if self._rows_backward else 1, :: -1 if self._columns_backward else 1]
        return np.ascontiguousarray(image)

    def close(self) -> None:
        """See :meth:`ImageSource.close`."""
        self._cache.clear()
        self._pixels = None
        self._file.close()

    def _stored(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """(height, width, samples) as stored: neither turned nor converted."""
        page = self._page
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        if self._pixels is not None:
            shape = (page.samplesperpixel, page.imagelength, page.imagewidth)
            if separate:
                return self._pixels.reshape(shape)[:, y : y + height, x : x + width].transpose(1, 2, 0)
            return self._pixels.reshape(*shape[1:], shape[0])[y : y + height, x : x + width]
        result = np.zeros((height, width, page.samplesperpixel), page.dtype)
        for index, sample, top, left in self._segments(x, y, width, height, separate):
            segment = self._segment(index)
            x0, y0 = max(left, x), max(top, y)
            x1, y1 = min(left + segment.shape[1], x + width), min(top + segment.shape[0], y + height)
            samples = slice(sample, sample + 1) if separate else slice(None)
            part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
            result[y0 - y : y1 - y, x0 - x : x1 - x, samples] = part
        return result

    def _segments(
        self, x: int, y: int, width: int, height: int, separate: bool
    ) -> Iterator[tuple[int, int, int, int]]:
        """Index, sample, upper row and left column of the strips or tiles that a region touches."""
        rows, columns = self._segment_size()
        across = math.ceil(self._page.imagewidth / columns)
        down = math.ceil(self._page.imagelength / rows)
        for sample in range(self._page.samplesperpixel if separate else 1):
            for row in range(y // rows, (y + height - 1) // rows + 1):
                for column in range(x // columns, (x + width - 1) // columns + 1):
                    yield (sample * down + row) * across + column, sample, row * rows, column * columns

    def _segment(self, index: int) -> NDArray[Any]:
        """(rows, columns, samples) of one strip or tile."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        page = self._page
        handle = self._file.filehandle
        handle.seek(page.dataoffsets[index])
        encoded = handle.read(page.databytecounts[index])
        try:
            decoded, _, shape = page.decode(encoded or None, index, jpegtables=page.jpegtables)
        except Exception as error:  # each of the many decoders raises kinds of its own
            raise InputError(f"{self.name}: strip or tile {index} cannot be decoded ({error})") from error
        segment = np.full(shape, page.nodata, page.dtype)[0] if decoded is None else decoded[0]
        self._cache[index] = segment
        self._cached_bytes += segment.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return segment

    def _to_bgr(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        photometric = self._page.photometric.name
        colour = stored[..., : _TRANSPARENT_SAMPLES[photometric]]
        if photometric == "PALETTE":
            # 16-bit levels; writers make them of eight bits by 256 or by 257.
            table = (np.asarray(self._page.colormap) >> 8).astype(np.uint8)
            return np.ascontiguousarray(table[::-1].T[colour[..., 0]])
        levels = np.ascontiguousarray(to_uint8(np.asarray(colour), self._full))
        if photometric == "SEPARATED":
            white = 255 - levels.astype(np.uint16)
            return ((white[..., 2::-1] * white[..., 3:] + 127) // 255).astype(np.uint8)
        if photometric == "MINISWHITE":
            levels = 255 - levels
        code = cv2.COLOR_GRAY2BGR if levels.shape[2] == 1 else cv2.COLOR_RGB2BGR
        return np.asarray(cv2.cvtColor(levels, code), np.uint8)
