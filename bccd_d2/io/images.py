"""What a conversion needs to know of image files, with errors that name the file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bccd_d2.errors import InputError

EXIF_ORIENTATION = 0x0112
EXIF_TRANSPOSED = frozenset({5, 6, 7, 8})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_END = b"\xff\xd9"
JPEG_TAIL = 4096


@contextmanager
def image_errors(path: Path) -> Iterator[None]:
    """Turn what libraries raise for a broken image into one error that names the file.

    Errors of the file system (no such file, no permission, no space) pass unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.filename is not None and not isinstance(error, UnidentifiedImageError):
            raise
        raise InputError(_describe(path, error)) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels ({error})") from error
    except Exception as error:  # each of the many decoders raises kinds of its own
        raise InputError(_describe(path, error)) from error


def read_image_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` in pixels, as a viewer that honours EXIF shows it.

    Only the header is decoded, but a file that was cut short is noticed: PNG by its chunks, JPEG by its end marker,
    others by decoding them.

    Raises:
        InputError: the file is empty, truncated or no image.
    """
    with image_errors(path), Image.open(path) as image:
        if not looks_complete(path, image.format):
            image.load()
        # After loading: a TIFF is turned as it is loaded.
        width, height = image.size
        # Asked for EXIF that is not in its header, a PNG is decoded whole to look for it behind the pixels.
        has_exif = image.format != "PNG" or "exif" in image.info
        turned = has_exif and image.getexif().get(EXIF_ORIENTATION) in EXIF_TRANSPOSED
    return (width, height) if turned else (height, width)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The image as uint8 (height, width, 3), RGB, turned as EXIF says.

    Raises:
        InputError: the file is empty, truncated or no image.
    """
    with image_errors(path), Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def looks_complete(path: Path, kind: str | None) -> bool:
    """Whether the file certainly goes to its end; ``False`` if that is not known."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if kind == "PNG":
            return (b"IEND", True) in png_chunks(file, size)
        if kind == "JPEG":
            file.seek(-min(JPEG_TAIL, size), os.SEEK_END)
            return JPEG_END in file.read()
    return False


def png_chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Name of each chunk of a PNG of ``size`` bytes, and whether the file holds all of it; nothing comes after one not.

    The last one of a whole PNG is ``IEND``.
    """
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        fits = file.tell() + length <= size
        yield name, fits
        if not fits or name == b"IEND":
            return
        file.seek(length + 4, os.SEEK_CUR)


def _describe(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    if size == 0:
        return f"{path}: empty file, expected an image"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: {size} bytes of no known image format, expected an image"
    return f"{path}: {size} bytes that cannot be decoded ({error}), expected a whole image"
