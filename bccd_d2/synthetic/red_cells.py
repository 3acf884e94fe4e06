"""Red cells: round, oval, pointed, teardrop, bitten, crenated; with pallor, target, slit or fold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bccd_d2.synthetic.outlines import (
    OUTLINE_MARGIN,
    CellDrawing,
    Patch,
    Texture,
    bump,
    of_area,
    oval,
    patch_around,
)
from bccd_d2.synthetic.slide import FloatArray, Slide


def _red_outline(rng: np.random.Generator, radius: float, slide: Slide) -> tuple[NDArray[np.float64], bool]:
    """Radius at each angle of a red cell, and whether it is crenated."""
    kind = rng.random()
    if kind < slide.crenated:
        ring = oval(rng, 0.93 * radius, slide.elongation, 0.05)
        spikes = int(rng.integers(10, 20))
        height = rng.uniform(0.04, 0.2)
        angles = (np.arange(spikes) + rng.uniform(-0.3, 0.3, spikes)) * (2 * np.pi / spikes)
        for angle in angles:
            ring = ring + radius * height * rng.uniform(0.3, 1.2) * bump(
                angle, rng.uniform(0.3, 0.7) * np.pi / spikes
            )
        return ring, True
    ring = oval(rng, 1.0, slide.elongation, 0.05)
    kind = rng.random()
    if kind < slide.pointed:
        tip = rng.uniform(0, 2 * np.pi)
        ring = ring + rng.uniform(0.08, 0.4) * bump(tip, rng.uniform(0.25, 0.5))
        if rng.random() < 0.35:
            ring = ring + rng.uniform(0.08, 0.4) * bump(
                tip + np.pi + rng.normal(0, 0.2), rng.uniform(0.25, 0.5)
            )
    elif kind < slide.pointed + 0.03:
        # Teardrop: one long thin tail.
        ring = ring + rng.uniform(0.5, 0.9) * bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.16, 0.26))
    elif kind < slide.pointed + 0.05:
        # Bitten or folded cells lack a piece.
        ring = ring - rng.uniform(0.15, 0.35) * bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.6))
    elif kind < slide.pointed + 0.09:
        ring = oval(rng, 1.0, 0.4, 0.04)
    return of_area(ring, radius), False


def red_thickness(
    rng: np.random.Generator, canvas: Patch, radius: float, slide: Slide, texture: Texture, crenated: bool
) -> FloatArray:
    """Relative thickness of a red cell, mean 1 inside it, 0 outside."""
    relative = canvas.relative
    pallor = float(np.clip(rng.normal(slide.pallor, 0.2), -0.6, 0.92))
    width = rng.uniform(0.45, 0.75) if pallor > 0 else rng.uniform(0.6, 0.9)
    shift = rng.normal(0, 0.1, 2) * radius
    hollow = np.hypot(canvas.x - shift[0], canvas.y - shift[1]) / (canvas.edge * width)
    style = rng.random()
    if style < 0.06 and pallor > 0.1:
        # Stomatocyte: the pallor is a slit.
        turn = rng.uniform(0, np.pi)
        across = (canvas.x * np.cos(turn) + canvas.y * np.sin(turn)) / (0.22 * radius)
        along = (canvas.y * np.cos(turn) - canvas.x * np.sin(turn)) / (0.6 * radius)
        hollow = np.hypot(across, along)
    thickness = 1 - pallor * np.exp(-(hollow ** rng.uniform(2, 3.5)))
    if 0.06 <= style < 0.12 and pallor > 0.1:
        # Target cell: stain again in the middle of the pallor.
        thickness += rng.uniform(0.3, 0.8) * np.exp(-((relative / rng.uniform(0.15, 0.28)) ** 2))
    turn = rng.uniform(0, 2 * np.pi)
    slope = (canvas.x * np.cos(turn) + canvas.y * np.sin(turn)) / radius
    thickness *= np.clip(1 + rng.normal(0, 0.16) * slope, 0.3, 2)
    if rng.random() < (0.4 if crenated else 0.18):
        # A fold: one side thick, the other thin.
        thickness *= 1 + rng.uniform(0.1, 0.5) * np.tanh(
            (slope - rng.uniform(-0.4, 0.4)) / rng.uniform(0.08, 0.5)
        )
    blotches = np.tanh(1.5 * texture.cut(rng, canvas.shape, radius * rng.uniform(0.1, 0.25)))
    mottle = slide.unevenness * (rng.uniform(0.1, 0.7) if crenated else rng.uniform(0.01, 0.12))
    thickness *= 1 + mottle * blotches + slide.grain * texture.cut(rng, canvas.shape, 1.5)
    if crenated:
        thickness *= 1 + slide.unevenness * _knobs(rng, canvas, radius)
    np.clip(thickness, 0.15, 2.5, out=thickness)
    if rng.random() < slide.bubbles:
        thickness *= _bubble(rng, canvas, radius)
    taper = np.clip((canvas.edge - canvas.distance) / (slide.rim * rng.uniform(0.7, 1.3) * radius), 0, 1)
    thickness *= 0.3 + 0.7 * taper * (2 - taper)
    inside = canvas.inside()
    thickness *= canvas.cover() / max(float(thickness[inside].mean()), 1e-3)
    return thickness.astype(np.float32)


def _bubble(rng: np.random.Generator, canvas: Patch, radius: float) -> FloatArray:
    """Factor on the thickness at a refracting bubble, an artefact of drying: bright within a dark ring."""
    x, y = rng.normal(0, 0.35, 2) * radius
    size = rng.uniform(0.05, 0.16) * radius
    away = np.hypot(canvas.x - x, (canvas.y - y) * rng.uniform(0.7, 1.4)) / size
    factor = 1 + rng.uniform(0.2, 1.0) * np.exp(-(((away - 1.3) / 0.4) ** 2)) - 0.9 * np.exp(-(away**2))
    return factor.astype(np.float32)


def _knobs(rng: np.random.Generator, canvas: Patch, radius: float) -> FloatArray:
    """The crenations of a spiny cell that point towards the viewer: dark or bright dots."""
    dots = np.zeros(canvas.shape, np.float32)
    height = rng.uniform(-0.3, 0.7)
    for _ in range(int(rng.integers(4, 16))):
        away, turn = 0.85 * radius * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        x, y = away * np.cos(turn), away * np.sin(turn)
        size = rng.uniform(0.06, 0.13) * radius
        dots += np.exp(-((canvas.x - x) ** 2 + (canvas.y - y) ** 2) / size**2)
    return height * dots


def draw_red_cell(
    rng: np.random.Generator, slide: Slide, texture: Texture, centre: tuple[float, float], radius: float
) -> CellDrawing:
    """A healthy red cell (shapes: round, oval, pointed, teardrop, bitten, crenated; pallor, target, slit).

    Args:
        rng: source of all randomness.
        slide: stain and habits.
        texture: noise of the picture.
        centre: (x, y) in pixels of the picture.
        radius: of the circle of the same area, in pixels.

    Returns:
        The cell.
    """
    outline, crenated = _red_outline(rng, radius, slide)
    canvas = patch_around(centre, outline)
    thickness = red_thickness(rng, canvas, radius, slide, texture, crenated)
    amount = float(np.clip(rng.lognormal(0, 0.16), 0.55, 1.5))
    if rng.random() < 0.03:
        amount *= rng.uniform(0.3, 0.6)  # a ghost, or a young pale cell
    density = (amount * thickness)[..., None] * slide.red_density
    density *= np.exp(rng.normal(0, 0.02, 3)).astype(np.float32)
    return CellDrawing(
        canvas.left, canvas.top, canvas.inside(OUTLINE_MARGIN * 2 * radius), density, "red blood cell"
    )
