"""A network of a few thousand weights with all heads, and drawn samples for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

import bccd_d2.modeling  # noqa: F401  registers this project's heads
from bccd_d2.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIDE = 128
_OPTIONS = """
    MODEL.DEVICE cpu MODEL.SLIM_RESNET.CHANNELS [8,12,16,20] MODEL.FPN.OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 8 MODEL.ROI_MASK_HEAD.NUM_CONV 1
    MODEL.RPN.BATCH_SIZE_PER_IMAGE 64
"""
TINY = _OPTIONS.split()
CASCADE = ["MODEL.ROI_HEADS.NAME", "CellCascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"]
STOCK = [
    *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
]


def tiny_config(*options: str) -> CfgNode:
    return load_config(CONFIGS / "mask_rcnn_slim_FPN_lite.yaml", [*TINY, *options])


def tiny_model(*options: str) -> torch.nn.Module:
    """The same weights for the same layers."""
    torch.manual_seed(0)
    model = build_model(tiny_config(*options))
    generator = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for name in sorted(state):
        if state[name].is_floating_point() and "running" not in name and "pixel_" not in name:
            state[name].copy_(0.1 * torch.randn(state[name].shape, generator=generator))
    return model


def disc(x: float, y: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def sample(
    discs: Sequence[tuple[float, float, float]] = ((40, 44, 20), (90, 80, 20)),
    ignore: torch.Tensor | None = None,
) -> dict[str, Any]:
    masks = (
        torch.stack([disc(*one) for one in discs]) if discs else torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    )
    image = torch.randint(
        180, 255, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    image[:, masks.any(0)] //= 2
    instances = Instances((SIDE, SIDE))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes() if discs else Boxes(torch.zeros(0, 4))
    instances.gt_classes = torch.zeros(len(masks), dtype=torch.long)
    found = {"image": image, "instances": instances, "height": SIDE, "width": SIDE}
    return found if ignore is None else {**found, "ignore_mask": ignore}


def losses_of(model: torch.nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Losses of a training step; the same draws each time."""
    torch.manual_seed(3)
    model.train()
    with EventStorage():
        return model(batch)


def detect(model: torch.nn.Module) -> Instances:
    """What the heads find in :func:`sample`, with masks as squares."""
    model.eval()
    with torch.no_grad():
        return model.inference([{"image": sample()["image"]}], do_postprocess=False)[0]
