"""Stain, light and camera of one synthetic slide: what all smears of the slide have in common.

Light is absorbed as Beer and Lambert say: a pixel is ``background * exp(-optical density)`` in each colour
channel, and the densities of cells that lie on each other add up, which is why overlaps look dark.
All colours are BGR, as OpenCV and Detectron2 read them; densities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

FloatArray = NDArray[np.float32]
Variety = Literal["bccd", "wide"]
CELL_DIAMETER: dict[Variety, tuple[float, float]] = {"bccd": (70.0, 130.0), "wide": (30.0, 180.0)}
"""Range of the mean diameter of red cells in pixels, by variety."""
# A smaller cell has less area than an instance needs; no microscope shows a larger one.
_DIAMETERS = (12, 1000)

# Colours are sampled around a family in CIELAB with these standard deviations (L, a, b): the spread between
# slides of one stain and camera.
_BACKGROUND_SPREAD = np.array([1.5, 0.8, 1.2])
_CELL_SPREAD = np.array([4.0, 2.5, 3.5])
_LEAST_CONTRAST = 9.0  # least difference in L between background and red cells: real slides show 10 and more
_NUCLEUS_LAB = np.array([30.0, 36.0, -34.0])
_PINK_LAB = np.array([52.0, 42.0, -18.0])


class _Family(NamedTuple):
    """One look of Giemsa or Wright stain under one kind of camera: CIELAB colours and ranges of habits."""

    weight: float
    background: tuple[float, float, float]
    red_cell: tuple[float, float, float]
    pallor: tuple[float, float]
    crenated: float
    pointed: float
    contrast: float = 1.0  # of everything but red cells, whose colour says it


_FAMILIES = {
    "navy on cream": _Family(0.10, (90, -4, 6), (27, 5, -20), (-0.25, 0.15), 0.55, 0.2),
    "navy on white": _Family(0.20, (93, -1.5, 0), (36, 8, -24), (-0.1, 0.45), 0.65, 0.08),
    "navy, flat": _Family(0.12, (91.5, -1, 0), (34, 10, -24), (-0.35, 0.05), 0.05, 0.4),
    "violet": _Family(0.12, (93, 1, -1), (41, 15, -27), (0.35, 0.8), 0.03, 0.06),
    "grey": _Family(0.13, (93, -1, 2.5), (52, 1.5, -8), (0.05, 0.5), 0.06, 0.08),
    "pale grey": _Family(0.08, (62, -1, 2.5), (50, -0.5, -3), (-0.1, 0.2), 0.0, 0.12, 0.45),
    "magenta rings": _Family(0.05, (93, 2, -2), (30, 23, -20), (0.7, 0.9), 0.02, 0.08),
    "overexposed violet": _Family(0.07, (102, 0, 0), (60, 20, -32), (0.15, 0.75), 0.05, 0.08),
    "deep violet": _Family(0.05, (91, 1.5, -3), (23, 28, -42), (-0.1, 0.3), 0.35, 0.1),
    "eosin": _Family(0.05, (86, -2, 5), (63, 17, 13), (0.1, 0.6), 0.03, 0.05),
}
# Share of slides whose colours follow no family, so that a model does not learn the families.
_FREE_STAIN = 0.04


@dataclass(frozen=True)
class Slide:
    """Properties of all smears of one slide; lengths in pixels, densities as natural logarithms."""

    background: FloatArray  # colour of the background, BGR, 1 is white; above 1 the camera is overexposed
    red_density: FloatArray  # mean optical density of a red cell, BGR
    nucleus_density: FloatArray  # optical density of stained nuclei and parasites, BGR
    pink_density: FloatArray  # optical density of granules and platelets, BGR
    diameter: float  # mean diameter of red cells in pixels
    diameter_spread: float  # standard deviation of their diameter, relative
    elongation: float  # typical share by which a cell is longer than wide
    # how much thinner the middle of a typical cell is, relative; negative where it is thicker
    pallor: float
    crenated: float  # share of cells with spikes
    pointed: float  # share of cells with one or two tips
    unevenness: float  # how much the stain varies inside a cell, 1 is usual
    grain: float  # standard deviation of the finest grain of the stain, relative
    rim: float  # width of the margin towards which red cells grow thinner, as share of their radius
    bubbles: float  # share of red cells with a refracting bubble
    crowding: float  # share of the picture that cells cover
    clustering: float  # share of cells that are placed beside another one
    overlap: float  # greatest overlap of neighbours, as share of the sum of their radii
    abutting: float  # share of contacts in which cells flatten against each other instead of overlapping
    gap: float  # softness of the light line between such cells, as share of the cell diameter
    blur: float  # standard deviation of the optics' point spread in pixels
    sharpening: float  # strength of the camera's unsharp mask, which draws a bright rim around cells
    fringe: tuple[float, float]  # shift of red against blue by the lens, (x, y) in pixels
    noise: float  # standard deviation of the camera's noise on the background, image white is 1
    dark_noise: float  # by which factor, less 1, noise is stronger where the picture is black
    jpeg_quality: int  # quality at which the camera compressed the picture
    vignette: float  # loss of light at the corners, relative
    light_centre: tuple[float, float]  # brightest point, (x, y) as share of width and height
    dirt: float  # density of debris, 1 is usual
    film: float  # density of the stained plasma film
    thick: bool  # whether there are cells far out of focus above the layer
    scale_bar: bool  # whether the camera printed a scale bar
    white_cells: float = 1.0  # number of white cells, 1 is usual
    platelets: float = 1.0  # number of platelets, 1 is usual
    least_platelet: float = 0.0  # smallest radius of a platelet
    gamma: float = 1.0  # exponent of the camera's tone curve; above 1 darkens


def _bgr_from_lab(lab: NDArray[np.float64]) -> FloatArray:
    """CIELAB colour to gamma-encoded BGR; above L = 100 the excess becomes exposure beyond white."""
    exposure = max(1.0, lab[0] / 100.0)
    inside = np.array([[[min(lab[0], 100.0), lab[1], lab[2]]]], dtype=np.float32)
    return (cv2.cvtColor(inside, cv2.COLOR_LAB2BGR)[0, 0] * exposure).astype(np.float32)


def _density(background: FloatArray, colour: FloatArray) -> FloatArray:
    """Optical density that turns the background into ``colour``; never negative."""
    return np.maximum(np.log(background / np.maximum(colour, 0.03)), 0.0).astype(np.float32)


def check_diameter(cell_diameter: tuple[float, float]) -> None:
    """Raise :class:`InputError` for a range that is not two increasing numbers from 12 to 1000 pixels."""
    low, high = _DIAMETERS
    if not low <= cell_diameter[0] < cell_diameter[1] <= high:
        raise InputError(
            f"cell diameter: found {cell_diameter[0]} to {cell_diameter[1]}, expected two increasing numbers "
            f"from {low} to {high} pixels"
        )


def _draw_family(rng: np.random.Generator, quantile: float) -> _Family:
    """The family at ``quantile`` of their weights; the last ones belong to stains that follow no family."""
    if quantile >= 1 - _FREE_STAIN:
        cell = (rng.uniform(25, 65), rng.uniform(-8, 35), rng.uniform(-40, 20))
        return _Family(1, (rng.uniform(70, 98), 0, 1), cell, (-0.3, 0.7), rng.choice([0.02, 0.5]), 0.1)
    families = list(_FAMILIES.values())
    weights = np.cumsum([family.weight for family in families])
    place = np.searchsorted(weights / weights[-1], quantile / (1 - _FREE_STAIN), side="right")
    return families[min(int(place), len(families) - 1)]


def _draw_diameter(quantile: float, cell_diameter: tuple[float, float]) -> float:
    """The value at ``quantile`` of a triangular distribution over the range."""
    low, high = cell_diameter
    # One size is likelier than others, as in real sets; it is large because covered parts make cells smaller.
    peak = 0.75
    if quantile < peak:
        return low + (high - low) * float(np.sqrt(quantile * peak))
    return high - (high - low) * float(np.sqrt((1 - quantile) * (1 - peak)))


def draw_slides(
    rng: np.random.Generator, number: int, cell_diameter: tuple[float, float], variety: Variety = "bccd"
) -> list[Slide]:
    """Draw slides, in random order, that share out stains and cell sizes evenly (a Latin hypercube; McKay et al.
    1979): a few slides drawn one by one would often lack the rarer stains. Arguments as for :func:`draw_slide`.
    """
    strata = [(rng.permutation(number) + rng.random(number)) / number for _ in range(2)]
    return [
        draw_slide(rng, cell_diameter, (float(stain), float(size)), variety) for stain, size in zip(*strata)
    ]


def draw_slide(
    rng: np.random.Generator,
    cell_diameter: tuple[float, float],
    quantiles: tuple[float, float] | None = None,
    variety: Variety = "bccd",
) -> Slide:
    """Draw the properties of a slide at random.

    ``cell_diameter`` is the range of the mean diameter of red cells in pixels; ``quantiles`` say where in their
    distributions stain and diameter lie, in [0, 1), None draws them too. Slides of the variety ``bccd`` vary as
    those of the set "BCCD Dataset with mask", of ``wide`` as laboratories do in stain, light, camera, focus and
    number of cells. Raises InputError as :func:`check_diameter`.
    """
    check_diameter(cell_diameter)
    stain_quantile, size_quantile = quantiles or (rng.random(), rng.random())
    family = _draw_family(rng, stain_quantile)
    background = _bgr_from_lab(family.background + rng.normal(0, _BACKGROUND_SPREAD))
    red_lab = family.red_cell + family.contrast * rng.normal(0, _CELL_SPREAD)
    red_lab[0] = min(red_lab[0], family.background[0] - _LEAST_CONTRAST)
    red = _bgr_from_lab(red_lab)
    nucleus = _bgr_from_lab(_NUCLEUS_LAB + rng.normal(0, 5, 3))
    pink = _bgr_from_lab(_PINK_LAB + rng.normal(0, 5, 3))
    diameter = _draw_diameter(size_quantile, cell_diameter)
    # Optics scale with the cells, so that small pictures of small cells stay legible.
    magnification = min(1.0, diameter / 100.0)
    angle = rng.uniform(0, 2 * np.pi)
    fringe = rng.uniform(0, 0.6) * magnification
    overexposed = family.background[0] > 100
    slide = Slide(
        background=background,
        red_density=_density(background, red),
        nucleus_density=family.contrast * _density(background, nucleus),
        pink_density=family.contrast * _density(background, pink),
        diameter=diameter,
        diameter_spread=rng.uniform(0.05, 0.11),
        elongation=rng.uniform(0.1, 0.28),
        pallor=rng.uniform(*family.pallor),
        crenated=float(np.clip(family.crenated * rng.uniform(0.4, 1.5), 0, 0.9)),
        pointed=float(np.clip(family.pointed * rng.uniform(0.3, 1.5), 0, 0.6)),
        unevenness=rng.uniform(0.4, 1.2),
        grain=rng.uniform(0.02, 0.08),
        bubbles=float(rng.choice([0.01, 0.12])),
        rim=rng.uniform(0.1, 0.35),
        crowding=float(np.clip(rng.lognormal(np.log(0.28), 0.33), 0.12, 0.46)),
        clustering=rng.uniform(0.0, 0.42),
        overlap=rng.uniform(0.1, 0.42),
        abutting=rng.uniform(0, 0.8),
        gap=rng.uniform(0.006, 0.02),
        blur=float(np.clip(rng.lognormal(np.log(2.35), 0.2), 1.4, 3.6)) * magnification,
        sharpening=rng.uniform(0.0, 0.5),
        fringe=(fringe * np.cos(angle), fringe * np.sin(angle)),
        noise=family.contrast * rng.uniform(0.006, 0.016),
        dark_noise=rng.uniform(0.0, 2.0),
        jpeg_quality=int(rng.integers(80, 97)),
        vignette=rng.uniform(0.0, 0.04 if overexposed else 0.1),
        light_centre=(rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)),
        dirt=float(rng.lognormal(0, 0.7)),
        film=rng.uniform(0, 0.035),
        thick=bool(rng.random() < 0.08),
        scale_bar=bool(rng.random() < 0.06),
    )
    return _widened(rng, slide) if variety == "wide" else slide


_EOSIN, _AZURE, _BROWN = (
    np.array(density, np.float32) for density in ((0.55, 0.75, 0.12), (0.3, 0.5, 0.6), (0.75, 0.45, 0.2))
)  # optical densities of stains, BGR


def _widened(rng: np.random.Generator, slide: Slide) -> Slide:
    """The slide in another laboratory: other stain, light, camera, focus and numbers of cells."""
    red = slide.red_density * np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.6:
        mixture = rng.dirichlet([1.0, 0.5, 0.3])
        stain = mixture[0] * _EOSIN + mixture[1] * _AZURE + mixture[2] * _BROWN
        red = stain * np.exp(rng.normal(0, 0.15, 3)) * float(np.clip(rng.lognormal(-0.4, 0.5), 0.25, 2))
    # Paler cells could not be annotated, and darker ones do not occur.
    red = np.asarray(red * np.clip(red.mean(), 0.15, 1.2) / red.mean(), np.float32)
    nucleus = slide.nucleus_density * np.exp(rng.normal(0, 0.2, 3))
    pink = slide.pink_density * np.exp(rng.normal(0, 0.2, 3))
    # Lamps from yellow halogen to blue LED, white balance or none, under- and overexposure.
    warmth = rng.normal(0, 0.1 if rng.random() < 0.75 else 0.25)
    lamp = np.exp(warmth * np.array([1, 0.1, -1]) + rng.normal(0, 0.04, 3))
    exposure = rng.uniform(0.6, 1.05)
    background = np.clip(exposure * lamp / lamp.max(), 0.15, None)
    scale = min(1.6, slide.diameter / 100)
    angle, fringe = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1.5) * scale
    return replace(
        slide,
        background=np.asarray(background, np.float32),
        red_density=red,
        nucleus_density=np.asarray(nucleus, np.float32),
        pink_density=np.asarray(pink, np.float32),
        diameter_spread=rng.uniform(0.04, 0.15),
        pallor=rng.uniform(-0.3, 0.9),
        crenated=float(rng.choice([0.0, 0.03, 0.4], p=[0.5, 0.35, 0.15])),
        crowding=float(np.clip(rng.lognormal(np.log(0.25), 0.55), 0.04, 0.55)),
        clustering=rng.uniform(0.0, 0.6),
        overlap=rng.uniform(0.05, 0.5),
        blur=float(np.clip(rng.lognormal(np.log(2.0), 0.5), 0.6, 6.0)) * scale,
        sharpening=rng.uniform(0.0, 1.0),
        fringe=(fringe * np.cos(angle), fringe * np.sin(angle)),
        noise=float(np.clip(rng.lognormal(np.log(0.01), 0.6), 0.002, 0.035)),
        jpeg_quality=int(rng.integers(35, 98)),
        vignette=float(rng.choice([rng.uniform(0, 0.1), rng.uniform(0.1, 0.4)])),
        light_centre=(rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85)),
        white_cells=float(rng.choice([1.0, 3.0, 8.0], p=[0.5, 0.3, 0.2])),
        platelets=float(rng.lognormal(0.5, 0.8)),
        # Smaller ones would be drawn and not annotated, because instances have 100 pixels or more.
        least_platelet=6.5,
        gamma=float(np.exp(rng.normal(0, 0.2))),
    )
