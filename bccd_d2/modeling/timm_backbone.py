"""Models of timm under a feature pyramid (Lin et al. 2017), or a simple one (Li et al. 2022) for plain transformers."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from bccd_d2.errors import InputError
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.modeling.simple_feature_pyramid import SimpleFeaturePyramid
from bccd_d2.modeling.slim_resnet import build_fpn

# timm itself is imported where it is used: that takes two seconds.
_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # Detectron2's names of the stages
_TOKENS = "tokens"  # name of a transformer's one feature map


class TimmBackbone(Backbone):
    """The features of a timm model, with or without the tag of its weights, at strides 4, 8, 16 and 32.

    Raises InputError where timm does not know the name, or the model gives no such features or takes one image size
    only.
    """

    def __init__(self, name: str, pretrained: bool, in_channels: int = 3) -> None:
        super().__init__()
        import timm

        _check_name(name)
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
                f"MODEL.TIMM.NAME: {name} has features at strides {strides}, expected 4, 8, 16 and 32"
            )
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            self._create = partial(self._create, strict_img_size=False)  # those that can then take any size
            try:
                self.model = self._create()
            except TypeError as error:
                raise InputError(f"MODEL.TIMM.NAME: {name} takes one image size only ({error})") from error
        # The last one of each stride has seen most of the network.
        self._indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in _STRIDES.values()]
        self._channels_last = str(getattr(self.model, "output_fmt", "")).endswith("NHWC")
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = {stage: channels[index] for stage, index in zip(_STRIDES, self._indices)}

    def initialize_from_pretrained(self) -> None:
        """Load timm's weights, from its cache or the network, if ``pretrained``; InputError without them."""
        if self.pretrained:
            self.model.load_state_dict(_pretrained_state(self.name, self._create))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features (N, C, H / stride, W / stride) by name, of normalized images (N, C, H, W)."""
        features = self.model(images)
        features = [features[index] for index in self._indices]
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return dict(zip(self._out_features, features))


class TimmViT(Backbone):
    """A plain vision transformer of timm; its last tokens, normalized, as one feature map.

    Every token attends to every other in every block: at 512 px these are 1,024 tokens, and attention is a seventh of
    the work of ViT-L, so windows would save little. The position embedding is interpolated to the image. The backward
    pass computes the blocks again, which takes less memory and a third more time.

    ``checkpoint_path`` is a file to start from instead of timm's weights, in any format that timm reads for its
    transformers; position and patch embeddings of other sizes are resampled. ``options`` are arguments of timm's
    constructor; ``mlp_layer`` is a name in ``timm.layers``. Raises InputError where timm does not know the name, it is
    no plain vision transformer, or the options do not fit it.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool,
        checkpoint_path: str = "",
        options: Sequence[tuple[str, Any]] = (),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        import timm
        import timm.layers
        from timm.models.vision_transformer import VisionTransformer

        _check_name(name)
        self.name, self.pretrained, self.checkpoint_path = name, pretrained, checkpoint_path
        arguments = dict(options)
        try:
            if "mlp_layer" in arguments:
                arguments["mlp_layer"] = getattr(timm.layers, arguments["mlp_layer"])
            self._create = partial(
                timm.create_model,
                name,
                num_classes=0,
                dynamic_img_size=True,
                in_chans=in_channels,
                **arguments,
            )
            model = self._create()
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError) as error:
            raise InputError(f"MODEL.TIMM: {name} with {arguments} cannot be built ({error})") from error
        if not isinstance(model, VisionTransformer):
            raise InputError(
                f"MODEL.TIMM.NAME: expected a plain vision transformer, {name} is a {type(model).__name__}"
            )
        self.model = model
        self.model.set_grad_checkpointing()
        self._patch_size = model.patch_embed.patch_size[0]
        self._out_features = [_TOKENS]
        self._out_feature_strides = {_TOKENS: self._patch_size}
        self._out_feature_channels = {_TOKENS: model.embed_dim}

    def initialize_from_pretrained(self) -> None:
        """Load ``checkpoint_path``, or timm's weights; InputError where they cannot be had, or do not fit."""
        if not self.checkpoint_path:
            if self.pretrained:
                self.model.load_state_dict(_pretrained_state(self.name, self._create))
            return
        from timm.models.vision_transformer import checkpoint_filter_fn

        path = Path(self.checkpoint_path)
        if not path.is_file():
            raise InputError(
                f"MODEL.TIMM.CHECKPOINT_PATH: {path} is not there; UNI's weights are at 'MahmoodLab/UNI' on the "
                "Hugging Face hub, for those who accept their licence"
            )
        try:
            state = checkpoint_filter_fn(read_checkpoint(path)["model"], self.model)
            missing, unexpected = self.model.load_state_dict(state, strict=False)
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:  # shapes, or another format
            first = " ".join(line.strip() for line in str(error).splitlines()[:2])  # of a line per tensor
            raise InputError(f"MODEL.TIMM.CHECKPOINT_PATH: {path} does not fit ({first})") from error
        if missing:
            raise InputError(
                f"MODEL.TIMM.CHECKPOINT_PATH: {path} lacks {len(missing)} tensors, such as {missing[0]}"
            )
        if unexpected:
            logging.getLogger(__name__).warning(
                f"{path}: {len(unexpected)} tensors are not used, such as {unexpected[0]}"
            )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Last tokens as a map (N, C, H / patch, W / patch), of normalized images; sides are multiples of the patch."""
        height, width = (side // self._patch_size for side in images.shape[-2:])
        tokens = self.model.forward_features(images)[:, self.model.num_prefix_tokens :]
        return {_TOKENS: tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()}

    def rate_factors(self, decay: float) -> dict[torch.nn.Parameter, float]:
        """By parameter, ``decay`` to the power of the number of blocks from it to the output, its own included."""
        from timm.models import group_parameters

        layers = group_parameters(self.model, self.model.group_matcher(), reverse=True)
        last = max(layers.values())
        return {p: decay ** (last + 1 - layers[name]) for name, p in self.model.named_parameters()}


def decay_layer_rates(
    groups: Iterable[dict[str, Any]], model: torch.nn.Module, decay: float
) -> list[dict[str, Any]]:
    """Groups of an optimizer, one per rate, with the rates of vision transformers lowered layer by layer.

    See :meth:`TimmViT.rate_factors`; ``decay`` 1 leaves the rates.
    """
    factors: dict[torch.nn.Parameter, float] = {}
    for module in model.modules():
        if isinstance(module, TimmViT):
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


def _check_name(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise InputError(
            f"MODEL.TIMM.NAME: timm {timm.__version__} knows no model {name!r}; near it are "
            f"{', '.join(near) or 'none'}, and timm.list_models() has all"
        )


def _pretrained_state(name: str, create: partial[torch.nn.Module]) -> dict[str, torch.Tensor]:
    """State dict of the model with timm's weights, from its cache or the network."""
    try:
        return create(pretrained=True).state_dict()
    except Exception as error:  # each of the network's layers raises kinds of its own
        raise InputError(
            f"MODEL.TIMM.PRETRAINED: the weights of {name} cannot be downloaded "
            f"({str(error).partition(chr(10))[0]}). Run once where there is a network and copy the cache folder "
            "(HF_HOME, by default ~/.cache/huggingface), or add 'MODEL.TIMM.PRETRAINED False'"
        ) from error


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """``MODEL.TIMM`` under ``MODEL.FPN``."""
    timm = cfg.MODEL.TIMM
    return build_fpn(cfg, TimmBackbone(timm.NAME, timm.PRETRAINED, input_shape.channels))


@BACKBONE_REGISTRY.register()
def build_timm_sfp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SimpleFeaturePyramid:
    """A vision transformer of ``MODEL.TIMM`` under a simple feature pyramid with channels and norm of ``MODEL.FPN``."""
    timm = cfg.MODEL.TIMM
    bottom_up = TimmViT(timm.NAME, timm.PRETRAINED, timm.CHECKPOINT_PATH, timm.OPTIONS, input_shape.channels)
    return SimpleFeaturePyramid(bottom_up, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM)
