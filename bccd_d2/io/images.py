"""The one reader of images, for audit, conversion, training, evaluation, prediction and the page alike."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bccd_d2.errors import InputError
from bccd_d2.io.dicom import frame_count, frame_size, microns_per_pixel, read_frame, read_header
from bccd_d2.io.file_kinds import (
    MICROSCOPE_FORMATS,
    PNG_SIGNATURE,
    TIFF_SIGNATURES,
    WAY_OUT,
    image_errors,
    is_dicom,
    looks_complete,
    microscope_format,
    png_chunks,
    read_head,
)
from bccd_d2.io.levels import CHECKED_STEP, Levels, agree, find_levels, to_uint8, warn_once
from bccd_d2.io.slide_source import SLIDE_SUFFIXES, SlideSource, is_whole_slide
from bccd_d2.io.sources import ArraySource, ImageSource
from bccd_d2.io.tiff_layout import plausible_microns_per_pixel, tiff_images
from bccd_d2.io.tiff_source import TiffSource

MAX_PIXELS = 200_000_000
"""A file that must be decoded whole and claims more is taken for a decompression bomb: 600 MB of pixels."""

_EXIF_ORIENTATION = 0x0112
_EXIF_TRANSPOSED = frozenset({5, 6, 7, 8})
_SIBLINGS = 16  # images of a folder, spread evenly, by which its depth is known
_PICTURES = (PNG_SIGNATURE, b"\xff\xd8\xff", b"BM")
_PILLOW_LIMIT = threading.Lock()


def read_image(path: str | Path, image_format: Literal["BGR", "RGB"] | str = "BGR") -> NDArray[np.uint8]:
    """Read an image (of several pages the first) at native size, turned upright as its EXIF orientation says:
    (height, width, 3) uint8 in the colour order ``image_format``, "BGR" or "RGB".

    More than eight bits are scaled as :mod:`bccd_d2.io.levels` says. What is unusual about the levels is logged,
    once a file. Raises InputError for a file that is empty, cut short or no image, OSError for one that cannot be
    read.
    """
    if image_format not in ("BGR", "RGB"):
        raise InputError(f"INPUT.FORMAT is {image_format!r}; expected BGR or RGB")
    path = Path(path)
    kind = _kind(path)
    if kind == "picture":
        image = _read_picture(path)
    else:
        pages = page_count(path)
        if pages > 1:
            warn_once(path, f"{pages} pages, of which the first is taken")
        with open_source(path) as source:
            image = source.read(0, 0, source.width, source.height)
    return np.asarray(image if image_format == "BGR" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_image_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` in pixels, as :func:`read_image` reads it.

    Only the header is decoded, but a file that was cut short is noticed: PNG by its chunks, JPEG by its end marker,
    TIFF by the places of its strips, others by decoding them. Raises InputError as :func:`read_image`.
    """
    kind = _kind(path)
    if kind == "dicom":
        return frame_size(read_header(path))
    if kind != "picture":
        with open_source(path, measure=False) as source:
            return source.height, source.width
    with image_errors(path), Image.open(path) as image:
        if not looks_complete(path, image.format):
            image.load()
        width, height = image.size
        turned = exif_orientation(image) in _EXIF_TRANSPOSED
    return (width, height) if turned else (height, width)


def exif_orientation(image: Image.Image) -> int:
    """Orientation of an image that Pillow has opened; 1 is upright."""
    # Asked for EXIF that is not in its header, a PNG is decoded whole to look for it behind the pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def read_orientation(path: Path) -> int:
    """EXIF or TIFF orientation by which an image file is turned as it is read; 1 is upright. Raises InputError for
    a file that is no image.
    """
    kind = _kind(path)
    if kind == "picture":
        with image_errors(path), Image.open(path) as image:
            return exif_orientation(image)
    if kind == "tiff":
        with image_errors(path), tifffile.TiffFile(path) as file:
            return int(file.pages.first.tags.valueof(274, default=1))
    return 1


def open_source(
    path: str | Path, *, page: int = 0, max_pixels: int = MAX_PIXELS, measure: bool = True
) -> ImageSource:
    """Open a PNG, JPEG, BMP, JPEG 2000, WebP, TIFF or DICOM (extra ``dicom``), or a whole slide that OpenSlide reads
    (extra ``slides``), known by content and not by name.

    Whole slides and TIFF are read on demand; close the source after use. ``page`` counts the images of a TIFF and the
    frames of a DICOM from 0, see :func:`page_count`. What must be decoded whole (of a TIFF, a strip or tile) is
    refused above ``max_pixels``. Without ``measure`` only the size of a TIFF of more than eight bits is known. Raises
    InputError for a file that is empty, cut short, no image, too large, or has no such page.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "tiff":
        source = TiffSource(path, page, max_pixels, measure=measure)
        if measure and source.levels is not None:
            if source.is_deep:
                source.levels = _levels_of_set(path, source.levels, source.shape, source.levels_declared)
            warn_once(path, source.levels.warning)
        return source
    if kind == "dicom":
        return _open_dicom(path, page, max_pixels)
    if page != 0:
        raise InputError(f"{path}: page {page} does not exist, found one image")
    if kind == "slide":
        return SlideSource(path)
    microns = _check_header(path, max_pixels)
    return ArraySource(_read_picture(path), str(path), microns)


def page_name(name: str, page: int, pages: int) -> str:
    """Name of the image of a page, counted from 0, of a file called ``name``: ``NAME.page001`` if it has several."""
    return name if pages == 1 else f"{name}.page{page + 1:03d}"


def page_count(path: str | Path) -> int:
    """How many images a file holds: the pages of a TIFF (levels of a pyramid are one image), the frames of a
    DICOM, otherwise 1. Raises InputError for a broken file.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "dicom":
        return frame_count(path)
    if kind != "tiff":
        return 1
    with image_errors(path), tifffile.TiffFile(path) as file:
        return len(tiff_images(file, str(path)))


