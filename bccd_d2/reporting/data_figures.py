"""Figures of the data: split, stain normalization, crops, augmentation, anchors, one training sample.

Images are (H, W, 3) uint8 BGR, label maps (H, W, L) integers, 0 being background, see
:meth:`bccd_d2.data.label_map.ImageInstances.label_map`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from bccd_d2.data.label_map import IGNORED_LABEL
from bccd_d2.data.stain import StainTarget
from bccd_d2.drawing.overlay import CLASS_COLORS
from bccd_d2.reporting.anchors import BestAnchors
from bccd_d2.structures.cells import Cells

# RGB; one colour per instance tells touching cells apart ("Set1" and "Dark2" of ColorBrewer).
_INSTANCE_COLORS = np.array(
    [
        *((228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0), (0, 160, 160)),
        *((166, 86, 40), (247, 129, 191), (230, 171, 2), (102, 166, 30)),
    ],
    dtype=np.uint8,
)
_IGNORED_COLOR = np.array((128, 128, 128), np.uint8)
CLASS_RGB = [tuple(level / 255 for level in color[::-1]) for color in CLASS_COLORS]


def draw_instances(image: np.ndarray, labels: np.ndarray, fill: float = 0.35) -> np.ndarray:
    """Tint and outline every instance in a colour of its own, and regions to ignore in grey; **RGB**, as matplotlib
    shows it.
    """
    canvas = np.ascontiguousarray(image[..., ::-1])
    width = max(1, round(max(image.shape[:2]) / 600))
    kernel = np.ones((2 * width + 1,) * 2, np.uint8)
    for layer in np.moveaxis(labels.astype(np.uint16), -1, 0):
        colors = _INSTANCE_COLORS[(layer.astype(int) - 1) % len(_INSTANCE_COLORS)]
        colors[layer == IGNORED_LABEL] = _IGNORED_COLOR
        inside = layer > 0
        edge = inside & (cv2.erode(layer, kernel) != cv2.dilate(layer, kernel))
        opacity = np.where(edge, 1.0, fill * inside)[..., None]
        canvas = np.rint(opacity * colors + (1 - opacity) * canvas).astype(np.uint8)
    return canvas


def _cell_count(labels: np.ndarray) -> int:
    return len(set(np.unique(labels).tolist()) - {0, IGNORED_LABEL})


def _show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    axes.imshow(image, interpolation="nearest" if max(image.shape) < 200 else "antialiased")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _scale_bar(axes: Axes, image: np.ndarray, pixels: int) -> None:
    """A bar of ``pixels`` native pixels with its length, in the lower left corner."""
    height, width = image.shape[:2]
    x, y, thick = 0.03 * width, 0.96 * height, max(2, 0.012 * height)
    corner = (x - 0.01 * width, y - 5.5 * thick)
    axes.add_patch(Rectangle(corner, pixels + 0.02 * width, 7 * thick, color="white"))
    axes.add_patch(Rectangle((x, y), pixels, thick, color="black"))
    axes.text(x + pixels / 2, y - 0.6 * thick, f"{pixels} px", ha="center", va="bottom", fontsize=7)


def split_grid(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    names: Sequence[str],
    part: str,
    counts: Mapping[str, tuple[int, int]],
) -> Figure:
    """Images of one part of the split with their annotated cells; the title gives (images, cells) of every part."""
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    for axes, image, label_map, name in zip(grid, images, labels, names):
        _show(axes, draw_instances(image, label_map), f"{name}\n{_cell_count(label_map)} cells")
    _scale_bar(grid[0], images[0], 200)
    sizes = ", ".join(f"{name} {n} images with {cells} cells" for name, (n, cells) in counts.items())
    figure.suptitle(f"Split: {sizes}\nshown: {len(images)} images of {part}, one colour per instance")
    return figure


def reinhard_preview(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    before: Sequence[StainTarget],
    after: Sequence[StainTarget],
    target: StainTarget,
) -> Figure:
    """Images before and after stain normalization, and the mean colours of all images around the target.

    ``rows`` are name, image, its foreground on white and the normalized image of some images; ``before`` and ``after``
    the statistics of every image.
    """
    figure = Figure(figsize=(16, 3.0 * len(rows) + 0.6), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=[3.1, 1])
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    titles = ("original", "foreground (Otsu): measured and normalized", "normalized")
    for row, line in zip(left.subplots(len(rows), 3, squeeze=False), rows):
        for axes, picture, title in zip(row, line[1:], titles):
            _show(axes, picture[..., ::-1], f"{line[0]}, {title}" if title == "original" else title)
    pairs = ((1, 2, "a* (green - red)", "b* (blue - yellow)"), (1, 0, "a* (green - red)", "L* (lightness)"))
    for axes, (x, y, x_label, y_label) in zip(np.ravel(right.subplots(2, 1)), pairs):
        for found, color, label in ((before, "0.6", "before"), (after, CLASS_RGB[0], "after")):
            means = np.array([one.mean for one in found])
            axes.scatter(means[:, x], means[:, y], s=14, color=color, label=f"{label} ({len(found)} images)")
        marker = {"s": 140, "marker": "+", "color": "black", "zorder": 3}
        axes.scatter(target.mean[x], target.mean[y], label="target", **marker)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
    right.axes[0].set_title("Mean colour of each image's cells", fontsize=10)
    right.axes[0].legend(fontsize=8)
    figure.suptitle("Reinhard stain normalization in CIELAB, statistics over the cells")
    return figure


def mask_overlay(image: np.ndarray, labels: np.ndarray, name: str) -> Figure:
    """One image, its label map, and both together."""
    height, width = image.shape[:2]
    figure = Figure(figsize=(16, 16 / 3 * height / width + 0.9), layout="constrained")
    cells = _cell_count(labels)
    white = np.full_like(image, 255)
    panels = (
        ("image", image[..., ::-1]),
        (f"label map: {cells} instances", draw_instances(white, labels, fill=0.9)),
        ("both", draw_instances(image, labels)),
    )
    for axes, (title, picture) in zip(figure.subplots(1, 3), panels):
        _show(axes, picture, title)
    _scale_bar(figure.axes[0], image, 200)
    figure.suptitle(f"Annotated cells of {name}, one colour per instance")
    return figure


def patch_preview(
    image: np.ndarray,
    windows: Sequence[tuple[int, int, int, int]],
    patches: Sequence[np.ndarray],
    patch_labels: Sequence[np.ndarray],
    name: str,
) -> Figure:
    """Training crops beside their native image; ``windows`` (x, y, width, height) are in native, ``patches`` in network
    pixels.
    """
    columns = -(-len(patches) // 2)
    figure = Figure(figsize=(7 + 2.4 * columns, 5.6), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=[7, 2.4 * columns])
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    axes = left.subplots()
    height, width = image.shape[:2]
    _show(axes, image[..., ::-1], f"{name}, {width}x{height} pixels")
    _scale_bar(axes, image, 200)
    grid = right.subplots(2, columns, squeeze=False).ravel()
    for spare in grid[len(patches) :]:
        spare.set_axis_off()
    for k, (window, patch, labels) in enumerate(zip(windows, patches, patch_labels)):
        color = _INSTANCE_COLORS[k % len(_INSTANCE_COLORS)] / 255
        x, y, w, h = window
        axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=2.5))
        axes.text(x + 12, y + 12, str(k + 1), color="white", backgroundcolor=color, va="top", fontsize=9)
        cells = _cell_count(labels)
        _show(grid[k], draw_instances(patch, labels, fill=0.2), f"{k + 1}: {w}x{h} px, {cells} cells")
    figure.suptitle("Training crops: windows of the native image, resized to network pixels")
    return figure


def augmentation_preview(
    original: tuple[np.ndarray, np.ndarray], rows: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, str]]]
) -> Figure:
    """One crop with its label map, and random augmentations of it with the names of the transforms, by preset."""
    columns = 1 + max(len(draws) for draws in rows.values())
    figure = Figure(figsize=(2.3 * columns, 2.6 * len(rows) + 0.7), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, (preset, draws) in zip(grid, rows.items()):
        for axes in row:
            axes.set_axis_off()
        _show(row[0], draw_instances(*original, fill=0.15), f"original; to the right: {preset}")
        for axes, (image, labels, done) in zip(row[1:], draws):
            _show(axes, draw_instances(image, labels, fill=0.15), textwrap.fill(done, 34))
            axes.title.set_fontsize(7)
    figure.suptitle(
        "Augmentation: image and masks are transformed together; outlines are the transformed masks"
    )
    return figure


def dataset_item(
    image: torch.Tensor, target: Mapping[str, torch.Tensor], class_names: Sequence[str]
) -> Figure:
    """One training sample as the network gets it: image, masks, boxes and classes, and the arrays that hold them.

    ``image`` is (3, h, w) float RGB in [0, 1], ``target`` that of :class:`bccd_d2.data.loader.TorchvisionCells`.
    """
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    plain, drawn, text = figure.subplots(1, 3, width_ratios=[1, 1, 1.0])
    picture = np.ascontiguousarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    _show(plain, picture, "image")
    labels = Cells.from_masks(picture.shape[0], picture.shape[1], target["masks"].numpy()).label_image()[
        ..., None
    ]
    _show(drawn, draw_instances(picture[..., ::-1], labels), "masks (one colour per instance) and boxes")
    for box, label in zip(target["boxes"].tolist(), target["labels"].tolist()):
        x0, y0, x1, y1 = box
        color = CLASS_RGB[(label - 1) % len(CLASS_RGB)]
        style = {"fill": False, "edgecolor": color, "linewidth": 1.5}
        drawn.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, **style))
    present = sorted(set(target["labels"].tolist()))
    handles = [
        Patch(
            facecolor=CLASS_RGB[(label - 1) % len(CLASS_RGB)],
            label=f"{class_names[label - 1]}: {int((target['labels'] == label).sum())}",
        )
        for label in present
    ]
    if handles:
        drawn.legend(handles=handles, fontsize=8, loc="lower right", title="boxes")
    lines = []
    for key, value in {"image": image, **target}.items():
        span = f"{value.min():g} to {value.max():g}" if value.numel() else "empty"
        lines.append(f"{key:9s} {tuple(value.shape)!s:15s} {value.dtype!s:13s} {span}".replace("torch.", ""))
    text.text(0, 0.98, "\n".join(lines), va="top", family="monospace", fontsize=8)
    text.set_axis_off()
    figure.suptitle("Item 0 of the training set, in torchvision's format")
    return figure


def anchor_preview(
    image: NDArray[np.uint8], boxes: NDArray[np.float64], best: BestAnchors, title: str, threshold: float
) -> Figure:
    """Annotated boxes (N, 4) xyxy and, dashed in the colour of its level, the anchor that overlaps each most.

    ``image`` and boxes are in network pixels. Boxes whose best IoU is below ``threshold`` are red.
    """
    height, width = image.shape[:2]
    figure = Figure(figsize=(8, 8 * height / width + 1.2), layout="constrained")
    axes = figure.subplots()
    colors = [matplotlib.colormaps["Set2"](level) for level in range(len(best.strides))]
    axes.imshow(image[..., ::-1])
    for box, anchor, level, overlap in zip(boxes, best.boxes, best.levels, best.overlaps):
        axes.add_patch(_rectangle(box, color="red" if overlap < threshold else "black", linewidth=1.8))
        axes.add_patch(_rectangle(anchor, color=colors[level], linewidth=1.4, linestyle="--"))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    covered = int((best.overlaps >= threshold).sum())
    axes.set_title(f"{title}: {covered} of {len(boxes)} boxes have an anchor of IoU >= {threshold}")
    lines = []
    for color, stride, sizes in zip(colors, best.strides, best.sizes):
        label = f"stride {stride}: {', '.join(f'{size:g}' for size in sizes)} px"
        lines.append(Line2D([], [], color=color, linestyle="--", label=label))
    lines.append(Line2D([], [], color="black", label="annotated"))
    lines.append(Line2D([], [], color="red", label=f"annotated, IoU < {threshold}"))
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4, frameon=False, fontsize=9
    )
    return figure


def _rectangle(box: NDArray[np.float64], **style: Any) -> Rectangle:
    left, top, right, bottom = box
    return Rectangle((left, top), right - left, bottom - top, fill=False, **style)
