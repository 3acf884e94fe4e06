"""Opens image files of every format."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tifffile
from PIL import Image

from bccd_d2.data.preprocessing import read_image
from bccd_d2.errors import InputError
from bccd_d2.io.images import image_errors, looks_complete
from bccd_d2.io.resolution import plausible_microns_per_pixel
from bccd_d2.io.slide_source import SLIDE_SUFFIXES, SlideSource, is_whole_slide
from bccd_d2.io.source import ArraySource, ImageSource
from bccd_d2.io.tiff_source import TiffSource, tiff_pages

__all__ = ["MAX_PIXELS", "ArraySource", "ImageSource", "open_source", "page_count"]

MAX_PIXELS = 200_000_000
"""A file that must be decoded whole and claims more is taken for a decompression bomb: 600 MB of pixels."""

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PILLOW_LIMIT = threading.Lock()


def open_source(path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Open an image file; formats are known by content, not by name.

    Args:
        path: PNG, JPEG, BMP, TIFF, or a whole slide that OpenSlide reads (extra ``slides``).
        page: of a TIFF of several pages, from 0 on; see :func:`page_count`.
        max_pixels: a file (of a TIFF, a strip or tile) that must be decoded whole and claims more pixels is refused.

    Returns:
        A source to be closed after use; whole slides and TIFF are read on demand.

    Raises:
        InputError: the file is empty, cut short, no image, too large, or has no such page.
        OSError: the file cannot be read.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "tiff":
        return TiffSource(path, page, max_pixels)
    if page != 0:
        raise InputError(f"{path}: page {page} does not exist, found one image")
    if kind == "slide":
        return SlideSource(path)
    microns = _check_header(path, max_pixels)
    return ArraySource(read_image(str(path)), str(path), microns)


def page_count(path: str | Path) -> int:
    """How many images a file holds: the pages of a TIFF (levels of a pyramid are one image), otherwise 1.

    Raises:
        InputError: the file is a broken TIFF.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if _kind(path) != "tiff":
        return 1
    with image_errors(path), tifffile.TiffFile(path) as file:
        return len(tiff_pages(file))


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        signature = file.read(4)
    if is_whole_slide(path) or (path.suffix.lower() in SLIDE_SUFFIXES and signature not in _TIFF_SIGNATURES):
        return "slide"
    return "tiff" if signature in _TIFF_SIGNATURES else "picture"


def _check_header(path: Path, max_pixels: int) -> float | None:
    """Refuse what is too large or cut short before it is decoded; returns microns per pixel if the file says so."""
    with image_errors(path), _no_pillow_limit(), Image.open(path) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{path}: {width}x{height} pixels by its header, more than the limit of {max_pixels} pixels; raise the "
                "limit if the file can be trusted"
            )
        if not looks_complete(path, image.format):
            image.load()
        dots_per_inch = image.info.get("dpi", (0, 0))[0]
    return plausible_microns_per_pixel(25_400 / float(dots_per_inch) if dots_per_inch else None)


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Pillow's own limit is the process's, cannot be raised for one file, and is a warning first."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
