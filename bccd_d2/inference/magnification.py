"""Estimates how large red cells are in an image, from what a network finds in small parts of it at several scales.

A network that was trained on red cells of D pixels finds them with high scores, as many cells of one size, where an
image shows them between about D / 2 and D; it finds nothing, or things of all sizes, where they are much smaller or
larger. So a part of the image is resized as if its red cells were D, D / 2, 2 D, D / 4, ... pixels wide, until the
network finds many cells of one size. A second look, at the scale that follows and at another part, must confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.io.sources import ImageSource
from bccd_d2.structures.detections import Detections

Detect = Callable[[NDArray[np.uint8]], Detections]
"""Finds cells in an image (height, width, 3) uint8 BGR that is magnified as the training images are."""

SMALLEST, LARGEST = 20.0, 400.0
"""Diameters in pixels that are looked for."""

# Sides of the parts that are shown to the network, in training diameters, and the diameter at which cells are looked
# for: somewhat smaller than in training, where networks are still good and a part shows twice as many.
_SIDE = 3.0
_AIM = 0.75
_STEP = 2.0
_MIN_SCORE = 0.5
# A cell's diameter (disc of equal area) relative to the side of its box: 0.86 to 0.90 in five validation sets.
_DISC = 0.9
# When a look is believed: so many whole cells, of such mean score, in such sizes (in training diameters), whose
# diameters have such an interquartile range (of their logarithm).
_ENOUGH_CELLS = 3
_ENOUGH_SCORE = 0.75
_LONG = 1.3
_RANGE = (0.4, 1.5)
_LARGEST_SPREAD = 0.45
_FEWEST_CELLS = 2
_SURE_CELLS = 5
# Two looks or images agree if their diameters differ by no more than this factor.
_AGREEMENT = 1.25
# Parts are chosen among this many by this many, evenly spread, by how much detail they show.
_GRID = 5
_PATCH = 256
_DETAIL = (0.8, 0.65)


@dataclass(frozen=True)
class Magnification:
    """How an image is magnified: ``scale`` is pixels at the training magnification per native pixel, ``origin`` what
    says so in words (empty where the image stays as it is), ``diameter`` that of its red cells in native pixels, if
    known.
    """

    scale: float
    origin: str = ""
    diameter: float | None = None


@dataclass(frozen=True)
class DiameterEstimate:
    """The median diameter of the red cells of one or more images in native pixels, ``None`` if too few cells were
    found.

    ``cells`` is the number of cells it is the median of; ``doubt`` says why the estimate is unsure, empty if it is not.
    """

    diameter: float | None
    cells: int
    doubt: str = ""

    def __post_init__(self) -> None:
        number = isinstance(self.diameter, int | float) and 0 < self.diameter < math.inf
        if not (self.diameter is None or number) or not isinstance(self.doubt, str):
            raise InputError(f"diameter: expected a number of pixels above 0, found {self.diameter!r}")

    def __str__(self) -> str:
        if self.diameter is None:
            return f"unknown ({self.doubt})"
        return f"{self.diameter:.0f} px" + (f" (unsure: {self.doubt})" if self.doubt else "")


@dataclass(frozen=True)
class _Look:
    """What the network finds in one part at one scale: whole cells' diameters in native pixels and their scores."""

    scale: float
    diameters: NDArray[np.float64]
    scores: NDArray[np.float64]
    covered: float

    @property
    def diameter(self) -> float:
        return _weighted_quantile(self.diameters, self.scores, 0.5)

    @property
    def spread(self) -> float:
        low, high = (_weighted_quantile(self.diameters, self.scores, q) for q in (0.25, 0.75))
        return math.log(high / low)


