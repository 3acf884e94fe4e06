"""What is not a healthy red cell: red cells with malaria parasites, white cells, platelets."""

from __future__ import annotations

import numpy as np

from bccd_d2.synthetic.outlines import OUTLINE_MARGIN, CellDrawing, Texture, oval, patch_around
from bccd_d2.synthetic.red_cells import red_thickness
from bccd_d2.synthetic.slide import Slide


def draw_infected_cell(
    rng: np.random.Generator, slide: Slide, texture: Texture, centre: tuple[float, float], radius: float
) -> CellDrawing:
    """A red cell with a malaria parasite (ring, trophozoite, schizont or gametocyte); arguments as above."""
    category = str(rng.choice(["ring", "trophozoite", "schizont", "gametocyte"], p=[0.25, 0.5, 0.1, 0.15]))
    radius = radius * (1.0 if category == "ring" else rng.uniform(0.95, 1.2))
    canvas = patch_around(centre, oval(rng, radius, slide.elongation, 0.1))
    thickness = red_thickness(rng, canvas, radius, slide, texture, crenated=False)
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
    """A white cell of one of the five kinds; ``radius`` is that of a red cell, other arguments as above."""
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
    """A platelet; ``radius`` is its own, in pixels; other arguments as above."""
    canvas = patch_around(centre, oval(rng, radius, 0.3, 0.25))
    grains = 1 + 0.35 * texture.cut(rng, canvas.shape, max(radius / 6, 1.5))
    core = np.exp(-((canvas.relative / rng.uniform(0.4, 0.8)) ** 2))
    cover = canvas.cover(2.0)
    density = (cover * np.clip(0.35 * grains, 0, 1))[..., None] * slide.pink_density
    density += (cover * core * np.clip(0.6 * grains, 0, 1.2))[..., None] * slide.nucleus_density
    return CellDrawing(canvas.left, canvas.top, canvas.inside(1.0), density.astype(np.float32), "platelet")
