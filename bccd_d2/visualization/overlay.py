"""Cells drawn on their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

# BGR. Told apart by people with any kind of colour vision (Okabe and Ito 2008), and from pink and purple stain.
CLASS_COLORS = ((115, 158, 0), (178, 114, 0), (0, 228, 240), (0, 94, 213), (233, 180, 86))


def draw_cells(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    classes: Sequence[int],
    class_names: Sequence[str],
    fill: float = 0.15,
) -> np.ndarray:
    """Outline and tint every cell in its class's colour, and count each class in a corner.

    Args:
        image: (height, width, 3) uint8, BGR.
        masks: (height, width) bool or uint8 each.
        classes: class index of each mask.
        class_names: by class index.
        fill: opacity of the tint in [0, 1].

    Returns:
        A new (height, width, 3) uint8 BGR image.
    """
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 800))
    for mask, index in zip(masks, classes):
        color = CLASS_COLORS[index % len(CLASS_COLORS)]
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        if width == 0:
            continue
        window = canvas[y : y + height, x : x + width]
        inside = mask[y : y + height, x : x + width].astype(bool)
        window[inside] = (1 - fill) * window[inside] + fill * np.array(color)
        contours, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y)
        )
        cv2.drawContours(canvas, contours, -1, color, thickness, cv2.LINE_AA)
    _draw_legend(canvas, Counter(classes), class_names)
    return canvas


def _draw_legend(canvas: np.ndarray, counts: Counter[int], class_names: Sequence[str]) -> None:
    """White box in the upper left corner with the colour, name and count of each class, in place."""
    scale = max(canvas.shape[:2]) / 1600
    line = round(36 * scale)
    texts = [f"{name}: {counts[index]}" for index, name in enumerate(class_names)]
    font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.9 * scale, max(1, round(2 * scale))
    width = max(cv2.getTextSize(text, font, size, weight)[0][0] for text in texts) + 2 * line
    cv2.rectangle(canvas, (0, 0), (width, line * len(texts) + line // 2), (255, 255, 255), cv2.FILLED)
    for index, text in enumerate(texts):
        baseline = (index + 1) * line
        color = CLASS_COLORS[index % len(CLASS_COLORS)]
        cv2.rectangle(canvas, (line // 4, baseline - line // 2), (line, baseline), color, cv2.FILLED)
        cv2.putText(
            canvas, text, (round(1.4 * line), baseline), font, size, (40, 40, 40), weight, cv2.LINE_AA
        )
