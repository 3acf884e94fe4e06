"""Otsu's threshold with a watershed, the baseline that any trained model has to beat; it needs no torch.

The green channel is thresholded (Otsu 1979), and components that hold several cells are cut by a watershed on the
distance to the background (Vincent and Soille 1991), as the conversion cuts masks.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.segmentation.instances import InstanceRule, label_instances
from bccd_d2.structures.cells import Cells

GREEN = 1
"""Channel of a BGR image: haemoglobin and the stain's dyes take up green."""
SMOOTHING = 2.0
"""Sigma, in native pixels, of the blur before the threshold."""
RULE = InstanceRule(min_area=1500, connectivity=4, fill_holes=6000, cut=0.02)
"""Chosen on real training pairs, whose cells cover 5,000 to 10,000 pixels; it drops platelets."""


def otsu_watershed(
    image: NDArray[np.uint8], rule: InstanceRule = RULE, smoothing: float = SMOOTHING
) -> Cells:
    """Find the cells of one image (height, width, 3) uint8 BGR, dark on a bright background.

    ``smoothing`` is the sigma of the blur in native pixels, 0 for none. The cells have class 0 and as score the
    solidity of the mask (its area over that of its convex hull), because what was cut or grown together badly has
    notches.
    """
    green = np.ascontiguousarray(image[..., GREEN])
    if smoothing > 0:
        green = np.asarray(cv2.GaussianBlur(green, (0, 0), smoothing), np.uint8)
    _, dark = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    cells = Cells.from_label_image(label_instances(dark, rule=rule).labels)
    return replace(cells, scores=np.array([_solidity(mask) for mask in cells.masks], np.float64))


def _solidity(mask: NDArray[np.bool_]) -> float:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(outline))
    return min(1.0, cv2.contourArea(outline) / hull) if hull else 1.0
