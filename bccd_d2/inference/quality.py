"""Whether a field is fit to be counted: focus, exposure, stain, magnification, density, scores.

Counting a bad image is worse than counting none, so every field is measured, and what lies outside of the ordinary is
flagged; nothing is left out of the counts because of a flag. Ordinary is what the images of the sources of the default
model are: the limits below were measured on 1272 of them, 482 with that model's cells (docs/prediction.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import (
    apply_table,
    balance_table,
    resize_image,
    scaled_size,
    white_balance_gain,
)
from bccd_d2.inference.magnification import Magnification
from bccd_d2.io.sources import ImageSource, sample_image, sample_pixels
from bccd_d2.structures.cell_size import typical_diameter
from bccd_d2.structures.cells import BORDER_MARGIN, Cells

MIN_SHARPNESS = 0.26
"""Ordinary images have at least 0.267, images blurred by 6 % of a red cell's diameter 0.21 to 0.27."""
MAX_CLIPPED_SHARE = 0.4
"""Of the pixels, with all three channels at their upper end: up to 0.23 in ordinary images."""
MIN_BACKGROUND_LEVEL = 110.0
"""Mean over the channels of their 90th percentiles: 147 or more in ordinary images."""
MAX_STAIN_DISTANCE = 16.0
"""In CIELAB units from the nearest of ``STAIN_COLORS``: up to 15.5 in ordinary images."""
MAX_COVERED_SHARE = 0.85
"""Areas of the cells over that of the image; overlaps count twice: up to 0.79 in ordinary images, two have 0.92."""
MIN_COVERED_SHARE = 0.06
"""The emptiest ordinary image has 0.08."""
MIN_MEDIAN_SCORE = 0.85
"""Of the scores above ``SCORE_FLOOR``; ordinary images have at least 0.87."""
SIZE_RATIOS = (0.6, 1.6)
"""Median diameter of red cells over that of the training images, when the image is resized for the network."""
SCORE_FLOOR = 0.5

# Colours (a*, b*) of stained cells on a background balanced to grey: k-means of the ordinary images.
STAIN_COLORS = np.array(
    [[10, -7], [10, -23], [11, 1], [13, -12], [19, -18], [20, -28], [37, -32], [37, -45], [42, -53], [53, -48]],
    np.float64,
)  # fmt: skip

# Sharpness is measured on images whose red cells are this wide, so that it does not depend on the magnification.
_DIAMETER = 46.0
_FINE, _MIDDLE, _COARSE = 1.0, 1.8, 4.1
# Below this many levels of coarse structure the image shows no cells that could be sharp.
_MIN_STRUCTURE = 1.0
# Images of more pixels are looked at in this many blocks a side, each of this side.
_WHOLE, _BLOCKS_A_SIDE, _BLOCK = 4_000_000, 3, 1024
_CLIPPED = 254


@dataclass(frozen=True)
class Quality:
    """What was measured of one field; ``None`` where the image shows nothing to measure."""

    sharpness: float | None = (
        None  # see :func:`sharpness`: 0.2 for a blurred image, 0.3 to 0.6 for sharp ones
    )
    clipped_share: float | None = None  # of the pixels that are white in all channels
    background_level: float | None = None  # mean over the channels of their 90th percentiles, in [0, 255]
    stain_distance: float | None = None  # see :func:`stain_distance`
    covered_share: float | None = None  # areas of the cells over that of the image
    median_score: float | None = None  # of the cells' scores above ``SCORE_FLOOR``
    size_ratio: float | None = (
        None  # median diameter of whole red cells over that of the training, at the network's scale
    )
    flags: Sequence[str] = ()  # what is out of the ordinary, in words; see :data:`FLAGS`


FLAGS = {
    "blurred": f"sharpness below {MIN_SHARPNESS:g}",
    "overexposed": f"more than {MAX_CLIPPED_SHARE:.0%} of the pixels are white",
    "underexposed": f"the background is darker than {MIN_BACKGROUND_LEVEL:.0f} of 255",
    "unusual stain": f"colour of the cells more than {MAX_STAIN_DISTANCE:g} CIELAB units from those of the training",
    "magnification unsure": "the magnification was estimated, and the estimate is unsure",
    "unusual cell size": "red cells are less than {:g} or more than {:g} times as wide as in training".format(
        *SIZE_RATIOS
    ),
    "crowded": f"cells cover more than {MAX_COVERED_SHARE:.0%} of the image",
    "mostly empty": f"cells cover less than {MIN_COVERED_SHARE:.0%} of the image",
    "low scores": f"half of the cells have scores below {MIN_MEDIAN_SCORE:g}",
}
"""What each flag means."""


