"""How a single synthetic cell is described and drawn.

A cell is drawn in polar coordinates around its centre: the outline is a radius for each angle, and stain is
laid down as a function of the relative radius (0 in the middle, 1 at the outline) plus texture. What comes
back is the truth (pixels inside the outline) and an optical density to be added to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.synthetic.slide import FloatArray

_ANGLES = 720
_THETA = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
# Annotators draw round a cell slightly outside its optical edge (half height of the edge): 1.2 px in the real
# masks, at cells of 100 px.
OUTLINE_MARGIN = 0.009


@dataclass(frozen=True)
class CellDrawing:
    """One cell, not yet on the picture.

    ``left, top``: column and row of the patch's first pixel in the picture; may lie outside it.
    """

    left: int
    top: int
    inside: NDArray[np.bool_]  # (h, w) bool, the cell as an annotator would draw it
    density: FloatArray  # (h, w, 3) float32, optical density to add, BGR
    category: str  # the name BBBC041 gives this kind of cell


class Texture:
    """Smooth noise of several grain sizes, drawn once for a picture; cells take random cuttings from it."""

    _SIZE = 512
    _GRAINS = (1.5, 3.0, 6.0, 14.0)

    def __init__(self, rng: np.random.Generator) -> None:
        self._fields = []
        for grain in self._GRAINS:
            # Wrapped round, so that a cutting across the border has no seam.
            margin = int(5 * grain) + 1
            noise = np.pad(
                rng.standard_normal((self._SIZE, self._SIZE), dtype=np.float32), margin, mode="wrap"
            )
            field = cv2.GaussianBlur(noise, (0, 0), grain)[margin:-margin, margin:-margin]
            self._fields.append((field - field.mean()) / field.std())

    def cut(self, rng: np.random.Generator, shape: tuple[int, int], grain: float) -> FloatArray:
        """A random cutting with zero mean, unit deviation and the grain nearest to ``grain`` pixels."""
        field = self._fields[int(np.argmin([abs(np.log(grain / g)) for g in self._GRAINS]))]
        rows = (np.arange(shape[0]) + rng.integers(self._SIZE)) % self._SIZE
        columns = (np.arange(shape[1]) + rng.integers(self._SIZE)) % self._SIZE
        cutting: FloatArray = field[np.ix_(rows, columns)]
        return cutting


@dataclass(frozen=True)
class Patch:
    """Polar coordinates of the pixels around one cell."""

    left: int
    top: int
    x: FloatArray
    y: FloatArray
    distance: FloatArray
    edge: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the patch."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def relative(self) -> FloatArray:
        """Distance from the centre as share of the outline's in that direction."""
        return self.distance / self.edge

    def inside(self, margin: float = 0.0) -> NDArray[np.bool_]:
        """Pixels nearer to the centre than the outline moved out by ``margin`` pixels."""
        return self.distance < self.edge + margin

    def cover(self, soft: float = 1.0) -> FloatArray:
        """1 inside, 0 outside, a ramp ``soft`` pixels wide just inside the outline."""
        return np.clip((self.edge - self.distance) / soft + 0.5, 0, 1)


def patch_around(centre: tuple[float, float], outline: NDArray[np.float64]) -> Patch:
    """The patch around ``centre`` (x, y) that holds an outline (radius in pixels at each of ``_ANGLES``)."""
    reach = float(outline.max()) + 3.0
    left, top = int(centre[0] - reach), int(centre[1] - reach)
    columns = np.arange(left, int(centre[0] + reach) + 2, dtype=np.float32) - centre[0]
    rows = np.arange(top, int(centre[1] + reach) + 2, dtype=np.float32) - centre[1]
    x, y = np.meshgrid(columns, rows)
    distance, angle = cv2.cartToPolar(x, y)
    edge = outline.astype(np.float32)[(angle * (_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES]
    return Patch(left, top, x, y, distance.astype(np.float32), edge)


def bump(at: float, width: float) -> NDArray[np.float64]:
    """1 at angle ``at``, falling off over ``width`` radians, periodic."""
    away = np.abs((_THETA - at + np.pi) % (2 * np.pi) - np.pi)
    return np.exp(-((away / width) ** 1.5))


def oval(rng: np.random.Generator, radius: float, elongation: float, waviness: float) -> NDArray[np.float64]:
    """Radius at each angle of a slightly wavy ellipse with the area of a circle of ``radius``."""
    stretch = 1 + abs(rng.normal(0, elongation))
    phase = rng.uniform(0, np.pi)
    ring = 1 / np.sqrt((np.cos(_THETA - phase) / stretch) ** 2 + np.sin(_THETA - phase) ** 2)
    for order in range(2, 6):
        ring = ring + rng.normal(0, waviness / order) * np.cos(order * _THETA + rng.uniform(0, 2 * np.pi))
    return of_area(ring, radius)


def of_area(ring: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """The outline, scaled to the area of a circle of ``radius``."""
    return ring * (radius / np.sqrt(np.mean(ring**2)))
