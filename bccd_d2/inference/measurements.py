"""What is measured of each cell, in pixels and in microns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import perimeter_crofton
from skimage.measure import regionprops as measure_regions

from bccd_d2.io.sources import ImageSource
from bccd_d2.structures.cell_kinds import kind_of
from bccd_d2.structures.cells import BORDER_MARGIN, Cells

Table = dict[str, NDArray]
"""Columns of equal length by name, in the order they are written."""

# An image is read in parts of this side, so that a slide is never in memory as a whole.
_BLOCK = 4096


def measure_cells(
    source: ImageSource, cells: Cells, class_names: Sequence[str], microns_per_pixel: float | None = None
) -> Table:
    """Measure every cell; the columns in microns are NaN where ``microns_per_pixel`` is ``None``.

    One value per cell in each of these columns:

    - ``id``: from 1 on, in the order of ``cells``, the same number in every format; ``class``: the name; ``score``: in
      [0, 1].
    - ``x_px``, ``y_px``: centre of gravity; (0, 0) is the upper left corner of the image, the centre of its first pixel
      is (0.5, 0.5).
    - ``area_px``: number of pixels A; ``equivalent_diameter_px``: that of a disc of this area, 2 sqrt(A / pi).
    - ``perimeter_px``: length P of the outline, holes included, by Crofton's formula in four directions (scikit-image's
      ``perimeter_crofton``): right within 0.1 % on average for round cells, where counting border pixels is 5 % off.
    - ``circularity``: 4 pi A / P^2; 1 for a disc; small cells come out slightly above 1 by chance.
    - ``eccentricity``: of the ellipse with the same second moments, in [0, 1); 0 for a disc.
    - ``solidity``: area over that of the convex hull of the pixels' corners, in (0, 1].
    - ``mean_red`` ... ``std_blue``: levels of the native image inside the mask, in [0, 255].
    - ``nucleus_fraction``: of white cells, NaN for others, see :func:`nucleus_fraction`.
    - ``touches_border``: whether the mask comes within :data:`~bccd_d2.structures.cells.BORDER_MARGIN` pixels of the
      image's border.
    - ``x_um``, ``y_um``, ``area_um2``, ``equivalent_diameter_um``, ``perimeter_um``: the same in microns.
    """
    shapes = np.array([_shape(mask) for mask in cells.masks]).reshape(-1, 5)
    area = cells.areas
    x, y = shapes[:, 0] + cells.windows[:, 0], shapes[:, 1] + cells.windows[:, 1]
    diameter = cells.diameters
    colors, nuclei = np.full((len(cells), 6), np.nan), np.full(len(cells), np.nan)
    nucleated = [kind_of(name) == "white" for name in class_names]
    for index, patch in _patches(source, cells.windows):
        inside = patch[cells.masks[index]]
        colors[index] = *inside.mean(axis=0)[::-1], *inside.std(axis=0)[::-1]
        if nucleated[cells.classes[index]]:
            nuclei[index] = nucleus_fraction(inside)
    microns = np.nan if microns_per_pixel is None else microns_per_pixel
    return {
        "id": np.arange(1, len(cells) + 1),
        "class": np.array([class_names[index] for index in cells.classes], object),
        "score": cells.scores,
        "x_px": x,
        "y_px": y,
        "area_px": area,
        "equivalent_diameter_px": diameter,
        "perimeter_px": shapes[:, 2],
        "circularity": 4 * np.pi * area / shapes[:, 2] ** 2,
        "eccentricity": shapes[:, 3],
        "solidity": area / shapes[:, 4],
        **{f"mean_{name}": colors[:, k] for k, name in enumerate(("red", "green", "blue"))},
        **{f"std_{name}": colors[:, k] for k, name in enumerate(("red", "green", "blue"), start=3)},
        "nucleus_fraction": nuclei,
        "touches_border": cells.touches_border(BORDER_MARGIN),
        "x_um": x * microns,
        "y_um": y * microns,
        "area_um2": area * microns**2,
        "equivalent_diameter_um": diameter * microns,
        "perimeter_um": shapes[:, 2] * microns,
    }


def nucleus_fraction(pixels: NDArray[np.uint8]) -> float:
    """Share in (0, 1) of a cell's pixels, (N, 3) uint8 BGR, that are of the more saturated of two kinds by Otsu's
    threshold.

    In a smear stained after Romanowsky (Wright, Giemsa) the nucleus is a saturated purple and the cytoplasm pale. This
    is a hint: Otsu's threshold divides a cell that shows no nucleus as well. NaN where all pixels are
    alike.
    """
    saturation = cv2.cvtColor(pixels[None], cv2.COLOR_BGR2HSV)[..., 1]
    threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_OTSU)
    share = float((saturation > threshold).mean())
    return share if 0 < share < 1 else float("nan")


def _shape(mask: NDArray[np.bool_]) -> tuple[float, float, float, float, float]:
    """Centre x and y in pixel-edge coordinates of the window, perimeter, eccentricity and area of the convex hull."""
    region = measure_regions(mask.astype(np.uint8))[0]
    row, column = region.centroid
    # The corners of the pixels at the ends of each row span the hull of all pixels.
    rows = np.flatnonzero(mask.any(axis=1))
    left, right = mask.argmax(axis=1)[rows], mask.shape[1] - mask[:, ::-1].argmax(axis=1)[rows]
    corners = np.stack([np.tile(np.r_[left, right], 2), np.r_[rows, rows, rows + 1, rows + 1]], axis=1)
    hull = cv2.contourArea(cv2.convexHull(corners.astype(np.int32)))
    perimeter = perimeter_crofton(mask, directions=4)
    return column + 0.5, row + 0.5, perimeter, region.eccentricity, hull


def _patches(source: ImageSource, windows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Index and (height, width, 3) BGR pixels of each window, block after block of the image."""
    blocks = windows[:, :2] // _BLOCK
    for block in np.unique(blocks, axis=0):
        chosen = np.flatnonzero((blocks == block).all(axis=1))
        left, top = windows[chosen, :2].min(axis=0).tolist()
        right, bottom = windows[chosen, 2:].max(axis=0).tolist()
        pixels = source.read(left, top, right - left, bottom - top)
        for index in chosen.tolist():
            x0, y0, x1, y1 = windows[index].tolist()
            yield index, pixels[y0 - top : y1 - top, x0 - left : x1 - left]