def _kind(path: Path) -> Literal["slide", "dicom", "tiff", "picture"]:
    head = read_head(path)
    slide_name = path.suffix.lower() in SLIDE_SUFFIXES  # MIRAX files begin as JPEG do
    if head.startswith(_PICTURES) and not slide_name:
        return "picture"
    if is_whole_slide(path):
        return "slide"
    if is_dicom(head):
        return "dicom"
    if head.startswith(TIFF_SIGNATURES) and path.suffix.lower() != ".vsi":
        return "tiff"
    known = microscope_format(path, head)
    if known is not None:
        raise InputError(f"{path}: {known}, which is not read; {WAY_OUT}")
    return "slide" if slide_name and path.suffix.lower() not in MICROSCOPE_FORMATS else "picture"


def _open_dicom(path: Path, page: int, max_pixels: int) -> ArraySource:
    header, frames = read_header(path), frame_count(path)
    height, width = frame_size(header)
    if height * width > max_pixels:
        raise InputError(f"{path}: {width}x{height} pixels, more than the limit of {max_pixels} pixels")
    if not 0 <= page < frames:
        raise InputError(f"{path}: page {page} does not exist, found pages 0 to {frames - 1}")
    pixels, bits = read_frame(path, page)
    levels = find_levels(pixels, str(path), bits)
    warn_once(path, levels.warning)
    return ArraySource(to_uint8(pixels, levels), str(path), microns_per_pixel(header))


def _read_picture(path: Path) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 BGR of a file that is decoded whole."""
    pixels, bits = _decode(path)
    if (frames := _frame_count(path)) > 1:
        warn_once(path, f"{frames} frames, of which the first is taken")
    if pixels.dtype == np.uint8:
        levels = find_levels(pixels[::CHECKED_STEP, ::CHECKED_STEP])
        image = pixels
    else:
        levels = _levels_of_set(path, find_levels(pixels, str(path), bits), pixels.shape, bits is not None)
        image = to_uint8(pixels, levels)
    warn_once(path, levels.warning)
    return image


def _frame_count(path: Path) -> int:
    """Frames of an animated GIF, WebP or PNG; 1 for other files."""
    if not read_head(path).startswith((b"GIF8", b"RIFF", PNG_SIGNATURE)):
        return 1
    with image_errors(path), _no_pillow_limit(), Image.open(path) as image:
        return getattr(image, "n_frames", 1)


def _decode(path: Path) -> tuple[NDArray[Any], int | None]:
    """(height, width, 3) BGR as stored, and the bits of the camera where the file declares them."""
    encoded = np.fromfile(path, np.uint8)
    chunks = []
    if encoded[: len(PNG_SIGNATURE)].tobytes() == PNG_SIGNATURE:
        chunks = list(png_chunks(io.BytesIO(encoded.data), encoded.size))
        if not all(fits for _, fits, _ in chunks):
            # OpenCV would take the word of a chunk for its length: up to half a minute and 2 GB.
            raise InputError(f"{path}: {encoded.size} bytes that are cut short, expected a whole image")
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if encoded.size else None
    except cv2.error as error:  # more pixels than OpenCV takes, or than there is memory for
        raise InputError(f"{path}: cannot be decoded ({error.err})") from error
    if pixels is None:
        with image_errors(path), Image.open(path) as image:
            rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        return np.ascontiguousarray(rgb[..., ::-1]), None
    significant = [max(first[:3]) for name, _, first in chunks if name == b"sBIT" and first]
    bits = significant[0] if significant else _jpeg2000_bits(encoded)
    return pixels, bits if bits and bits < 8 * pixels.dtype.itemsize else None


def _jpeg2000_bits(encoded: NDArray[np.uint8]) -> int | None:
    head = encoded[:4096].tobytes()
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 43 > len(head):
        return None
    return (head[start + 42] & 0x7F) + 1


def _levels_of_set(path: Path, own: Levels, shape: tuple[int, ...], declared: bool) -> Levels:
    """``own`` as it agrees with the images of the same folder, unless the file itself declares its depth."""
    if declared:
        return own
    return agree(own, _folder_levels(path.parent, path.suffix.lower(), shape[:2]))


@lru_cache(maxsize=64)
def _folder_levels(folder: Path, suffix: str, size: tuple[int, int]) -> tuple[Levels, ...]:
    """Levels of images of a folder that have this suffix, this size and more than eight bits."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith("."))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(_SIBLINGS, len(paths))).round().astype(int))
    found = []
    for path in (paths[index] for index in chosen):
        try:
            if _kind(path) == "tiff":
                with TiffSource(path, 0, MAX_PIXELS) as source:
                    levels = source.levels if source.is_deep and source.shape[:2] == size else None
            else:
                levels = None
                if read_image_size(path) == size:
                    pixels, bits = _decode(path)
                    levels = None if pixels.dtype == np.uint8 else find_levels(pixels, str(path), bits)
        except (InputError, OSError):  # reported where this file itself is read
            continue
        if levels is not None:
            found.append(levels)
    return tuple(found)


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
