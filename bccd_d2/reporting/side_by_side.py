"""Predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure

from bccd_d2.reporting.overlay import draw_cells
from bccd_d2.structures.cells import Cells


def truth_and_prediction(
    image: np.ndarray,
    true_masks: Sequence[np.ndarray],
    true_classes: Sequence[int],
    predicted_masks: Sequence[np.ndarray],
    predicted_classes: Sequence[int],
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Two panels: the annotated cells, the predicted cells.

    Args:
        image: (height, width, 3) uint8, BGR.
        true_masks: (height, width) each.
        true_classes: class index of each.
        predicted_masks: likewise.
        predicted_classes: likewise.
        class_names: by class index.
        title: of the figure.
    """
    height, width = image.shape[:2]
    figure = Figure(figsize=(14, 14 * height / width / 2 + 0.8), layout="constrained")
    panels = (
        ("annotated", true_masks, true_classes),
        ("predicted", predicted_masks, predicted_classes),
    )
    for axes, (name, masks, classes) in zip(figure.subplots(1, 2), panels):
        drawn = draw_cells(image, Cells.from_masks(height, width, masks, classes=classes), class_names)
        axes.imshow(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB))
        axes.set_title(f"{name}: {len(masks)} cells")
        axes.set_axis_off()
    figure.suptitle(title)
    return figure
