"""Which pages of a TIFF make up an image, and what its metadata says of them."""

from __future__ import annotations

import math
import struct
from typing import Any

import defusedxml.ElementTree
import tifffile

from bccd_d2.errors import InputError

_WHOLE_SLIDES = ("is_svs", "is_scn", "is_ndpi", "is_philips", "is_bif", "is_qpi")
_COLOUR_CHANNELS = 3
_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}
# Files carry 72 or 300 dots per inch when nothing was set; a pixel of a microscope is not as large as that.
_PLAUSIBLE_MICRONS = (0.01, 10.0)
RGB_ADVICE = "save it as RGB (Fiji: Image > Type > RGB Color), or the channel that shows the cells alone"


def check_directories(file: tifffile.TiffFile, name: str) -> None:
    """Raise InputError for a TIFF whose chain of directories leads back, or does not fit into the file: to read it
    takes minutes.
    """
    layout, handle = file.tiff, file.filehandle
    position = layout.offsetsize  # where the header holds the place of the first one
    total, seen = 0, set[int]()
    while True:
        handle.seek(position)
        encoded = handle.read(layout.offsetsize)
        offset = struct.unpack(layout.offsetformat, encoded)[0] if len(encoded) == layout.offsetsize else 0
        if offset == 0 or offset + layout.tagnosize > handle.size:
            return
        if offset in seen:
            raise InputError(
                f"{name}: its chain of directories leads back to byte {offset}: the file is broken"
            )
        seen.add(offset)
        handle.seek(offset)
        tags = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))[0]
        length = layout.tagnosize + tags * layout.tagsize
        total += length
        if total > handle.size:
            raise InputError(
                f"{name}: directories of {total} bytes in a file of {handle.size}: the file is broken"
            )
        position = offset + length


def tiff_images(file: tifffile.TiffFile, name: str) -> list[list[Any]]:
    """The images of a TIFF at full size, each as the pages that hold its planes.

    Reduced copies, masks and a slide's label are left out. Three channels in pages of their own (axis C of OME-TIFF
    and ImageJ) are one image of three planes: red, green and blue; another number of channels raises InputError.
    Depths, times and pages of unknown meaning are images of their own.
    """
    check_directories(file, name)
    series = file.series
    if any(getattr(file, kind, False) for kind in _WHOLE_SLIDES):
        series = series[:1]
    images: list[list[Any]] = []
    for one in series:
        images += _images_of_series(one.levels[0], name)
    full = [planes for planes in images if not (planes[0].is_reduced or planes[0].is_mask)]
    return full or images[:1]


def _images_of_series(level: Any, name: str) -> list[list[Any]]:
    pages = [page.aspage() for page in level.pages if page is not None]
    axes, shape = level.axes, level.shape
    before = axes[: axes.index("Y")] if "Y" in axes else ""
    channels = shape[before.index("C")] if "C" in before else 1
    if channels == 1 or len(pages) % channels or not pages:
        if channels > 1:
            raise InputError(f"{name}: {channels} channels in {len(pages)} pages (axes {axes}); {RGB_ADVICE}")
        return [[page] for page in pages]
    if channels != _COLOUR_CHANNELS:
        raise InputError(
            f"{name}: {channels} channels (axes {axes}), expected 1, or 3 as red, green and blue; {RGB_ADVICE}"
        )
    # Axes behind C, such as the Z of CZYX, change faster than the channel.
    inner = math.prod(shape[before.index("C") + 1 : len(before)])
    return [
        [pages[outer * channels * inner + channel * inner + position] for channel in range(channels)]
        for outer in range(len(pages) // (channels * inner))
        for position in range(inner)
    ]


def declared_bits(file: tifffile.TiffFile, page: Any) -> int | None:
    """Bits of the camera, where the samples or OME-XML say fewer than the type of the samples holds."""
    stored = 8 * page.dtype.itemsize
    if page.bitspersample < stored:
        return int(page.bitspersample)
    for element in _ome_elements(file):
        bits = element.get("SignificantBits", "")
        if bits.isdigit():
            return int(bits) if 0 < int(bits) < stored else None
    return None


def plausible_microns_per_pixel(value: float | None) -> float | None:
    """``value`` if a microscope's pixel can have that size, 0.01 to 10 microns; otherwise ``None``."""
    low, high = _PLAUSIBLE_MICRONS
    return value if value is not None and low <= value <= high else None


def tiff_microns_per_pixel(file: tifffile.TiffFile, page: Any) -> float | None:
    """Width of a pixel in microns as OME-XML, ImageJ's metadata or the tag XResolution say it, in this order."""
    for element in _ome_elements(file):
        size = element.get("PhysicalSizeX")
        if size is not None:
            return float(size) * _MICRONS.get(element.get("PhysicalSizeXUnit", "µm"), 0.0)
    numerator, denominator = page.tags.valueof(282, default=(0, 1))
    if not numerator or not denominator:
        return None
    pixels = numerator / denominator
    if file.is_imagej and file.imagej_metadata:
        unit = str(file.imagej_metadata.get("unit", "")).replace("\\u00B5", "µ")
        if unit in _MICRONS:
            return _MICRONS[unit] / pixels
    unit_code = int(page.tags.valueof(296, default=2))
    return _RESOLUTION_UNITS[unit_code] / pixels if unit_code in _RESOLUTION_UNITS else None


def _ome_elements(file: tifffile.TiffFile) -> list[Any]:
    if not file.is_ome or not file.ome_metadata:
        return []
    return list(defusedxml.ElementTree.fromstring(file.ome_metadata).iter())
