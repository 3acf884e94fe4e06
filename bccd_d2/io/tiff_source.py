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
from bccd_d2.io.file_kinds import ORIENTATIONS, image_errors, upright
from bccd_d2.io.levels import CHECKED_STEP, Levels, find_levels, to_uint8, warn_once
from bccd_d2.io.sources import ImageSource, sample_blocks
from bccd_d2.io.tiff_layout import (
    RGB_ADVICE,
    declared_bits,
    plausible_microns_per_pixel,
    tiff_images,
    tiff_microns_per_pixel,
)

# Strips as wide as the image are needed again by every tile of a row.
_CACHE_BYTES = 256 * 2**20
# Samples of a pixel that are colour; what comes after them is transparency.
_COLOUR_SAMPLES = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}
_JPEG = (6, 7)  # compressions that give RGB for YCbCr
_ALPHA = (1, 2)  # ExtraSamples of a TIFF: associated and unassociated alpha


class TiffSource(ImageSource):
    """One image of a TIFF: strips or tiles, any compression that ``imagecodecs`` knows, 1 to 32 bits.

    Grey, RGB, palette, YCbCr (JPEG) and CMYK; an alpha channel is dropped. Three samples that no tag calls RGB, in
    one page or in three, are red, green and blue. ``page`` is an index into
    :func:`bccd_d2.io.tiff_layout.tiff_images`; a strip or tile above ``max_pixels`` is refused; ``measure`` finds
    ``levels`` of samples of more than eight bits on an even sample of the image, ``levels_declared`` says whether
    the file tells the bits of its camera. Raises InputError for a file that is broken or cut short, has no such
    page, or a kind of pixels that is not read.
    """

    def __init__(self, path: Path, page: int, max_pixels: int, *, measure: bool = True) -> None:
        self.name = str(path)
        self._path = path
        self._cache: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._cached_bytes = 0
        with image_errors(path):
            self._file = tifffile.TiffFile(path)
            images = tiff_images(self._file, self.name)
        if not 0 <= page < len(images):
            raise InputError(f"{self.name}: page {page} does not exist, found pages 0 to {len(images) - 1}")
        self._planes = images[page]
        self._page = self._planes[0]
        for plane in self._planes:
            self._check(plane, max_pixels)
        self._colours = self._colour_samples()
        height, width = self._page.imagelength, self._page.imagewidth
        stored = self._page.tags.valueof(274, default=1)
        self.orientation = stored if stored in ORIENTATIONS else 1
        self._transposed, self._columns_backward, self._rows_backward = ORIENTATIONS[self.orientation]
        self.height, self.width = (width, height) if self._transposed else (height, width)
        with image_errors(path):
            self.microns_per_pixel = plausible_microns_per_pixel(
                tiff_microns_per_pixel(self._file, self._page)
            )
            bits = declared_bits(self._file, self._page)
            self._pixels = [
                tifffile.memmap(self._path, page=plane.index, mode="r")
                if plane.is_memmappable and not plane.is_subifd
                else None
                for plane in self._planes
            ]
        self.levels: Levels | None = None
        self.levels_declared = bits is not None
        if measure and self.is_deep:
            sample = np.concatenate([b.ravel() for b in sample_blocks(height, width, self._stored_colours)])
            self.levels = find_levels(sample, self.name, bits)
        self._seen: list[Levels] = []
        self._seen_pixels = 0

    @property
    def is_deep(self) -> bool:
        """Whether it has other samples than those of eight bits that are shown as they are."""
        return self._page.dtype != np.uint8 and self._page.photometric.name != "PALETTE"

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) as shown."""
        return self.height, self.width

    def _check(self, page: Any, max_pixels: int) -> None:
        colours = getattr(page.photometric, "name", page.photometric)  # a number where there is no such space
        if colours not in _COLOUR_SAMPLES:
            raise InputError(
                f"{self.name}: TIFF of colour space {colours}, expected one of {', '.join(_COLOUR_SAMPLES)}"
            )
        if (
            page.imagedepth != 1
            or min(page.imagelength, page.imagewidth) < 1
            or page.dtype is None
            or np.issubdtype(page.dtype, np.complexfloating)
        ):
            raise InputError(
                f"{self.name}: TIFF of shape {page.shape} and type {page.dtype}, expected an image"
            )
        if self._is_ycbcr(page) and (
            page.dtype != np.uint8 or page.tags.valueof(530, default=(2, 2)) != (1, 1)
        ):
            raise InputError(f"{self.name}: YCbCr with fewer samples of colour than of light; {RGB_ADVICE}")
        if page.shape != self._page.shape or page.dtype != self._page.dtype:
            raise InputError(f"{self.name}: channels of shape {self._page.shape} and {page.shape}")
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

    def _colour_samples(self) -> int:
        """How many of the first samples of a pixel are its colour: 1, 3 or 4."""
        page, photometric = self._page, self._page.photometric.name
        if len(self._planes) > 1:
            return len(self._planes)
        expected = _COLOUR_SAMPLES[photometric]
        transparent = sum(int(kind) in _ALPHA for kind in page.extrasamples)
        found = page.samplesperpixel - transparent
        if photometric in ("MINISBLACK", "MINISWHITE") and found == 3:
            return 3
        if found < expected or (photometric in ("MINISBLACK", "MINISWHITE") and found > 1):
            raise InputError(
                f"{self.name}: {found} channels ({photometric}), expected {expected}, or 3 as red, green and blue; "
                f"{RGB_ADVICE}"
            )
        if found > expected:
            warn_once(self.name, f"{found} channels ({photometric}), of which the first {expected} are taken")
        return expected

    @staticmethod
    def _is_ycbcr(page: Any) -> bool:
        return page.photometric.name == "YCBCR" and page.compression not in _JPEG

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
        image = upright(image, self.orientation)
        if not self.is_deep:
            self._seen.append(find_levels(image[::CHECKED_STEP, ::CHECKED_STEP]))
            self._seen_pixels += height * width
        return np.ascontiguousarray(image)

    def close(self) -> None:
        """See :meth:`ImageSource.close`."""
        if self._seen_pixels >= self.height * self.width / 2:
            low, high = min(seen.low for seen in self._seen), max(seen.high for seen in self._seen)
            warn_once(self.name, Levels(0, 255, low, high).warning)
        self._seen.clear()
        self._seen_pixels = 0
        self._cache.clear()
        self._pixels = []
        self._file.close()

    def _stored_colours(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        return self._stored(x, y, width, height)[..., : self._colours]

    def _stored(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """(height, width, samples) as stored: neither turned nor converted."""
        planes = [self._stored_plane(plane, x, y, width, height) for plane in range(len(self._planes))]
        return planes[0] if len(planes) == 1 else np.concatenate([plane[..., :1] for plane in planes], axis=2)

    def _stored_plane(self, plane: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        page, pixels = self._planes[plane], self._pixels[plane]
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        if pixels is not None:
            shape = (page.samplesperpixel, page.imagelength, page.imagewidth)
            if separate:
                return pixels.reshape(shape)[:, y : y + height, x : x + width].transpose(1, 2, 0)
            return pixels.reshape(*shape[1:], shape[0])[y : y + height, x : x + width]
        result = np.zeros((height, width, page.samplesperpixel), page.dtype)
        for index, sample, top, left in self._segments(x, y, width, height, separate):
            segment = self._segment(plane, index)
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
        if min(rows, columns) < 1:
            raise InputError(f"{self.name}: pieces of {columns}x{rows} pixels, expected 1 or more")
        across = math.ceil(self._page.imagewidth / columns)
        down = math.ceil(self._page.imagelength / rows)
        for sample in range(self._page.samplesperpixel if separate else 1):
            for row in range(y // rows, (y + height - 1) // rows + 1):
                for column in range(x // columns, (x + width - 1) // columns + 1):
                    yield (sample * down + row) * across + column, sample, row * rows, column * columns

    def _segment(self, plane: int, index: int) -> NDArray[Any]:
        """(rows, columns, samples) of one strip or tile."""
        key = plane, index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        page = self._planes[plane]
        handle = self._file.filehandle
        if index >= len(page.dataoffsets):
            raise InputError(
                f"{self.name}: {len(page.dataoffsets)} strips or tiles, expected more for this size"
            )
        handle.seek(page.dataoffsets[index])
        encoded = handle.read(page.databytecounts[index])
        try:
            decoded, _, shape = page.decode(encoded or None, index, jpegtables=page.jpegtables)
        except Exception as error:  # each of the many decoders raises kinds of its own
            raise InputError(f"{self.name}: strip or tile {index} cannot be decoded ({error})") from error
        segment = np.full(shape, page.nodata, page.dtype)[0] if decoded is None else decoded[0]
        self._cache[key] = segment
        self._cached_bytes += segment.nbytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return segment

    def _to_bgr(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        photometric = self._page.photometric.name
        colour = stored[..., : self._colours]
        if photometric == "PALETTE":
            # 16-bit levels; writers make them of eight bits by 256 or by 257.
            table = (np.asarray(self._page.colormap) >> 8).astype(np.uint8)
            return np.ascontiguousarray(table[::-1].T[colour[..., 0]])
        if self.is_deep:
            if self.levels is None:
                raise ValueError(f"{self.name} was opened for its size alone")
            colour = to_uint8(np.asarray(colour), self.levels)
        levels = np.ascontiguousarray(colour)
        if photometric == "SEPARATED":
            white = 255 - levels.astype(np.uint16)
            return ((white[..., 2::-1] * white[..., 3:] + 127) // 255).astype(np.uint8)
        if photometric == "MINISWHITE":
            levels = 255 - levels
        if self._is_ycbcr(self._page):
            return np.asarray(cv2.cvtColor(levels[..., [0, 2, 1]], cv2.COLOR_YCrCb2BGR), np.uint8)
        code = cv2.COLOR_GRAY2BGR if levels.shape[2] == 1 else cv2.COLOR_RGB2BGR
        return np.asarray(cv2.cvtColor(levels, code), np.uint8)
