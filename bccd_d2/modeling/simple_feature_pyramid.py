"""The simple feature pyramid of Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection"."""

from __future__ import annotations

import math

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from bccd_d2.errors import InputError

_STRIDES = (4, 8, 16, 32)


class SimpleFeaturePyramid(Backbone):
    """Makes p2 to p6 (strides 4 to 64) of the one feature map of a backbone, without any path from top to bottom.

    Finer levels come from transposed convolutions, coarser ones from max pooling; each then passes a 1x1 and a 3x3
    convolution. ``norm`` is "LN" (over channels, as in the paper), or one of Detectron2's names; empty for none. Raises
    InputError where the stride of ``bottom_up`` is neither 8 nor 16.
    """

    def __init__(self, bottom_up: Backbone, out_channels: int = 256, norm: str = "LN") -> None:
        super().__init__()
        ((self._feature, shape),) = bottom_up.output_shape().items()
        if shape.stride not in (8, 16):
            raise InputError(f"MODEL.TIMM.OPTIONS: expected a patch_size of 8 or 16, found {shape.stride}")
        self.bottom_up = bottom_up
        self.levels = nn.ModuleDict()
        for stride in _STRIDES:
            layers, channels = _resample(shape.channels, shape.stride / stride, norm)
            layers += [
                Conv2d(channels, out_channels, 1, bias=not norm, norm=_norm(norm, out_channels)),
                Conv2d(
                    out_channels, out_channels, 3, padding=1, bias=not norm, norm=_norm(norm, out_channels)
                ),
            ]
            self.levels[f"p{int(math.log2(stride))}"] = nn.Sequential(*layers)
        self.top_block = LastLevelMaxPool()
        self._out_feature_strides = {name: 2 ** int(name[1:]) for name in (*self.levels, "p6")}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return _STRIDES[-1]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features (N, ``out_channels``, H / stride, W / stride) by name, of normalized images (N, C, H, W)."""
        features = self.bottom_up(images)[self._feature]
        levels = {name: level(features) for name, level in self.levels.items()}
        (levels["p6"],) = self.top_block(levels["p5"])
        return levels


def _resample(channels: int, factor: float, norm: str) -> tuple[list[nn.Module], int]:
    """Layers that make a map ``factor`` times as large (a power of two), and their output channels."""
    if factor < 1:
        kernel = round(1 / factor)
        return [nn.MaxPool2d(kernel, kernel)], channels
    layers: list[nn.Module] = []
    while factor > 1:
        if layers:
            layers += [_norm(norm, channels) or nn.Identity(), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels, factor = channels // 2, factor / 2
    return layers, channels


def _norm(name: str, channels: int) -> nn.Module | None:
    if name != "LN":
        return get_norm(name, channels)
    from timm.layers import LayerNorm2d  # takes two seconds

    return LayerNorm2d(channels)
