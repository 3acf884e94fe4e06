"""Parts of SVG pictures: an embedded JPEG, outlines of masks."""

from __future__ import annotations

import base64
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY = 78
TOLERANCE = 1.0
"""Outlines are drawn to this many pixels of the image."""


def outline_path(inside: NDArray[np.bool_], x: int, y: int, tolerance: float = TOLERANCE) -> str:
    """SVG path around the pixels of a mask, moved by (x, y); empty for an empty mask."""
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = []
    for outline in outlines:
        points = cv2.approxPolyDP(outline, tolerance, closed=True).reshape(-1, 2)
        corners = " ".join(f"{px + x + 0.5:g} {py + y + 0.5:g}" for px, py in points)
        parts.append(f"M{corners}Z")
    return "".join(parts)


def jpeg_uri(
    image: NDArray[np.uint8], view: tuple[int, int, int, int], longest: int, quality: int = QUALITY
) -> str:
    """A part of an image as a data URI.

    Args:
        image: (height, width, 3) uint8, RGB.
        view: x, y, width, height of the part, in pixels of the image.
        longest: side in pixels that the picture may have; a larger part is shrunk.
        quality: of the JPEG, 0 to 100.
    """
    x, y, width, height = view
    part = image[y : y + height, x : x + width]
    scale = min(1.0, longest / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(part, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a picture of {width}x{height} pixels")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def dump(svg: Element) -> str:
    """An element as text."""
    return ElementTree.tostring(svg, encoding="unicode")