class DiameterEstimator:
    """Estimates the diameter of red cells; ``training_diameter`` is that of the training images in pixels, ``classes``
    are the indices of the classes that are red cells.
    """

    def __init__(self, detect: Detect, training_diameter: float, classes: Collection[int]) -> None:
        self._detect = detect
        self._training_diameter = training_diameter
        self._classes = sorted(classes)
        steps = sorted(range(-10, 11), key=lambda step: (abs(step), step))
        margin = math.sqrt(_STEP)
        self._assumed = [
            diameter
            for diameter in (training_diameter * _STEP**step for step in steps)
            if SMALLEST / margin < diameter < LARGEST * margin
        ]

    def estimate(self, source: ImageSource) -> DiameterEstimate:
        """Estimate the diameter of the red cells of one image; an InputError if it cannot be decoded."""
        first, second = _places(source)
        best, side = self._search(source, first)
        if len(best.scores) < _FEWEST_CELLS:
            return DiameterEstimate(None, 0, "too few cells found")
        scale = self._scale_for(best.diameter)
        if abs(math.log(scale / best.scale)) < math.log(_AGREEMENT) / 2:
            scale *= 0.8  # the same scale would say the same where the image has no other part
        return _confirmed(best, self._look(source, second, scale, side))

    def _search(self, source: ImageSource, place: tuple[float, float]) -> tuple[_Look, float]:
        """The first look that is clear, or else the best, and the side of its part in training diameters."""
        looks = []
        # Where cells are few, larger parts show enough of them.
        for side in (_SIDE, 2 * _SIDE):
            for assumed in self._assumed:
                looks.append((self._look(source, place, self._scale_for(assumed), side), side))
                if self._is_clear(looks[-1][0]):
                    return looks[-1]
        return max(looks, key=lambda look: self._quality(look[0]))

    def _scale_for(self, diameter: float) -> float:
        return _AIM * self._training_diameter / diameter

    def _look(self, source: ImageSource, place: tuple[float, float], scale: float, side: float) -> _Look:
        pixels = max(1, round(side * self._training_diameter / scale))
        width, height = min(pixels, source.width), min(pixels, source.height)
        x = min(max(0, round(place[0] - width / 2)), source.width - width)
        y = min(max(0, round(place[1] - height / 2)), source.height - height)
        part = resize_image(source.read(x, y, width, height), *scaled_size(height, width, scale))
        found = self._detect(part)
        chosen = (found.scores >= _MIN_SCORE) & np.isin(found.classes, self._classes)
        boxes, scores = found.boxes[chosen].astype(np.float64), found.scores[chosen].astype(np.float64)
        sides, cut = boxes[:, 2:] - boxes[:, :2], np.empty((len(boxes), 2), bool)
        margin = 0.02 * self._training_diameter
        for axis, length in enumerate((part.shape[1], part.shape[0])):
            cut[:, axis] = (boxes[:, axis] < margin) | (boxes[:, axis + 2] > length - margin)
        # Of a cell that one border of the part cuts, the side along the border is whole if more than half is inside.
        halved = (
            cut.any(axis=1)
            & ~cut.all(axis=1)
            & (np.where(cut, sides, 0).max(axis=1) > 0.6 * np.where(cut, 0, sides).max(axis=1))
        )
        short, long = sides.min(axis=1), sides.max(axis=1)
        # Long boxes are two cells that overlap: their short side is as wide as one.
        diameters = np.where(long > _LONG * short, short, np.sqrt(short * long))
        diameters = _DISC * np.where(halved, np.where(cut, 0, sides).max(axis=1), diameters) / scale
        usable = halved | ~cut.any(axis=1)
        covered = float((scores * sides.prod(axis=1)).sum() / (part.shape[0] * part.shape[1]))
        return _Look(scale, diameters[usable], scores[usable], covered)

    def _is_clear(self, look: _Look) -> bool:
        """Whether a look shows many cells of one size that the network knows."""
        if len(look.scores) < _ENOUGH_CELLS or look.scores.mean() < _ENOUGH_SCORE:
            return False
        size = look.diameter * look.scale / self._training_diameter
        return _RANGE[0] <= size <= _RANGE[1] and look.spread <= _LARGEST_SPREAD

    def _quality(self, look: _Look) -> float:
        """How many cells, how sure, how much they cover, how alike they are, and how well the network knows such."""
        if len(look.scores) < _FEWEST_CELLS:
            return 0.0
        size = math.log(look.diameter * look.scale / self._training_diameter / _AIM) / math.log(_STEP)
        return float(look.scores.sum()) * min(1.0, look.covered) * math.exp(-look.spread - size**2)


def _confirmed(look: _Look, other: _Look) -> DiameterEstimate:
    if len(other.scores) < _FEWEST_CELLS:
        return DiameterEstimate(look.diameter, len(look.scores), "few cells")
    if not _agree(look.diameter, other.diameter):
        return DiameterEstimate(
            look.diameter,
            len(look.scores),
            f"two scales disagree: {look.diameter:.0f} and {other.diameter:.0f} px",
        )
    diameters = np.concatenate([look.diameters, other.diameters])
    scores = np.concatenate([look.scores, other.scores])
    doubt = "few cells" if len(scores) < _SURE_CELLS else ""
    return DiameterEstimate(_weighted_quantile(diameters, scores, 0.5), len(scores), doubt)


def combine(estimates: Sequence[DiameterEstimate]) -> DiameterEstimate:
    """One estimate for images of one magnification: the median of those that are sure, else of all.

    It is unsure where the middle half of them disagrees: red cells of one laboratory differ from patient to patient,
    and of five images the smallest and the largest estimate differ by more than a quarter on every third set.
    """
    known = [estimate for estimate in estimates if estimate.diameter is not None]
    if not known:
        return DiameterEstimate(None, 0, "too few cells found")
    sure = [estimate for estimate in known if not estimate.doubt]
    chosen = sure or known
    diameters = [estimate.diameter for estimate in chosen if estimate.diameter is not None]
    low, high = np.quantile(diameters, (0.25, 0.75))
    if not _agree(low, high):
        doubt = f"the images disagree: {min(diameters):.0f} to {max(diameters):.0f} px"
    else:
        doubt = "" if sure else known[0].doubt
    return DiameterEstimate(float(np.median(diameters)), sum(estimate.cells for estimate in chosen), doubt)


def _agree(first: float, second: float) -> bool:
    return abs(math.log(first / second)) <= math.log(_AGREEMENT)


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], quantile: float) -> float:
    order = np.argsort(values)
    shares = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(quantile * weights.sum(), shares, values[order]))


def _places(source: ImageSource) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centres (x, y) of the two parts that are looked at: those with much detail, but not the most."""
    width, height = min(_PATCH, source.width), min(_PATCH, source.height)
    steps = np.arange(_GRID) / (_GRID - 1)
    columns, rows = (
        sorted({round(step * free) for step in steps.tolist()})
        for free in (source.width - width, source.height - height)
    )
    detail = {
        (x, y): float(np.abs(np.diff(source.read(x, y, width, height)[::2, ::2, 1].astype(np.int16))).mean())
        for x in columns
        for y in rows
    }
    ordered = sorted(detail, key=lambda corner: detail[corner])
    first, second = (ordered[round(share * (len(ordered) - 1))] for share in _DETAIL)
    return (first[0] + width / 2, first[1] + height / 2), (second[0] + width / 2, second[1] + height / 2)
