"""The field of view: where cells are placed, which cell covers which, and the optical density that results."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.synthetic.camera import draw_dirt
from bccd_d2.synthetic.cells import draw_infected_cell, draw_platelet, draw_red_cell, draw_white_cell
from bccd_d2.synthetic.outlines import CellDrawing, Texture
from bccd_d2.synthetic.slide import FloatArray, Slide

# A cell of which less than this share would stay visible is not placed there: its outline could not be annotated.
_MIN_VISIBLE = 0.5
_MIN_WHOLE = 0.97  # share of the visible part that must be one piece; the truth leaves crumbs out
_FREE = 1.06  # least distance of free-standing cells, as share of the sum of their radii
_ATTEMPTS_PER_CELL = 25
_WHITE_CELLS = 0.8  # expected number on a picture of 1600x1200 at cells of 100 px; likewise the next two
_PLATELETS = 5.0
_PLATELET_CLUMPS = 0.3
_PLATELET_ATTEMPTS = 8
_INFECTED = 0.02  # share of red cells


class Field:
    """A field of view to which cells are added one by one."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, slide: Slide) -> None:
        self.rng, self.slide = rng, slide
        self.texture = Texture(rng)
        self.density: FloatArray = np.zeros((height, width, 3), np.float32)
        self.labels = np.zeros((height, width), np.int32)
        self.specks = draw_dirt(rng, self.density, slide, self.texture)
        self.covered = 0  # pixels of cells
        self._centres = np.empty((64, 3))  # x, y, radius; grows
        self.categories: list[str] = []
        self.full_areas: list[int] = []  # pixels within the picture
        self.areas: list[int] = []  # of these, the uncovered ones
        # Smears are denser here and thinner there.
        self._density_of_cells = rng.normal(0, 1, (3, 4))

    def _window(self, cell: CellDrawing) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Where the patch lies in the picture and which part of it does; None if none."""
        height, width = self.labels.shape
        rows, columns = cell.inside.shape
        y0, x0 = max(cell.top, 0), max(cell.left, 0)
        y1, x1 = min(cell.top + rows, height), min(cell.left + columns, width)
        if y1 <= y0 or x1 <= x0:
            return None
        there = (slice(y0, y1), slice(x0, x1))
        return there, (slice(y0 - cell.top, y1 - cell.top), slice(x0 - cell.left, x1 - cell.left))

    def lay(self, cell: CellDrawing, centre: tuple[float, float], radius: float, on_background: bool) -> bool:
        """Add a cell unless too little of it, or of one it covers, would stay visible; returns whether it was
        added. Its ``centre`` (x, y) and ``radius`` in pixels are remembered to place others; ``on_background``
        refuses contact with anything but platelets.
        """
        window = self._window(cell)
        if window is None:
            return False
        there, here = window
        labels, inside, density = self.labels[there], cell.inside[here], cell.density[here]
        full = int(inside.sum())
        if full == 0:
            return False
        covered = np.unique(labels[inside])
        covered = covered[covered > 0]
        label = len(self.categories) + 1
        if on_background and any(self.categories[other - 1] != "platelet" for other in covered):
            return False
        visible, veil = inside, np.ones(inside.shape, np.float32)
        if len(covered):
            visible, density, veil = self._contact(inside, density, labels, soft=not on_background)
        area = int(visible.sum())
        if not self._stays_whole(visible, area, full):
            return False
        after = np.where(visible, label, labels)
        for other in covered:
            rest = after == other
            left = self.areas[other - 1] - int((labels == other).sum()) + int(rest.sum())
            if not self._stays_whole(rest, left, self.full_areas[other - 1]):
                return False
        for other in covered:
            self.areas[other - 1] -= int((labels == other).sum()) - int((after == other).sum())
        self.covered += int((after > 0).sum()) - int((labels > 0).sum())
        self.labels[there] = after  # changes ``labels``, a view
        self.density[there] = veil[..., None] * self.density[there] + density
        if label > len(self._centres):
            self._centres = np.concatenate([self._centres, np.empty_like(self._centres)])
        self._centres[label - 1] = (*centre, radius)
        self.categories.append(cell.category)
        self.full_areas.append(full)
        self.areas.append(area)
        return True

    def _contact(
        self, inside: NDArray[np.bool_], density: FloatArray, labels: NDArray[np.int32], soft: bool
    ) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
        """How a cell meets the ones that lie there: flat against them (if ``soft``), below or above them."""
        common = inside & (labels > 0)
        veil = np.ones(inside.shape, np.float32)
        if soft and self.rng.random() < self.slide.abutting:
            return inside & ~common, density * self._room(labels)[..., None], veil
        # Densities add up; but less of the lower cell shows where the upper one is thick or in better focus.
        shows = 1.0 if self.rng.random() < 0.5 else self.rng.uniform(0.3, 0.9)
        share = np.where(common, np.float32(shows), np.float32(1))
        if self.rng.random() < 0.5:
            return inside & ~common, density * share[..., None], veil
        return inside, density, share

    def _stays_whole(self, visible: NDArray[np.bool_], area: int, full: int) -> bool:
        """Whether ``area`` pixels are enough of a ``full`` cell, and its ``visible`` ones here one piece."""
        if area < _MIN_VISIBLE * full:
            return False
        if area == full:
            return True
        _, _, stats, _ = cv2.connectedComponentsWithStats(visible.astype(np.uint8), connectivity=8)
        pieces = stats[1:, cv2.CC_STAT_AREA]
        return len(pieces) == 0 or bool(pieces.max() > _MIN_WHOLE * pieces.sum())

    def _room(self, labels: NDArray[np.int32]) -> FloatArray:
        """What is left of a soft cell's stain beside earlier cells: 0 on them, 1 away from them."""
        taken = cv2.dilate((labels > 0).astype(np.float32), np.ones((3, 3), np.uint8))
        depth = self.rng.uniform(0.4, 1.0)
        soft = cv2.GaussianBlur(taken, (0, 0), self.slide.gap * self.slide.diameter)
        return np.where(labels > 0, 0, 1 - depth * soft).astype(np.float32)

    def place(self, radius: float, closest: float) -> tuple[float, float] | None:
        """A place for a cell of ``radius`` pixels: beside another or free-standing; None if the one drawn is taken.
        ``closest`` is the smallest allowed distance of two centres as share of the sum of their radii.
        """
        height, width = self.labels.shape
        known = self._centres[: len(self.categories)]
        beside = len(known) > 0 and self.rng.random() < self.slide.clustering
        if beside:
            x, y, other = known[self.rng.integers(len(known))]
            angle = self.rng.uniform(0, 2 * np.pi)
            reach = (radius + other) * self.rng.uniform(closest, 1.03)
            x, y = x + reach * np.cos(angle), y + reach * np.sin(angle)
        else:
            x = self.rng.uniform(-0.5 * radius, width + 0.5 * radius)
            y = self.rng.uniform(-0.5 * radius, height + 0.5 * radius)
        if not (-0.6 * radius < x < width + 0.6 * radius and -0.6 * radius < y < height + 0.6 * radius):
            return None
        rows, columns = self._density_of_cells.shape
        row = min(max(int(y / height * rows), 0), rows - 1)
        column = min(max(int(x / width * columns), 0), columns - 1)
        if self.rng.random() > 1 / (1 + np.exp(-1.5 - self._density_of_cells[row, column])):
            return None
        if len(known):
            gaps = np.hypot(known[:, 0] - x, known[:, 1] - y) / (known[:, 2] + radius)
            if gaps.min() < (closest if beside else _FREE):
                return None
        return float(x), float(y)


