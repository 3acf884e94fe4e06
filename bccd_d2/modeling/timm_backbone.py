"""Models of timm as backbones under Detectron2's feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from bccd_d2.errors import InputError

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # Detectron2's names of the stages


class TimmBackbone(Backbone):
    """The features of a timm model at strides 4, 8, 16 and 32.

    Args:
        name: as in ``timm.list_models()``, with or without the tag of its weights.
        pretrained: whether :meth:`initialize_from_pretrained` loads timm's weights.
        freeze_bn: whether batch norms keep statistics, scale and offset.
        in_channels: of the images.

    Raises:
        InputError: timm does not know the name, or the model gives no such features or takes one image size only.
    """

    def __init__(self, name: str, pretrained: bool, freeze_bn: bool = False, in_channels: int = 3) -> None:
        super().__init__()
        import timm  # takes two seconds
        from timm.utils.model import freeze_batch_norm_2d

        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
            raise InputError(
                f"MODEL.TIMM.NAME: timm {timm.__version__} knows no model {name!r}; near it are "
                f"{', '.join(near) or 'none'}, and timm.list_models() has all"
            )
        self.name, self.pretrained = name, pretrained
        self._create = partial(timm.create_model, name, features_only=True, in_chans=in_channels)
        try:
            self.model = self._create()
        except (RuntimeError, TypeError, AssertionError) as error:
            raise InputError(f"MODEL.TIMM.NAME: {name} gives no feature maps ({error})") from error
        info: Any = self.model.feature_info
        strides, channels = info.reduction(), info.channels()
        if not set(_STRIDES.values()) <= set(strides):
            raise InputError(
                f"MODEL.TIMM.NAME: {name} has features at strides {strides}, expected {list(_STRIDES.values())} among "
                "them"
            )
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            self._create = partial(self._create, strict_img_size=False)  # those that can then take any size
            try:
                self.model = self._create()
            except TypeError as error:
                raise InputError(
                    f"MODEL.TIMM.NAME: {name} takes images of one size only ({error})"
                ) from error
        if freeze_bn:
            self.model = freeze_batch_norm_2d(self.model)
        # The last one of each stride has seen most of the network.
        self._indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in _STRIDES.values()]
        self._channels_last = str(getattr(self.model, "output_fmt", "")).endswith("NHWC")
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = {stage: channels[index] for stage, index in zip(_STRIDES, self._indices)}

    def initialize_from_pretrained(self) -> None:
        """Load timm's weights, from its cache or the network.

        Raises:
            InputError: they cannot be had.
        """
        if not self.pretrained:
            return
        try:
            source = self._create(pretrained=True)
        except Exception as error:  # each of the network's layers raises kinds of its own
            raise InputError(
                f"MODEL.TIMM.PRETRAINED: the weights of {self.name} cannot be downloaded "
                f"({str(error).partition(chr(10))[0]}). Run once where there is a network and copy the cache folder "
                "(HF_HOME, by default ~/.cache/huggingface), or add 'MODEL.TIMM.PRETRAINED False'"
            ) from error
        wanted = self.model.state_dict()  # without the counters of batches, where batch norms are frozen
        self.model.load_state_dict(
            {key: value for key, value in source.state_dict().items() if key in wanted}
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features (N, C, H / stride, W / stride) by name, of normalized images (N, C, H, W)."""
        features = self.model(images)
        features = [features[index] for index in self._indices]
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return dict(zip(self._out_features, features))


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """``MODEL.TIMM`` under ``MODEL.FPN``, giving p2 to p6 at strides 4 to 64."""
    timm = cfg.MODEL.TIMM
    bottom_up = TimmBackbone(timm.NAME, timm.PRETRAINED, timm.FREEZE_BN, input_shape.channels)
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
