"""How images are predicted. Needs neither torch nor Detectron2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bccd_d2.errors import InputError
from bccd_d2.inference.tta import TestTimeAugmentation

DEFAULT_SCORE_THRESHOLD = 0.5
"""Of the commands, the page and the plugin: what people are shown."""
AUTO: Literal["auto"] = "auto"
"""As a diameter: estimate it."""


@dataclass(frozen=True)
class PredictionOptions:
    """How images are predicted.

    Lengths are in pixels of the image at the magnification the model was trained at: native pixels, unless
    ``diameter``, ``microns_per_pixel`` or ``scale`` say that the image is magnified otherwise.

    Attributes:
        score_threshold: leave out cells below it, beside those that ``MODEL.ROI_HEADS.SCORE_THRESH_TEST`` leaves out.
        tile_size: side of a tile. An image of no more pixels than one tile goes through the network whole.
        overlap: of neighbouring tiles; more than most cells, larger ones are joined from their pieces. ``None``: two
            diameters of a typical cell of the training images, or 256 where that is not known.
        batch_size: tiles that go through the network together; 0 for as many as fit the memory.
        augmentation: views to predict and merge; ``None`` for what ``TEST.TTA`` says.
        diameter: of a typical cell in native pixels of the image, which is resized so that it becomes
            ``INPUT.CELL_DIAMETER``; "auto" estimates that of the red cells where neither ``scale`` nor microns per
            pixel say how the image is magnified, see :mod:`bccd_d2.inference.magnification`.
        microns_per_pixel: of the image, in place of what its file says; it is resized so that it becomes
            ``INPUT.MICRONS_PER_PIXEL``, unless a number is given as ``diameter``.
        scale: the factor itself: pixels at the training magnification per native pixel. Wins over both.
        split_touching: see :func:`bccd_d2.inference.postprocessing.split_merged`.
        no_overlap: see :func:`bccd_d2.inference.postprocessing.without_overlaps`.
    """

    score_threshold: float = 0.0
    tile_size: int = 1664
    overlap: int | None = None
    batch_size: int = 0
    augmentation: TestTimeAugmentation | None = None
    diameter: float | Literal["auto"] | None = None
    microns_per_pixel: float | None = None
    scale: float | None = None
    split_touching: bool = False
    no_overlap: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f"score_threshold: expected a number from 0 to 1, found {self.score_threshold}")
        if self.overlap is not None and not 0 <= self.overlap <= self.tile_size / 2:
            raise InputError(
                f"overlap: expected 0 to half the tile size ({self.tile_size}), found {self.overlap}"
            )
        if self.tile_size < 64:
            raise InputError(f"tile_size: expected at least 64, found {self.tile_size}")
        if self.batch_size < 0:
            raise InputError(
                f"batch_size: expected 0 (what fits the memory) or more, found {self.batch_size}"
            )
        for name in ("diameter", "microns_per_pixel", "scale"):
            value = getattr(self, name)
            allowed = value is None or (name == "diameter" and value == AUTO)
            if not allowed and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InputError(f"{name}: expected a number above 0, found {value!r}")


DEFAULT_OPTIONS = PredictionOptions()
