"""RoIAlign and non-maximum suppression without torchvision's operators.

Programs that run TorchScript (Fiji, QuPath, bioimageio.core) have torch's own operators only. These give what
torchvision's give, up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torchvision.ops.boxes
from detectron2.layers import ROIAlign
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own habit

import bccd_d2.modeling.roi_heads


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Let Detectron2 and this project call the functions of this module in the place of torchvision's."""
    with ExitStack() as stack:
        for module, name, function in (
            # detectron2.layers.roi_align is the function, not its module.
            (sys.modules[ROIAlign.__module__], "roi_align", roi_align),
            (torchvision.ops.boxes, "batched_nms", batched_nms),
            (bccd_d2.modeling.roi_heads, "nms", nms),
        ):
            stack.enter_context(mock.patch.object(module, name, function))
        yield


def indices(length: Any) -> Tensor:
    """(length,) int64 from 0 on; ``length`` is a tensor of one number, unknown to the types of ``torch.arange``."""
    return torch.arange(length)


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and number within its owner of each element of a list, in which owner i has ``counts[i]`` elements."""
    starts = F.pad(counts.cumsum(0), [1, 0])
    length = starts[-1]
    # One more from each start on; owners without an element share theirs with the next one.
    steps = torch.zeros_like(indices(length + 1)).scatter_add(0, starts, torch.ones_like(starts))
    owner = steps.cumsum(0)[:-1] - 1
    return owner, indices(length) - starts[owner]


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """(N, C, *output_size): as :func:`torchvision.ops.roi_align`, for one image.

    Each bin is a weighted sum of features, and all bins together one call of ``embedding_bag``.

    Args:
        features: (1, C, H, W).
        rois: (N, 5): 0, then xyxy.
        output_size: rows and columns of bins.
        spatial_scale: features per pixel of the boxes.
        sampling_ratio: samples along each side of a bin; 0 for one per feature.
        aligned: whether features lie in the middle of their pixels.
    """
    channels, (rows, columns) = features.shape[1], output_size
    limits = torch.stack([torch.arange(features.shape[2])[-1], torch.arange(features.shape[3])[-1]])
    low, high = ((rois[:, i : i + 2] * spatial_scale - aligned * 0.5).flip(1) for i in (1, 3))  # y, x
    extent = high - low if aligned else (high - low).clamp(min=1)
    bins = extent / torch.tensor([rows, columns])
    grid = (torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()).long().clamp(min=0)
    counts = grid[:, :1] * grid[:, 1:]
    owner, sample = expand(counts.expand(-1, rows * columns).flatten())
    roi, place = owner // (rows * columns), owner % (rows * columns)
    cell = torch.stack([place // columns, place % columns], dim=1)
    part = torch.stack([sample // grid[roi, 1], sample % grid[roi, 1]], dim=1)
    position = low[roi] + cell * bins[roi] + (part + 0.5) * bins[roi] / grid[roi]
    outside = ((position < -1) | (position > limits + 1)).any(dim=1)
    position = torch.minimum(position.clamp(min=0), limits.to(position))
    first = position.floor()
    (below, right), (above, left) = (position - first).unbind(1), (1 - position + first).unbind(1)
    (y0, x0), (y1, x1) = (
        corner.long().unbind(1) for corner in (first, torch.minimum(first + 1, limits.to(first)))
    )
    width = limits[1] + 1
    index = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], dim=1)
    weights = torch.stack([above * left, above * right, below * left, below * right], dim=1)
    weights = weights * (~outside / counts[roi, 0])[:, None]
    starts = F.pad((4 * counts).expand(-1, rows * columns).flatten().cumsum(0), [1, 0])[:-1]
    table = features[0].flatten(1).t().contiguous()
    pooled = F.embedding_bag(index.flatten(), table, starts, mode="sum", per_sample_weights=weights.flatten())
    return pooled.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """As :func:`torchvision.ops.nms`."""
    return batched_nms(boxes, scores, torch.zeros_like(scores), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As :func:`torchvision.ops.batched_nms`."""
    order = scores.sort(descending=True, stable=True).indices
    return order[_survivors(boxes[order], idxs[order], iou_threshold)]


@torch.jit.script  # a loop that tracing keeps
def _survivors(boxes: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """(N,) bool: boxes (N, 4), best first, that none before them of their group suppresses."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = torch.ones_like(areas, dtype=torch.bool)
    for i in range(boxes.shape[0]):
        if bool(kept[i]):
            rest = boxes[i + 1 :]
            low = torch.maximum(boxes[i, :2], rest[:, :2])
            shared = (torch.minimum(boxes[i, 2:], rest[:, 2:]) - low).clamp(min=0).prod(dim=1)
            overlap = shared / (areas[i] + areas[i + 1 :] - shared)
            fits = ~(overlap > iou_threshold) | (groups[i + 1 :] != groups[i])
            kept[i + 1 :] = kept[i + 1 :] & fits  # TorchScript would drop "&="
    return kept
