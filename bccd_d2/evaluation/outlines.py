"""How far the outline of a prediction is from that of the cell it found."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.structures.cells import Cells

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class OutlineAgreement(NamedTuple):
    """Of one matched pair, native px.

    ``boundary_f1`` is the harmonic mean of the shares of either outline that lie within the tolerance of the other;
    ``hausdorff`` the greatest distance from a point of one outline to the other outline, ``hausdorff95`` the greater of
    the two directions' 95th percentiles.
    """

    boundary_f1: float
    hausdorff: float
    hausdorff95: float


def outline_agreement(
    predictions: Cells, predicted: int, truth: Cells, true: int, tolerance: float
) -> OutlineAgreement:
    """Compare two outlines, the masks' pixels with one of the four neighbours outside; the image border is outside.

    Args:
        predictions: cells of the image.
        predicted: index of one of them that is not empty.
        truth: cells of the same image.
        true: likewise.
        tolerance: px by which an outline may be off.
    """
    windows = np.stack([predictions.windows[predicted], truth.windows[true]])
    origin, end = windows[:, :2].min(axis=0) - 1, windows[:, 2:].max(axis=0) + 1
    a = _outline(predictions.masks[predicted], windows[0, :2] - origin, end - origin)
    b = _outline(truth.masks[true], windows[1, :2] - origin, end - origin)
    a_to_b, b_to_a = _distances(b)[a], _distances(a)[b]
    precision, recall = (a_to_b <= tolerance).mean(), (b_to_a <= tolerance).mean()
    return OutlineAgreement(
        float(2 * precision * recall / max(precision + recall, 1e-9)),
        float(max(a_to_b.max(), b_to_a.max())),
        float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95))),
    )


def _outline(
    mask: NDArray[np.bool_], corner: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Outline of a mask whose upper left pixel lies at ``corner`` (x, y) of a window of ``size`` (width, height)."""
    window = np.zeros(size[::-1], np.uint8)
    x, y = corner
    window[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return window > cv2.erode(window, _CROSS)


def _distances(outline: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance of each pixel to the outline."""
    return np.asarray(
        cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32
    )
