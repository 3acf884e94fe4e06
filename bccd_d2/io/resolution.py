"""How large a pixel is, as image files say it."""

from __future__ import annotations

from typing import Any

import defusedxml.ElementTree
import tifffile

# Files carry 72 or 300 dots per inch when nobody set anything; a pixel of a microscope is not as large as that.
_PLAUSIBLE_MICRONS = (0.01, 10.0)
_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}


def plausible_microns_per_pixel(value: float | None) -> float | None:
    """``value`` if a microscope's pixel can have that size, 0.01 to 10 microns; otherwise ``None``."""
    low, high = _PLAUSIBLE_MICRONS
    return value if value is not None and low <= value <= high else None


def tiff_microns_per_pixel(file: tifffile.TiffFile, page: Any) -> float | None:
    """Width of a pixel in microns as OME-XML, ImageJ's metadata or the tag XResolution say it, in this order."""
    if file.is_ome and file.ome_metadata:
        for element in defusedxml.ElementTree.fromstring(file.ome_metadata).iter():
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
