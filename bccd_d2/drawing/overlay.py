"""Overlay of the cells on their image, as a raster image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bccd_d2.structures.cells import Cells

Color = tuple[int, int, int]

# BGR. Told apart by people with any kind of colour vision (Okabe and Ito 2008), and from pink and purple stain.
CLASS_COLORS: tuple[Color, ...] = ((115, 158, 0), (178, 114, 0), (0, 228, 240), (0, 94, 213), (233, 180, 86))

# Pictures below this side are too small for an outline of more than one pixel.
_THUMBNAIL = 400
_RIM: Color = (255, 255, 255)
# Fixed-point bits of the coordinates that OpenCV draws at.
_SHIFT = 4
# Lengths a scale bar may have, in microns; about this share of the image's width is taken.
_BAR_LENGTHS = tuple(factor * 10**power for power in range(-1, 6) for factor in (1, 2, 5))
_BAR_SHARE = 0.15


def class_color(index: int, colors: Sequence[Color] = CLASS_COLORS) -> Color:
    """Colour of a class, BGR; the colours repeat after the last."""
    return colors[index % len(colors)]


def class_hex(index: int) -> str:
    """:func:`class_color` for a page, ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(index)[::-1])


def draw_cells(
    image: NDArray[np.uint8],
    cells: Cells,
    class_names: Sequence[str],
    *,
    colors: Sequence[Color] = CLASS_COLORS,
    fill: float = 0.1,
    microns_per_pixel: float | None = None,
) -> NDArray[np.uint8]:
    """Outline and tint every cell in its class's colour, and count each class in the emptiest corner.

    ``image`` is (height, width, 3) uint8 BGR, that of the cells or that resized; a new one is returned. ``colors``
    (BGR) are by class index, ``fill`` is the opacity of the tint in [0, 1]; ``microns_per_pixel`` of the cells' image
    adds a scale bar.
    """
    scale = image.shape[1] / cells.width
    tint, lines = image.copy(), []
    for mask, window, index in zip(cells.masks, cells.windows, cells.classes.tolist()):
        contours, _ = cv2.findContours(np.pad(mask, 1).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # Pixel centres, in fixed point; the pad has moved them by a pixel.
        drawn = [
            np.rint(((contour + window[:2] - 0.5) * scale - 0.5) * 2**_SHIFT).astype(np.int32)
            for contour in contours
        ]
        cv2.fillPoly(tint, drawn, class_color(index, colors), cv2.LINE_8, _SHIFT)
        # Half a pixel is not seen, and a smooth line has a fraction of the corners.
        smooth = [cv2.approxPolyDP(contour, 2 ** (_SHIFT - 1), True) for contour in drawn]
        lines.append((smooth, class_color(index, colors)))
    canvas = np.asarray(cv2.addWeighted(tint, fill, image, 1 - fill, 0), np.uint8)
    thickness = line_thickness(image)
    # A pale rim sets the line off from cells as dark as itself; a line of one pixel would drown in it.
    for drawn, _ in lines if thickness > 1 else ():
        cv2.polylines(canvas, drawn, True, _RIM, thickness + 2, cv2.LINE_AA, _SHIFT)
    for drawn, color in lines:
        cv2.polylines(canvas, drawn, True, color, thickness, cv2.LINE_AA, _SHIFT)
    counts = np.bincount(cells.classes, minlength=len(class_names)).tolist()
    texts = [f"{name}: {number}" for name, number in zip(class_names, counts)]
    _draw_legend(canvas, texts, colors, cells.windows * scale)
    if microns_per_pixel is not None:
        _draw_scale_bar(canvas, microns_per_pixel / scale)
    return canvas


def line_thickness(image: NDArray[np.uint8]) -> int:
    """Pixels of an outline that can be seen when the image fills a screen."""
    side = max(image.shape[:2])
    return 1 if side < _THUMBNAIL else max(2, round(side / 800))


def _draw_legend(
    canvas: NDArray[np.uint8], texts: Sequence[str], colors: Sequence[Color], boxes: NDArray[np.float64]
) -> None:
    """Panel with colour, name and count of each class, in place, in the corner where it covers the least cell area."""
    size = _text_size(canvas)
    font = _font(size)
    line, gap = round(1.45 * size), round(0.5 * size)
    width = round(max(font.getlength(text) for text in texts)) + 3 * gap + size
    height = line * len(texts) + gap
    corners = [
        (x, y) for y in (0, max(0, canvas.shape[0] - height)) for x in (0, max(0, canvas.shape[1] - width))
    ]
    left, top = min(corners, key=lambda corner: _hidden(boxes, corner, width, height))
    panel = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(panel)
    for index, text in enumerate(texts):
        y = gap // 2 + index * line
        swatch = (gap, y + line // 2 - size // 2, gap + size, y + line // 2 + size // 2)
        draw.rectangle(swatch, fill=class_color(index, colors)[::-1])
        draw.text((2 * gap + size, y + line // 2), text, (30, 30, 30), font, anchor="lm")
    _paste(canvas, panel, left, top)


def _draw_scale_bar(canvas: NDArray[np.uint8], microns_per_pixel: float) -> None:
    """A bar of a round length in the middle of the lower border, with its length written above it, in place."""
    wanted = _BAR_SHARE * canvas.shape[1] * microns_per_pixel
    microns = min(_BAR_LENGTHS, key=lambda length: abs(np.log(length / wanted)))
    pixels = round(microns / microns_per_pixel)
    size = _text_size(canvas)
    gap = size // 2
    width, height = pixels + 2 * gap, round(2.2 * size)
    left, top = (canvas.shape[1] - width) // 2, canvas.shape[0] - height
    if left < 0 or top < 0:
        return
    panel = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(panel)
    draw.text((width / 2, 0.8 * size), f"{microns:g} µm", (30, 30, 30), _font(size), anchor="mm")
    bottom = height - gap
    draw.rectangle((gap, bottom - max(2, size // 6), gap + pixels - 1, bottom), fill=(30, 30, 30))
    _paste(canvas, panel, left, top)


def _hidden(boxes: NDArray[np.float64], corner: tuple[int, int], width: int, height: int) -> float:
    """Area of the boxes' parts inside a rectangle."""
    far = (corner[0] + width, corner[1] + height)
    sides = np.minimum(boxes[:, 2:], far) - np.maximum(boxes[:, :2], corner)
    return float(np.clip(sides, 0, None).prod(axis=1).sum())


def _text_size(canvas: NDArray[np.uint8]) -> int:
    return max(9, round(max(canvas.shape[:2]) / 60))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows the letters of class names in most languages."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _paste(canvas: NDArray[np.uint8], panel: Image.Image, left: int, top: int) -> None:
    part = canvas[top : top + panel.height, left : left + panel.width]
    part[:] = np.asarray(panel)[: part.shape[0], : part.shape[1], ::-1]
