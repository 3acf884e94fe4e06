"""From optical density to a photograph: dirt, light, lens and camera of a synthetic smear."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.synthetic.outlines import Texture
from bccd_d2.synthetic.slide import FloatArray, Slide

_MEGAPIXEL = 1e6
_BURST_CELLS = 0.06  # chance of one on a megapixel at cells of 100 px


def _coarse_field(rng: np.random.Generator, height: int, width: int, cell: float) -> FloatArray:
    """Smooth noise of zero mean and about unit deviation whose features are about ``cell`` pixels apart."""
    knots = (max(2, round(height / cell) + 1), max(2, round(width / cell) + 1))
    field = rng.standard_normal(knots, dtype=np.float32)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def draw_dirt(
    rng: np.random.Generator, density: FloatArray, slide: Slide, texture: Texture
) -> list[tuple[int, int]]:
    """Draw plasma film, specks, stain precipitate and smudges onto an empty density canvas, (H, W, 3) float32 BGR,
    in place. Returns the centres (x, y) of the specks: where a careless annotator may leave a few mask pixels.
    """
    height, width = density.shape[:2]
    scale = slide.diameter / 100.0
    # Counts follow the number of fields of 100 px cells, so that small pictures of small cells look alike.
    area = height * width / _MEGAPIXEL / scale**2
    # Plasma stains unevenly in each colour.
    for channel in range(3):
        density[..., channel] += 0.006 * _coarse_field(rng, height, width, 220 * scale)
    film = np.clip(1 + 0.5 * _coarse_field(rng, height, width, 160 * scale), 0, None)
    density += (slide.film * film)[..., None] * (0.5 * slide.pink_density + 0.15)
    brown = np.array([0.9, 0.8, 0.6], np.float32)
    specks = []
    for _ in range(int(rng.poisson(50 * slide.dirt * area))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = (slide.pink_density, brown, slide.red_density)[int(rng.choice(3, p=[0.45, 0.25, 0.3]))]
        size = rng.lognormal(np.log(1.8), 0.55) * scale
        axes = (max(1, round(size)), max(1, round(size * rng.uniform(0.5, 1))))
        shade = (rng.uniform(0.08, 0.7) * colour + density[centre[1], centre[0]]).tolist()
        cv2.ellipse(density, centre, axes, rng.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_8)
        specks.append(centre)
    for _ in range(int(rng.poisson(5 * slide.dirt * area))):
        _smudge(rng, density, slide, texture, max(6, int(rng.lognormal(np.log(26), 0.6) * scale)), 0.45)
    if rng.random() < _BURST_CELLS * area:
        # A burst white cell: a large cloud of stain that is no cell any more.
        _smudge(rng, density, slide, texture, int(rng.uniform(0.8, 2.2) * slide.diameter), 1.2)
    if rng.random() < 0.15 * min(slide.dirt, 2):
        _fibre(rng, density, scale)
    return specks


def _smudge(
    rng: np.random.Generator,
    density: FloatArray,
    slide: Slide,
    texture: Texture,
    reach: int,
    strongest: float,
) -> None:
    """A cloud of stain without an outline, up to ``reach`` pixels from its centre."""
    height, width = density.shape[:2]
    left, top = int(rng.integers(-reach, width)), int(rng.integers(-reach, height))
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + 2 * reach, width), min(top + 2 * reach, height)
    if x1 <= x0 or y1 <= y0:
        return
    x, y = np.meshgrid(np.arange(x0, x1) - left - reach, np.arange(y0, y1) - top - reach)
    turn = rng.uniform(0, np.pi)
    along = (x * np.cos(turn) + y * np.sin(turn)) / reach
    across = (y * np.cos(turn) - x * np.sin(turn)) / (reach * rng.uniform(0.3, 0.9))
    envelope = np.exp(-3 * (along**2 + across**2)).astype(np.float32)
    grain = texture.cut(rng, (y1 - y0, x1 - x0), rng.uniform(1.5, 6))
    cloud = envelope * np.clip(0.5 + grain, 0, 2) * rng.uniform(0.1, 1) * strongest
    colour = slide.pink_density if rng.random() < 0.6 else np.array([0.6, 0.55, 0.5], np.float32)
    density[y0:y1, x0:x1] += cloud[..., None] * colour


def _fibre(rng: np.random.Generator, density: FloatArray, scale: float) -> None:
    """A hair or scratch: a smooth thin line."""
    height, width = density.shape[:2]
    start = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, 30))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * 12 * scale
    points = (start + np.cumsum(steps, axis=0)).round().astype(np.int32)
    shade = (np.array([0.35, 0.3, 0.25]) * rng.uniform(0.3, 1)).tolist()
    cv2.polylines(density, [points], False, shade, max(1, round(2 * scale)), cv2.LINE_8)


def _ghosts(rng: np.random.Generator, height: int, width: int, slide: Slide) -> FloatArray:
    """Density of cells far out of focus, (H, W); drawn at a quarter of the size, as they are blurred."""
    quarter = np.zeros((max(height // 4, 1), max(width // 4, 1)), np.float32)
    radius = slide.diameter / 8
    for _ in range(int(rng.poisson(0.25 * quarter.size / (np.pi * radius**2)))):
        layer = np.zeros_like(quarter)
        centre = (int(rng.integers(quarter.shape[1])), int(rng.integers(quarter.shape[0])))
        cv2.circle(layer, centre, max(1, round(radius)), rng.uniform(0.1, 0.7), -1)
        quarter += cv2.GaussianBlur(layer, (0, 0), radius * rng.uniform(0.3, 0.9))
    return cv2.resize(quarter, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def _light(rng: np.random.Generator, height: int, width: int, slide: Slide) -> FloatArray:
    """Illumination, (H, W), 1 at its brightest."""
    x = (np.arange(width, dtype=np.float32) / width - slide.light_centre[0])[None, :]
    y = (np.arange(height, dtype=np.float32) / height - slide.light_centre[1])[:, None]
    turn = rng.uniform(0, 2 * np.pi)
    tilt = 0.03 * (x * np.cos(turn) + y * np.sin(turn))
    return (1 - slide.vignette * 2 * (x**2 + y**2) + tilt).astype(np.float32)


def photograph(rng: np.random.Generator, density: FloatArray, slide: Slide) -> NDArray[np.uint8]:
    """Light, lens, sensor and JPEG compression: (H, W, 3) uint8 BGR of (H, W, 3) float32 optical density, BGR."""
    height, width = density.shape[:2]
    if slide.thick:
        density = density + _ghosts(rng, height, width, slide)[..., None] * slide.red_density
    picture = np.exp(-density)
    picture *= _light(rng, height, width, slide)[..., None] * slide.background
    if slide.gamma != 1:
        picture **= slide.gamma
    focus = slide.blur * rng.uniform(0.85, 1.2)
    picture = cv2.GaussianBlur(picture, (0, 0), focus).astype(np.float32)
    if slide.thick:
        # A thick layer is in focus in some places only.
        soft = cv2.GaussianBlur(picture, (0, 0), 2.5 * focus)
        share = np.clip(_coarse_field(rng, height, width, 350) - 0.4, 0, 1)[..., None]
        picture += share * (soft - picture)
    if slide.sharpening > 0:
        picture += slide.sharpening * (picture - cv2.GaussianBlur(picture, (0, 0), 2.0 * focus))
    picture = _fringe(picture, slide)
    # Gamma correction lifts the noise of dark pixels.
    gain = 1 + slide.dark_noise * (1 - np.clip(picture[..., 1:2], 0, 1))
    picture += gain * _sensor_noise(rng, height, width, slide.noise)
    coded = np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if slide.scale_bar:
        _scale_bar(coded, slide)
    _, stream = cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, slide.jpeg_quality])
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR), dtype=np.uint8)


def _fringe(picture: FloatArray, slide: Slide) -> FloatArray:
    """Lateral chromatic aberration: red and blue are displaced against green."""
    x, y = slide.fringe
    size = (picture.shape[1], picture.shape[0])
    for channel, sign in ((0, -1.0), (2, 1.0)):
        shift = np.array([[1, 0, sign * x], [0, 1, sign * y]], np.float32)
        plane = np.ascontiguousarray(picture[..., channel])
        picture[..., channel] = cv2.warpAffine(plane, shift, size, borderMode=cv2.BORDER_REPLICATE)
    return picture


def _sensor_noise(rng: np.random.Generator, height: int, width: int, deviation: float) -> FloatArray:
    """Grain, (H, W, 3): brightness noise 1 to 2 px wide, colour noise twice as wide (Bayer interpolation)."""
    grey = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 0.7)
    coarse = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), dtype=np.float32)
    colour = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return (deviation * (1.6 * grey[..., None] + 1.1 * colour)).astype(np.float32)


def _scale_bar(picture: NDArray[np.uint8], slide: Slide) -> None:
    """A bar of 20 micrometres (a red cell is about 7.5) with its label in the lower right corner."""
    height, width = picture.shape[:2]
    length = round(slide.diameter * 20 / 7.5)
    right, base, scale = width - height // 40, height - height // 30, slide.diameter / 100
    cv2.line(picture, (right - length, base), (right, base), (20, 20, 20), max(1, round(2 * scale)))
    for x in (right - length, right):
        cv2.line(picture, (x, base - round(6 * scale)), (x, base + round(6 * scale)), (20, 20, 20), 1)
    label = (right - length // 2 - round(40 * scale), base + round(28 * scale))
    cv2.putText(picture, "20 um", label, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, (20, 20, 20), 1, cv2.LINE_AA)
