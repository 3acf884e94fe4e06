"""Draws single cells: red cells, red cells with malaria parasites, white cells, platelets.

Each function takes the source of all randomness, the slide, the noise of the picture, the centre (x, y) in pixels of
the picture and a radius in pixels.
"""

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


def _red_thickness(
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
    """A healthy red cell: round, oval, pointed, teardrop, bitten or crenated; with pallor, target, slit or fold.

    ``radius`` is that of the circle of the same area.
    """
    outline, crenated = _red_outline(rng, radius, slide)
    canvas = patch_around(centre, outline)
    thickness = _red_thickness(rng, canvas, radius, slide, texture, crenated)
    amount = float(np.clip(rng.lognormal(0, 0.16), 0.55, 1.5))
    if rng.random() < 0.03:
        amount *= rng.uniform(0.3, 0.6)  # a ghost, or a young pale cell
    density = (amount * thickness)[..., None] * slide.red_density
    density *= np.exp(rng.normal(0, 0.02, 3)).astype(np.float32)
    return CellDrawing(
        canvas.left, canvas.top, canvas.inside(OUTLINE_MARGIN * 2 * radius), density, "red blood cell"
    )


def draw_infected_cell(
    rng: np.random.Generator, slide: Slide, texture: Texture, centre: tuple[float, float], radius: float
) -> CellDrawing:
    """A red cell with a malaria parasite: ring, trophozoite, schizont or gametocyte."""
    category = str(rng.choice(["ring", "trophozoite", "schizont", "gametocyte"], p=[0.25, 0.5, 0.1, 0.15]))
    radius = radius * (1.0 if category == "ring" else rng.uniform(0.95, 1.2))
    canvas = patch_around(centre, oval(rng, radius, slide.elongation, 0.1))
    thickness = _red_thickness(rng, canvas, radius, slide, texture, crenated=False)
    purple = np.zeros(canvas.shape, np.float32)
    offset = rng.normal(0, 0.25, 2) * radius
    away = np.hypot(canvas.x - offset[0], canvas.y - offset[1]) / radius
    fill = 1.0
    if category == "ring":
        size = rng.uniform(0.15, 0.28)
        purple += 0.5 * np.exp(-(((away - size) / 0.05) ** 2))
        at = rng.uniform(0, 2 * np.pi)
        dot = offset + size * radius * np.array([np.cos(at), np.sin(at)])
        purple += np.exp(-((np.hypot(canvas.x - dot[0], canvas.y - dot[1]) / (0.09 * radius)) ** 2))
    elif category == "schizont":
        fill = 0.6
        for _ in range(int(rng.integers(8, 17))):
            dot = rng.normal(0, 0.33, 2) * radius
            purple += np.exp(-((np.hypot(canvas.x - dot[0], canvas.y - dot[1]) / (0.13 * radius)) ** 2))
    else:
        fill = rng.uniform(0.35, 0.8)
        whole = category == "gametocyte" or rng.random() < 0.4
        blob = 1.2 - away / (0.85 if whole else 0.5) + 0.35 * texture.cut(rng, canvas.shape, radius / 5)
        purple += rng.uniform(0.4, 0.85) * np.clip(1.8 * blob, 0, 1)
        grains = texture.cut(rng, canvas.shape, radius / 16)
        purple += rng.uniform(0.3, 1.0) * np.clip(3 * (grains - 1.3), 0, 1) * np.clip(2 * blob, 0, 1)
    cover = canvas.cover()
    density = (fill * thickness)[..., None] * slide.red_density + 0.15 * cover[..., None] * slide.pink_density
    density += (np.clip(purple, 0, 1.4) * cover)[..., None] * slide.nucleus_density
    return CellDrawing(canvas.left, canvas.top, canvas.inside(OUTLINE_MARGIN * 2 * radius), density, category)


def draw_white_cell(
    rng: np.random.Generator, slide: Slide, texture: Texture, centre: tuple[float, float], radius: float
) -> CellDrawing:
    """A white cell of one of the five kinds; ``radius`` is that of a red cell."""
    kind = str(
        rng.choice(
            ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"], p=[0.5, 0.27, 0.1, 0.08, 0.05]
        )
    )
    radius = radius * {"lymphocyte": rng.uniform(1.0, 1.4), "monocyte": rng.uniform(1.6, 2.1)}.get(
        kind, rng.uniform(1.4, 1.8)
    )
    canvas = patch_around(centre, oval(rng, radius, 0.1, 0.06))
    lobes: list[tuple[float, float, float]] = []
    turn = rng.uniform(0, 2 * np.pi)
    if kind == "lymphocyte":
        lobes.append((*rng.normal(0, 0.05, 2), rng.uniform(0.72, 0.85)))
    elif kind == "monocyte":
        for step in np.linspace(-1.1, 1.1, 6):
            lobes.append(
                (0.38 * np.cos(turn + step) - 0.1, 0.38 * np.sin(turn + step), rng.uniform(0.32, 0.42))
            )
    else:
        number = 2 if kind == "eosinophil" else int(rng.integers(3, 6))
        spread = rng.uniform(3.2, 5.2) if number > 2 else np.pi
        for step in np.linspace(0, spread, number):
            away = rng.uniform(0.36, 0.46)
            lobes.append((away * np.cos(turn + step), away * np.sin(turn + step), rng.uniform(0.33, 0.46)))
    field = np.zeros(canvas.shape, np.float32)
    for x, y, size in lobes:
        # Lobes as a sum of blobs (Blinn 1982), so that neighbours join by bridges.
        field += np.exp(
            -2.5 * ((canvas.x - x * radius) ** 2 + (canvas.y - y * radius) ** 2) / (size * radius) ** 2
        )
    field += 0.02 * texture.cut(rng, canvas.shape, radius / 8)
    cover = canvas.cover(2.0)
    nucleus = np.clip((field - 0.09) / 0.05, 0, 1) * cover
    chromatin = np.clip(1 + 0.16 * texture.cut(rng, canvas.shape, radius / 10), 0.5, 1.4)
    grain = texture.cut(rng, canvas.shape, 1.5 if kind == "neutrophil" else 3.0)
    granules, pink, blue = {
        "neutrophil": (0.15, 0.25, 0.04),
        "lymphocyte": (0.05, 0.05, 0.3),
        "monocyte": (0.08, 0.12, 0.22),
        "eosinophil": (0.8, 0.4, 0.02),
        "basophil": (0.3, 0.2, 0.45),
    }[kind]
    plasma = rng.uniform(0.5, 1.1) * cover * (1 - 0.7 * nucleus)
    speckle = np.clip(grain, 0, 2) * granules
    density = (plasma * (pink + speckle))[..., None] * slide.pink_density
    dark_grains = blue + (np.clip(3 * grain, 0, 1.2) if kind == "basophil" else 0.0)
    density += (plasma * dark_grains)[..., None] * slide.nucleus_density
    density += (nucleus * chromatin * rng.uniform(0.8, 1.2))[..., None] * slide.nucleus_density
    inside = canvas.inside(OUTLINE_MARGIN * 2 * radius)
    return CellDrawing(canvas.left, canvas.top, inside, density.astype(np.float32), "leukocyte")


def draw_platelet(
    rng: np.random.Generator, slide: Slide, texture: Texture, centre: tuple[float, float], radius: float
) -> CellDrawing:
    """A platelet; ``radius`` is its own."""
    canvas = patch_around(centre, oval(rng, radius, 0.3, 0.25))
    grains = 1 + 0.35 * texture.cut(rng, canvas.shape, max(radius / 6, 1.5))
    core = np.exp(-((canvas.relative / rng.uniform(0.4, 0.8)) ** 2))
    cover = canvas.cover(2.0)
    density = (cover * np.clip(0.35 * grains, 0, 1))[..., None] * slide.pink_density
    density += (cover * core * np.clip(0.6 * grains, 0, 1.2))[..., None] * slide.nucleus_density
    return CellDrawing(canvas.left, canvas.top, canvas.inside(1.0), density.astype(np.float32), "platelet")
