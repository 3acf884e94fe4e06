"""What a file is, by its content: an image that is read, one of a microscope's own formats, or a broken one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bccd_d2.errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MICROSCOPE_FORMATS = {
    ".nd2": "a Nikon ND2 file",
    ".lif": "a Leica LIF file",
    ".lof": "a Leica LOF file",
    ".czi": "a Zeiss CZI file",
    ".zvi": "a Zeiss ZVI file",
    ".oib": "an Olympus OIB file",
    ".oif": "an Olympus OIF file",
    ".oir": "an Olympus OIR file",
    ".vsi": "an Olympus VSI file",
    ".ims": "an Imaris file",
    ".dcm": "a DICOM file",
    ".dicom": "a DICOM file",
}
"""Formats that are known but not read, or not everywhere, by suffix."""
WAY_OUT = "save it as OME-TIFF (Fiji: File > Save As > OME-TIFF, bfconvert, or bioio)"
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""Of TIFF and EXIF: whether rows and columns change places, and then whether columns and rows run backward."""
_HEAD = 132
_JPEG_END = b"\xff\xd9"
_JPEG_TAIL = 4096


def read_head(path: Path) -> bytes:
    """The first bytes of a file, as far as signatures go."""
    with path.open("rb") as file:
        return file.read(_HEAD)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels, (height, width) or (height, width, channels), turned as an orientation of TIFF or EXIF says."""
    transposed, columns_backward, rows_backward = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if rows_backward else 1, :: -1 if columns_backward else 1])


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, by what :func:`read_head` gives."""
    return head[128:132] == b"DICM"


def microscope_format(path: Path, head: bytes) -> str | None:
    """The format of a microscope that a file has by its signature, in words; ``None`` for any other file."""
    if head[:4] == b"\xda\xce\xbe\x0a":
        return MICROSCOPE_FORMATS[".nd2"]
    if head[:10] == b"ZISRAWFILE":
        return MICROSCOPE_FORMATS[".czi"]
    if is_dicom(head):
        return MICROSCOPE_FORMATS[".dcm"]
    if path.suffix.lower() == ".vsi":  # of a TIFF that holds an overview, and the cells in other files
        return MICROSCOPE_FORMATS[".vsi"]
    if head[:4] == b"\x70\0\0\0" and path.suffix.lower() == ".lif":
        return MICROSCOPE_FORMATS[".lif"]
    return None


@contextmanager
def image_errors(path: Path) -> Iterator[None]:
    """Turn what libraries raise for a broken image into an InputError that names the file; errors of the file
    system (no such file, no permission, no space) pass unchanged.
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


def looks_complete(path: Path, kind: str | None) -> bool:
    """Whether a file of the format ``kind``, as Pillow names it, certainly goes to its end; ``False`` if that is
    not known.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if kind == "PNG":
            return (b"IEND", True) in ((name, fits) for name, fits, _ in png_chunks(file, size))
        if kind == "JPEG":
            file.seek(-min(_JPEG_TAIL, size), os.SEEK_END)
            return _JPEG_END in file.read()
    return False


def png_chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bool, bytes]]:
    """Name of each chunk of a PNG of ``size`` bytes, whether the file holds all of it, and its first four bytes, up
    to ``IEND`` or to the first that the file does not hold.
    """
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        place = file.tell()
        fits = place + length <= size
        yield name, fits, file.read(min(length, 4))
        if not fits or name == b"IEND":
            return
        file.seek(place + length + 4)


def _describe(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    if size == 0:
        return f"{path}: empty file, expected an image"
    known = MICROSCOPE_FORMATS.get(path.suffix.lower())
    if known is not None:
        return f"{path}: {known}, which is not read; {WAY_OUT}"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: {size} bytes of no known image format, expected an image"
    return f"{path}: {size} bytes that cannot be decoded ({error}), expected a whole image"
