"""A network from a photograph to its label image: all that surrounds the network, as tensors that can be traced.

Other programs run it without this project, so what :class:`bccd_d2.inference.finder.CellFinder` does with NumPy before
and after the network is part of the graph: white balance, scale, colour order, and masks put into the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import shapes_to_tensor
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own habit

from bccd_d2.data.preprocessing import (
    BACKGROUND_LEVEL,
    BACKGROUND_PERCENTILE,
    MAX_FACTOR,
    MAX_GAIN,
    MIN_FACTOR,
    MIN_GAIN,
)
from bccd_d2.inference.exporting.export import TraceableNetwork
from bccd_d2.inference.exporting.plain_ops import expand, indices
from bccd_d2.io.sources import SAMPLED_PIXELS
from bccd_d2.structures.detections import MASK_THRESHOLD


class LabelNetwork(nn.Module):
    """From a batch of one photograph to its label image, both of the same size.

    Args:
        network: tensors in, tensors out.
        image_format: "BGR" or "RGB", the colour order that the network expects.
        scale: network pixels per pixel of the photograph.
        white_balance, cell_density: see :class:`bccd_d2.data.preprocessing.ColorNormalizer`.
        score_threshold: cells below this score are left out.
    """

    def __init__(
        self,
        network: TraceableNetwork,
        *,
        image_format: str,
        scale: float,
        white_balance: bool,
        cell_density: Sequence[float],
        score_threshold: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_format, self.scale = image_format, scale
        self.white_balance, self.cell_density = white_balance, list(cell_density)
        self.score_threshold = score_threshold
        self.eval()

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module, score_threshold: float) -> LabelNetwork:
        """From ``INPUT`` and a ``GeneralizedRCNN``."""
        return cls(
            TraceableNetwork(model),
            image_format=cfg.INPUT.FORMAT,
            scale=cfg.INPUT.SCALE,
            white_balance=cfg.INPUT.WHITE_BALANCE,
            cell_density=cfg.INPUT.CELL_DENSITY,
            score_threshold=score_threshold,
        )

    def forward(self, images: Tensor) -> Tensor:
        """(1, 1, H, W) float32: 1 for the pixels of the cell with the best score, 2 for the next one, ... and 0 for
        the background; where cells overlap, the better one is on top.

        Args:
            images: (1, 3, H, W) float32 or uint8, RGB, 0 to 255.
        """
        image = images[0].float().clamp(0, 255).round()
        native = _size_of(image)
        if self.image_format == "BGR":
            image = image.flip(0)
        gain = factor = None
        if self.white_balance:
            levels = sample_levels(image)
            gain = white_balance_gain(levels)
            if self.cell_density:
                factor = density_factor(levels, gain, self.cell_density)
        if self.scale != 1:
            image = resize(image, (native.double() * self.scale).round().clamp(min=1).long())
        if gain is not None:
            balanced = image.double() * gain[:, None, None]
            if factor is not None:
                denser = BACKGROUND_LEVEL * (balanced / BACKGROUND_LEVEL) ** factor[:, None, None]
                balanced = torch.where(balanced < BACKGROUND_LEVEL, denser, balanced)
            image = balanced.round().clamp(0, 255).float()
        size = _size_of(image)
        padding: Any = -size % self.network.stride
        image = F.pad(image, [0, padding[1], 0, padding[0]])
        boxes, scores, _, masks = self.network(image, size)
        chosen = scores >= self.score_threshold
        stretch = (native.float() / size.float()).flip(0).repeat(2)
        boxes = boxes[chosen] * stretch
        return label_image(boxes, masks[chosen, 0], native)[None, None].float()


def _size_of(image: Tensor) -> Tensor:
    """(2,) int64, height and width of (..., H, W)."""
    return shapes_to_tensor([image.shape[-2], image.shape[-1]]).long()


def sample_levels(image: Tensor) -> Tensor:
    """(3, N) float64: the pixels of a (3, H, W) image that prediction measures.

    See :func:`bccd_d2.io.sources.sample_blocks`.
    """
    size = _size_of(image)
    step = (size.prod().double() / SAMPLED_PIXELS).sqrt().ceil().long().clamp(min=1)
    rows, columns = (indices((length + step - 1) // step) * step for length in size)
    return image[:, rows][:, :, columns].flatten(1).double()


def white_balance_gain(levels: Tensor) -> Tensor:
    """(3,) float64: as :func:`bccd_d2.data.preprocessing.white_balance_gain`, of (3, N) sampled levels."""
    levels = levels.sort(dim=1).values
    # As numpy.percentile: linear between the two values around the rank.
    rank = (_size_of(levels)[1] - 1).double() * (BACKGROUND_PERCENTILE / 100)
    low = rank.floor()
    below, above = levels[:, low.long()], levels[:, rank.ceil().long()]
    background = below + (above - below) * (rank - low)
    # A number divided by a tensor would be its reciprocal times the number, which rounds twice.
    level = torch.full_like(background, BACKGROUND_LEVEL)
    return (level / background.clamp(min=1)).clamp(MIN_GAIN, MAX_GAIN)


def density_factor(levels: Tensor, gain: Tensor, target: Sequence[float]) -> Tensor:
    """(3,) float64: as :func:`bccd_d2.data.preprocessing.density_factor`, of (3, N) sampled levels and their gain."""
    balanced = (levels * gain[:, None]).round().clamp(1, BACKGROUND_LEVEL)
    density = -(balanced / BACKGROUND_LEVEL).log()
    root = density.mean(dim=0).sqrt()
    # Where all pixels are alike no root is above the threshold: all of them are then taken, whose factor is unused.
    alike = root.max() == root.min()
    cells = density[:, (root > otsu_threshold(root)) | alike].sort(dim=1).values
    last = _size_of(cells)[1] - 1
    median = (cells[:, last // 2] + cells[:, (last + 1) // 2]) / 2
    goal = torch.tensor(target, dtype=torch.float64)
    factor = (goal / median.clamp(min=1e-3)).clamp(MIN_FACTOR, MAX_FACTOR)
    return torch.where(alike, torch.ones_like(factor), factor)


def otsu_threshold(values: Tensor) -> Tensor:
    """Otsu's (1979) threshold of (N,) values over 256 bins, as scikit-image's ``threshold_otsu``."""
    low, bins = values.min(), torch.arange(256)
    width = ((values.max() - low) / 256).clamp(min=1e-12)
    number = ((values - low) / width).floor().clamp(max=255).long()
    counts = torch.zeros(256, dtype=torch.float64).scatter_add(0, number, torch.ones_like(values))
    centres = low + (bins + 0.5) * width
    below, total = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    means = total / below.clamp(min=1), (total[-1] - total) / above.clamp(min=1)
    return centres[(below * above * (means[0] - means[1]) ** 2).argmax()]


def resize(image: Tensor, size: Tensor) -> Tensor:
    """Resize (3, H, W) to the (2,) ``size`` as :func:`bccd_d2.data.preprocessing.resize_image`, up to rounding."""
    rows, columns = (_resampling(old, new) for old, new in zip(_size_of(image), size))
    return (rows @ image @ columns.T + 0.5).floor()  # halves up, as OpenCV rounds the mean of 2x2 pixels


def _resampling(old: Tensor, new: Tensor) -> Tensor:
    """(new, old) float32: the weight of each old pixel in each new one, by area where it shrinks, else linear."""
    scale = old.double() / new
    starts, pixels = indices(new)[:, None] * scale, indices(old)
    shared = torch.minimum(starts + scale, pixels + 1) - torch.maximum(starts, pixels)
    centres = (starts + scale / 2 - 0.5).clamp(min=0).minimum(old - 1)
    linear = 1 - (centres - pixels).abs()
    return torch.where(scale > 1, shared / scale, linear).clamp(min=0).float()


def label_image(boxes: Tensor, masks: Tensor, size: Tensor) -> Tensor:
    """Put the masks of N cells into a label image.

    The pixels of all boxes are one long list, which needs neither a loop over the cells nor N images.

    Args:
        boxes: (N, 4) float32 xyxy in pixels of the image, best score first.
        masks: (N, M, M) float32 probabilities, each stretched over its box; see
            :class:`bccd_d2.structures.detections.Detections`.
        size: (2,) int64, height and width of the image.

    Returns:
        (height, width) int64: cell i as i + 1, without the cells that have no pixel; 0 is the background.
    """
    height: Any = size[0]
    width: Any = size[1]
    boxes = torch.minimum(boxes.clamp(min=0), size.flip(0).repeat(2).float())
    inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, masks = boxes[inside], masks[inside]
    left, top = boxes[:, :2].floor().long().unbind(1)
    right, bottom = boxes[:, 2:].ceil().long().unbind(1)
    columns = right - left
    cell, place = expand((bottom - top) * columns)
    y = top[cell] + place // columns[cell]
    x = left[cell] + place % columns[cell]
    covered = _sample(masks, boxes, size, cell, x, y) >= MASK_THRESHOLD
    # A cell without a pixel has no number; the best cell has the largest value, and 0 stands for the background.
    numbers = (torch.zeros_like(left).scatter_add(0, cell, covered.long()) > 0).long().cumsum(0)
    values = torch.where(covered, _size_of(boxes)[0] - cell, torch.zeros_like(cell))
    canvas = torch.zeros_like(indices(height * width))
    best = canvas.scatter_reduce(0, y * width + x, values, "amax")
    return F.pad(numbers.flip(0), [1, 0])[best].reshape(height, width)


def _sample(masks: Tensor, boxes: Tensor, size: Tensor, cell: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(P,) probabilities of the cells (P,) at the pixels (P,): bilinear between the samples of each mask, 0 outside.

    At the border of the image masks go on, see :meth:`bccd_d2.structures.detections.Detections.probability`.
    """
    side = masks.shape[-1]
    flat = F.pad(masks, [1, 1, 1, 1]).flatten()
    low, high = boxes[:, :2], boxes[:, 2:]
    density = (side / (high - low))[cell]
    position = (torch.stack([x, y], dim=1) + 0.5 - low[cell]) * density + 0.5  # in the padded mask
    # Outside of the samples lies the padding, which masks do not reach where the image ends.
    first = (low < 1).float()[cell]
    last = side + 1 - (high > size.flip(0) - 1).float()[cell]
    position = torch.minimum(torch.maximum(position, first), last)
    corner = position.floor().clamp(max=side)
    (right, lower), (column, row) = (position - corner).unbind(1), corner.long().unbind(1)
    start = (cell * (side + 2) + row) * (side + 2) + column
    upper = flat[start] * (1 - right) + flat[start + 1] * right
    below = flat[start + side + 2] * (1 - right) + flat[start + side + 3] * right
    return upper * (1 - lower) + below * lower