def assess_quality(
    source: ImageSource,
    cells: Cells,
    red_classes: Collection[int],
    magnification: Magnification | None = None,
    training_diameter: float = 0.0,
) -> Quality:
    """Measure one field and flag what is out of the ordinary; an InputError if the image cannot be decoded.

    ``red_classes`` are the indices of the classes that are red cells, ``magnification`` is that of the prediction,
    ``training_diameter`` that of the median cell of the training images in pixels, 0 if not known.
    """
    scale = 1.0 if magnification is None else magnification.scale
    cut = cells.touches_border(BORDER_MARGIN)
    diameter = typical_diameter(cells.diameters, cells.classes, cut, red_classes)
    assumed = diameter or (magnification and magnification.diameter) or training_diameter / scale
    scores = cells.scores[cells.scores >= SCORE_FLOOR]
    blocks = list(_blocks(source))
    sample = blocks[0] if len(blocks) == 1 else sample_image(source)
    found = Quality(
        sharpness=_median([sharpness(block, assumed) for block in blocks]) if assumed else None,
        clipped_share=float((sample.min(axis=2) >= _CLIPPED).mean()),
        background_level=float(np.percentile(sample.reshape(-1, 3), 90, axis=0).mean()),
        stain_distance=stain_distance(sample),
        covered_share=float(cells.areas.sum() / (cells.height * cells.width)),
        median_score=float(np.median(scores)) if len(scores) else None,
        size_ratio=diameter * scale / training_diameter if diameter and training_diameter else None,
    )
    # A comparison with what is not known is false.
    q = SimpleNamespace(**{k: math.nan if v is None else v for k, v in vars(found).items()})
    origin = "" if magnification is None else magnification.origin
    raised = {
        "blurred": q.sharpness < MIN_SHARPNESS,
        "overexposed": q.clipped_share > MAX_CLIPPED_SHARE,
        "underexposed": q.background_level < MIN_BACKGROUND_LEVEL,
        "unusual stain": q.stain_distance > MAX_STAIN_DISTANCE,
        "magnification unsure": origin.startswith(("estimated, unsure", "not estimated")),
        "unusual cell size": q.size_ratio < SIZE_RATIOS[0] or q.size_ratio > SIZE_RATIOS[1],
        "crowded": q.covered_share > MAX_COVERED_SHARE,
        "mostly empty": q.covered_share < MIN_COVERED_SHARE,
        "low scores": q.median_score < MIN_MEDIAN_SCORE,
    }
    return replace(found, flags=tuple(name for name in FLAGS if raised[name]))


def sharpness(image: NDArray[np.uint8], diameter: float) -> float | None:
    """Fine over coarse structure of a (height, width, 3) uint8 BGR image whose red cells are ``diameter`` pixels wide.

    The ratio of two bands of differences of Gaussians of the green channel, the finer one above the noise of cameras.
    It depends neither on contrast nor on exposure, and falls towards 0.2, whatever the image, when that is blurred;
    ``None`` where the image shows no structure.
    """
    height, width = scaled_size(image.shape[0], image.shape[1], _DIAMETER / diameter)
    green = resize_image(image, height, width)[..., 1].astype(np.float32)
    fine, middle, coarse = (cv2.GaussianBlur(green, (0, 0), sigma) for sigma in (_FINE, _MIDDLE, _COARSE))
    structure = float((middle - coarse).std())
    return None if structure < _MIN_STRUCTURE else float((fine - middle).std()) / structure


def stain_distance(image: NDArray[np.uint8]) -> float | None:
    """Distance of the stained cells' colour, on a background balanced to grey, from the nearest of ``STAIN_COLORS``.

    In CIELAB units, of a* and b*, for a (height, width, 3) uint8 BGR image; ``None`` where it shows no cells.
    """
    balanced = apply_table(image, balance_table(white_balance_gain(sample_pixels(image))))
    green = np.ascontiguousarray(balanced[..., 1])
    threshold, _ = cv2.threshold(green, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dark = green <= threshold
    if dark.all() or not dark.any() or green[~dark].mean() - green[dark].mean() < 12:
        return None
    lab = cv2.cvtColor(balanced[dark][None].astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[0]
    return float(np.linalg.norm(np.median(lab[:, 1:], axis=0) - STAIN_COLORS, axis=1).min())


def _blocks(source: ImageSource) -> Iterator[NDArray[np.uint8]]:
    """The whole image, or blocks spread evenly over a large one."""
    if source.height * source.width <= _WHOLE:
        yield source.read(0, 0, source.width, source.height)
        return
    height, width = min(_BLOCK, source.height), min(_BLOCK, source.width)
    for y in np.linspace(0, source.height - height, _BLOCKS_A_SIDE).astype(int).tolist():
        for x in np.linspace(0, source.width - width, _BLOCKS_A_SIDE).astype(int).tolist():
            yield source.read(x, y, width, height)


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
