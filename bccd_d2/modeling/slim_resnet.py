"""A ResNet of basic blocks with any width, under Detectron2's FPN.

Detectron2 ties ResNet-18 to 64 channels and more. A cell is simpler than COCO's objects, but its outline is only as
exact as the pixels the network sees: half the channels at twice the resolution costs the same and draws it better.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

from bccd_d2.errors import InputError

_BLOCKS = 2  # of each stage, as in ResNet-18
STAGES = ("res2", "res3", "res4", "res5")


def build_slim_resnet(channels: Sequence[int], norm: str, input_channels: int = 3) -> ResNet:
    """ResNet-18 (He et al. 2016) with other channels of res2 to res5, at strides 4 to 32; the stem has those of res2.

    ``norm`` is as Detectron2 names it: "BN", "GN", "FrozenBN" or "". Raises InputError where there are not four
    positive numbers, or two stages in a row have as many channels, for which Detectron2's basic block has no shortcut
    that halves the size.
    """
    key = "MODEL.SLIM_RESNET.CHANNELS"
    if len(channels) != len(STAGES) or not all(isinstance(n, int) and n > 0 for n in channels):
        raise InputError(f"{key}: expected four whole numbers above 0, found {list(channels)}")
    if any(first == second for first, second in pairwise(channels)):
        raise InputError(f"{key}: expected another number for each stage, found {list(channels)}")
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks=_BLOCKS,
            stride_per_block=[1 if index == 0 else 2, 1],
            in_channels=channels[max(index - 1, 0)],
            out_channels=width,
            norm=norm,
        )
        for index, width in enumerate(channels)
    ]
    return ResNet(BasicStem(input_channels, channels[0], norm), stages, out_features=list(STAGES))


def build_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """The feature pyramid (Lin et al. 2017) of ``MODEL.FPN`` on a backbone, p2 to p6 at strides 4 to 64."""
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_slim_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Feature pyramid on :func:`build_slim_resnet`."""
    channels, norm = cfg.MODEL.SLIM_RESNET.CHANNELS, cfg.MODEL.RESNETS.NORM
    return build_fpn(cfg, build_slim_resnet(channels, norm, input_shape.channels))
