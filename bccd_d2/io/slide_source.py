"""Whole slides that OpenSlide reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import MICROSCOPE_FORMATS, WAY_OUT, microscope_format, read_head
from bccd_d2.io.levels import warn_once
from bccd_d2.io.sources import ImageSource
from bccd_d2.io.tiff_layout import plausible_microns_per_pixel

SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".svslide", ".czi"})


def openslide_module() -> Any | None:
    """The module, or ``None`` where the extra is not installed."""
    try:
        import openslide
    except ImportError:
        return None
    return openslide


def is_whole_slide(path: Path) -> bool:
    """Whether OpenSlide knows the scanner; a tiled TIFF of no particular one is read without it."""
    module = openslide_module()
    return module is not None and module.OpenSlide.detect_format(str(path)) not in (None, "generic-tiff")


class SlideSource(ImageSource):
    """Level 0 of a whole slide; what was not scanned has the slide's background colour. Raises InputError where
    OpenSlide is not installed or cannot read the file, for MIRAX the ``.mrxs`` beside its folder.
    """

    def __init__(self, path: Path) -> None:
        module = openslide_module()
        if module is None:
            raise InputError(f"{path}: a whole slide needs OpenSlide: pip install 'bccd_d2[slides]'")
        self.name = str(path)
        self._errors = (module.OpenSlideError, ValueError)
        try:
            self._slide = module.OpenSlide(str(path))
        except self._errors as error:
            known = microscope_format(path, read_head(path)) or MICROSCOPE_FORMATS.get(path.suffix.lower())
            kind = known or "a whole slide"
            raise InputError(f"{path}: {kind} that OpenSlide cannot open ({error}); {WAY_OUT}") from error
        properties = self._slide.properties
        if (
            properties.get("openslide.vendor") == "dicom"
            and len(list(path.parent.glob(f"*{path.suffix}"))) > 1
        ):
            warn_once(path, "read with all files of its slide in this folder; give one file of a slide only")
        self.width, self.height = self._slide.dimensions
        microns = properties.get(module.PROPERTY_NAME_MPP_X)
        self.microns_per_pixel = plausible_microns_per_pixel(float(microns) if microns else None)
        colour = properties.get(module.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        self._background_bgr = np.array([int(colour[i : i + 2], 16) for i in (4, 2, 0)], np.uint16)

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See :meth:`ImageSource.read`."""
        try:
            rgba = np.asarray(self._slide.read_region((x, y), 0, (width, height)))
        except self._errors as error:
            raise InputError(
                f"{self.name}: {width}x{height} pixels at ({x}, {y}) cannot be read ({error})"
            ) from error
        alpha = rgba[..., 3:].astype(np.uint16)
        mixed = rgba[..., 2::-1] * alpha + self._background_bgr * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        """See :meth:`ImageSource.close`."""
        self._slide.close()
