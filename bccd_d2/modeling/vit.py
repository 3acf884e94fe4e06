"""A plain vision transformer (Dosovitskiy et al. 2021) as a backbone, such as the pathology model UNI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from bccd_d2.errors import InputError
from bccd_d2.modeling.simple_feature_pyramid import SimpleFeaturePyramid
from bccd_d2.modeling.weights import BCCDCheckpointer

OUTPUT = "tokens"  # name of the one feature map


class ViT(Backbone):
    """timm's ``VisionTransformer``; its final tokens as one feature map.

    Every token attends to every other in every block: at 512 px these are 1,024 tokens, and attention is a seventh of
    the work of ViT-L, so windows would save little. The position embedding is interpolated to the image.

    Args:
        weights: state dict of the transformer that :meth:`initialize_from_pretrained` loads; empty for none.
        patch_size: pixels a token.
        embed_dim: width.
        depth: number of blocks.
        num_heads: of attention.
        mlp_ratio: width of the blocks' hidden layer by ``embed_dim``.
        init_values: where LayerScale starts; 0 leaves it out.
        img_size: side in pixels of the square that the position embedding is for.
        checkpointing: compute the blocks again in the backward pass instead of keeping what is in them.
        freeze_blocks: so many first blocks, and the embedding before them, are not trained; 0 trains all.
        in_channels: of the images.

    Raises:
        InputError: ``freeze_blocks`` is more than ``depth``, or ``num_heads`` does not divide ``embed_dim``.
    """

    @configurable
    def __init__(
        self,
        *,
        weights: str = "",
        patch_size: int = 16,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        init_values: float = 1e-5,
        img_size: int = 224,
        checkpointing: bool = True,
        freeze_blocks: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not 0 <= freeze_blocks <= depth:
            raise InputError(
                f"MODEL.VIT.FREEZE_BLOCKS: expected 0 to MODEL.VIT.DEPTH ({depth}), found {freeze_blocks}"
            )
        if embed_dim % num_heads:
            raise InputError(
                f"MODEL.VIT.NUM_HEADS: expected a divisor of MODEL.VIT.EMBED_DIM ({embed_dim}), found {num_heads}"
            )
        from timm.models.vision_transformer import VisionTransformer  # takes two seconds

        self.weights = weights
        self.patch_size = patch_size
        self.model = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            init_values=init_values or None,
            dynamic_img_size=True,
        )
        self.model.set_grad_checkpointing(checkpointing)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = not (freeze_blocks and _layer(name, depth) <= freeze_blocks)
        self._out_features = [OUTPUT]
        self._out_feature_strides = {OUTPUT: patch_size}
        self._out_feature_channels = {OUTPUT: embed_dim}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Arguments from ``MODEL.VIT``."""
        vit = cfg.MODEL.VIT
        return {
            "weights": vit.WEIGHTS,
            "patch_size": vit.PATCH_SIZE,
            "embed_dim": vit.EMBED_DIM,
            "depth": vit.DEPTH,
            "num_heads": vit.NUM_HEADS,
            "mlp_ratio": vit.MLP_RATIO,
            "init_values": vit.INIT_VALUES,
            "img_size": vit.IMG_SIZE,
            "checkpointing": vit.CHECKPOINTING,
            "freeze_blocks": vit.FREEZE_BLOCKS,
            "in_channels": input_shape.channels,
        }

    def initialize_from_pretrained(self) -> None:
        """Load the state dict ``weights``, which must fit in every tensor.

        Raises:
            InputError: there is no such file, or it does not fit; it says how to get UNI's.
        """
        if not self.weights:
            return
        path = Path(self.weights)
        if not path.is_file():
            raise InputError(
                f"MODEL.VIT.WEIGHTS: {path} is not there. UNI's weights are given to those who accept their licence: "
                "ask for access to 'MahmoodLab/UNI' on the Hugging Face hub, download pytorch_model.bin and give it as "
                "'MODEL.VIT.WEIGHTS FILE'; an empty value starts from random weights"
            )
        try:
            BCCDCheckpointer(self.model).load(str(path))
        except InputError as error:
            raise InputError(f"MODEL.VIT.WEIGHTS: {error}") from error

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Final tokens, normalized, as a map (N, ``embed_dim``, H / patch_size, W / patch_size).

        Args:
            images: (N, C, H, W), normalized, H and W multiples of ``patch_size``.
        """
        height, width = (side // self.patch_size for side in images.shape[-2:])
        tokens = self.model.forward_features(images)[:, self.model.num_prefix_tokens :]
        return {OUTPUT: tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()}

    def rate_factors(self, decay: float) -> dict[torch.nn.Parameter, float]:
        """By parameter, ``decay`` to the power of how many blocks are between it and the output."""
        depth = len(self.model.blocks)
        return {
            parameter: decay ** (depth + 1 - _layer(name, depth))
            for name, parameter in self.model.named_parameters()
        }


def _layer(parameter_name: str, depth: int) -> int:
    """0 for the embedding, 1 to ``depth`` for the blocks, ``depth`` + 1 for what comes after them."""
    block = re.match(r"blocks\.(\d+)\.", parameter_name)
    if block:
        return int(block[1]) + 1
    return depth + 1 if parameter_name.startswith("norm.") else 0


def decay_layer_rates(
    groups: Iterable[dict[str, Any]], model: torch.nn.Module, decay: float
) -> list[dict[str, Any]]:
    """Lower the learning rates of vision transformers layer by layer, see :meth:`ViT.rate_factors`.

    Args:
        groups: of an optimiser, each with ``"params"`` and ``"lr"``.
        model: whose parameters they are.
        decay: ``MODEL.VIT.LR_DECAY``; 1 leaves the rates.

    Returns:
        Groups of the same parameters, one a rate.
    """
    factors: dict[torch.nn.Parameter, float] = {}
    for module in model.modules():
        if isinstance(module, ViT):
            factors.update(module.rate_factors(decay))
    result = []
    for group in groups:
        by_factor: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            by_factor.setdefault(factors.get(parameter, 1.0), []).append(parameter)
        result += [
            {**group, "params": parameters, "lr": group["lr"] * factor}
            for factor, parameters in by_factor.items()
        ]
    return result


@BACKBONE_REGISTRY.register()
def build_vit_sfp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SimpleFeaturePyramid:
    """``MODEL.VIT`` under a simple feature pyramid with the channels and the norm of ``MODEL.FPN``."""
    return SimpleFeaturePyramid(ViT(cfg, input_shape), cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM)