def fill(field: Field) -> None:
    """Add white cells, then red cells until the slide's share of the picture is covered, then platelets."""
    rng, slide = field.rng, field.slide
    height, width = field.labels.shape
    # Number of fields of 1600x1200 pixels at cells of 100 pixels.
    fields = height * width / (1600 * 1200) / (slide.diameter / 100) ** 2
    for _ in range(int(rng.poisson(slide.white_cells * _WHITE_CELLS * fields))):
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        radius = 0.5 * slide.diameter
        field.lay(draw_white_cell(rng, slide, field.texture, centre, radius), centre, 1.6 * radius, True)
    crowding = float(np.clip(slide.crowding * rng.uniform(0.75, 1.25), 0.05, 0.55))
    mean_area = np.pi / 4 * slide.diameter**2
    # Attempts end the loop, not a count: cells cut by the border or covered fill less than a whole cell.
    for _ in range(int(_ATTEMPTS_PER_CELL * (crowding * height * width / mean_area + 2))):
        if field.covered >= crowding * height * width:
            break
        radius = 0.5 * slide.diameter * float(np.clip(rng.normal(1, slide.diameter_spread), 0.6, 1.4))
        place = field.place(radius, 1 - slide.overlap)
        if place is None:
            continue
        draw = draw_infected_cell if rng.random() < _INFECTED else draw_red_cell
        field.lay(draw(rng, slide, field.texture, place, radius), place, radius, False)
    _scatter_platelets(field, fields)


def _scatter_platelets(field: Field, fields: float) -> None:
    """Single platelets and clumps of them, on the background."""
    rng, slide = field.rng, field.slide
    height, width = field.labels.shape
    groups = [1] * int(rng.poisson(slide.platelets * _PLATELETS * fields))
    groups += [
        int(rng.integers(3, 12)) for _ in range(int(rng.poisson(slide.platelets * _PLATELET_CLUMPS * fields)))
    ]
    for number in groups:
        # In a crowded field the first place is often taken by a cell.
        for _ in range(_PLATELET_ATTEMPTS):
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            if _lay_platelet(field, (x, y)):
                break
        else:
            continue
        spread = 0.14 * slide.diameter * np.sqrt(number)
        for _ in range(number - 1):
            _lay_platelet(field, (float(x + rng.normal(0, spread)), float(y + rng.normal(0, spread))))


def _lay_platelet(field: Field, centre: tuple[float, float]) -> bool:
    radius = max(field.slide.diameter * field.rng.uniform(0.09, 0.19), field.slide.least_platelet)
    platelet = draw_platelet(field.rng, field.slide, field.texture, centre, radius)
    return field.lay(platelet, centre, radius, on_background=True)
