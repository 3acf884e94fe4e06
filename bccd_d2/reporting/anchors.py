"""A figure of the region proposal network's anchors on a real image."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bccd_d2.modeling.anchors import Anchors, best_anchors


def anchor_preview(
    image: NDArray[np.uint8], boxes: NDArray[np.float64], anchors: Mapping[str, Anchors], threshold: float
) -> Figure:
    """Annotated boxes and, dashed in the colour of its level, the anchor that overlaps each most.

    Args:
        image: (H, W, 3) uint8 BGR, resized as the network sees it.
        boxes: (N, 4) xyxy, in its pixels.
        anchors: a panel each, by its name.
        threshold: boxes whose best anchor overlaps them less (IoU) are drawn in red.
    """
    height, width = image.shape[:2]
    figure = Figure(figsize=(8 * len(anchors), 8 * height / width + 1.2), layout="constrained")
    colors = matplotlib.colormaps["Set2"].colors  # type: ignore[attr-defined]
    for axes, (name, one) in zip(figure.subplots(1, len(anchors), squeeze=False)[0], anchors.items()):
        best = best_anchors(boxes, np.tile((height, width), (len(boxes), 1)), one)
        axes.imshow(image[..., ::-1])
        for box, anchor, level, overlap in zip(boxes, best.boxes, best.levels, best.overlaps):
            missed = overlap < threshold
            axes.add_patch(_rectangle(box, color="red" if missed else "black", linewidth=1.8))
            axes.add_patch(_rectangle(anchor, color=colors[level], linewidth=1.4, linestyle="--"))
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        covered = int((best.overlaps >= threshold).sum())
        axes.set_title(f"{name}: {covered} of {len(boxes)} boxes have an anchor of IoU >= {threshold}")
        lines = [
            Line2D(
                [], [], color=colors[level], linestyle="--", label=f"stride {stride}: {_numbers(sizes)} px"
            )
            for level, (stride, sizes) in enumerate(zip(one.strides, one.sizes))
        ]
        lines.append(Line2D([], [], color="black", label="annotated"))
        lines.append(Line2D([], [], color="red", label=f"annotated, IoU < {threshold}"))
        axes.legend(
            handles=lines, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4, frameon=False, fontsize=9
        )
    return figure


def _rectangle(box: NDArray[np.float64], **style: object) -> Rectangle:
    left, top, right, bottom = box
    return Rectangle((left, top), right - left, bottom - top, fill=False, **style)  # type: ignore[arg-type]


def _numbers(values: object) -> str:
    return ", ".join(f"{value:g}" for value in values)  # type: ignore[attr-defined]
