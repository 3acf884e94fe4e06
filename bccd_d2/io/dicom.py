"""DICOM images, single ones and series of frames, read with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import WAY_OUT, image_errors
from bccd_d2.io.tiff_layout import plausible_microns_per_pixel

_COLOURS = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
_MICRONS_PER_MILLIMETRE = 1000.0


def read_header(path: Path) -> Any:
    """The data set of a DICOM file without its pixels. Raises InputError where pydicom is not installed, or the file is
    broken or holds no image.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError(
            f"{path}: a DICOM file, which needs pydicom: pip install 'bccd_d2[dicom]'; or {WAY_OUT}"
        ) from error
    with image_errors(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if not header.get("Rows") or not header.get("Columns"):
            raise InputError(f"{path}: a DICOM file without an image")
        if header.get("TotalPixelMatrixColumns") and int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{path}: a whole slide of {header.NumberOfFrames} tiles, which needs OpenSlide: pip install "
                f"'bccd_d2[slides]'; or {WAY_OUT}"
            )
    return header


def frame_count(path: Path) -> int:
    """Number of frames, which are what pages are to a TIFF."""
    header = read_header(path)
    with image_errors(path):
        return int(header.get("NumberOfFrames") or 1)


def frame_size(header: Any) -> tuple[int, int]:
    """(height, width) of each frame."""
    return int(header.Rows), int(header.Columns)


def microns_per_pixel(header: Any) -> float | None:
    """Width of a pixel in microns as the file says; ``None`` where it does not."""
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    return plausible_microns_per_pixel(float(spacing[1]) * _MICRONS_PER_MILLIMETRE if spacing else None)


def read_frame(path: Path, number: int) -> tuple[NDArray[Any], int]:
    """Pixels of a frame, counted from 0, as (height, width, 3) BGR, and the bits of the camera.

    Levels are as stored, but for those of MONOCHROME1, whose smallest is white: they are reversed. Raises InputError
    for a file that is broken, is compressed in a way that is not read, or has other colours.
    """
    read_header(path)
    import pydicom
    from pydicom.pixels import apply_color_lut, pixel_array

    with image_errors(path):
        dataset = pydicom.dcmread(path)
        colours = str(dataset.PhotometricInterpretation)
        if colours not in _COLOURS and not colours.startswith("YBR"):
            raise InputError(
                f"{path}: a DICOM file of colours {colours}, expected {', '.join(_COLOURS)} or YBR"
            )
        pixels = pixel_array(dataset, index=number)  # YBR becomes RGB
        bits = int(dataset.BitsStored)
        if colours == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            bits = 8 * pixels.dtype.itemsize
        if colours == "MONOCHROME1":
            pixels = np.asarray(
                2**bits - 1 - pixels if dataset.PixelRepresentation == 0 else -1 - pixels, pixels.dtype
            )
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=2)
    return np.ascontiguousarray(pixels[..., ::-1]), bits
