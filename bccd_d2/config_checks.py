"""What a configuration must not say: values that contradict each other, or that nothing would read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode

from bccd_d2.config_heads import check_heads
from bccd_d2.errors import InputError

_UNUSED_INPUT_KEYS = (
    "MIN_SIZE_TRAIN",
    "MIN_SIZE_TRAIN_SAMPLING",
    "MAX_SIZE_TRAIN",
    "MIN_SIZE_TEST",
    "MAX_SIZE_TEST",
)
# Keys of ours that only one backbone reads.
_BACKBONE_SECTIONS = {
    "TIMM": ("build_timm_fpn_backbone", "build_timm_sfp_backbone"),
    "SLIM_RESNET": ("build_slim_resnet_fpn_backbone",),
}
# Keys of MODEL.TIMM that only vision transformers read.
_VIT_KEYS = ("CHECKPOINT_PATH", "OPTIONS", "LR_DECAY")
CPU_MODES = ("auto", "plain", "channels_last", "bfloat16")


def check_kinds(cfg: CfgNode, defaults: CfgNode, prefix: str = "") -> None:
    """Refuse values of another kind than the default's where Detectron2 does not: nothing, NaN, words among numbers.

    Args:
        cfg: the configuration to check.
        defaults: one with every key at its default.
        prefix: of the keys, in messages.

    Raises:
        InputError: names the key, what was found and what was expected.
    """
    for key, default in defaults.items():
        name, value = f"{prefix}{key}", cfg[key]
        if isinstance(default, CfgNode) and isinstance(value, CfgNode):
            check_kinds(value, default, f"{name}.")
            continue
        if default is None:
            continue
        if value is None or isinstance(default, CfgNode):
            raise InputError(f"{name}: expected a value such as {default!r}, found {value!r}")
        found, expected = list(_leaves(value)), {_kind(leaf) for leaf in _leaves(default)}
        if expected and not {_kind(leaf) for leaf in found} <= expected:
            raise InputError(f"{name}: expected values such as {default!r}, found {value!r}")
        if any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in found):
            raise InputError(f"{name}: expected finite numbers, found {value!r}")


def _leaves(value: Any) -> Iterator[Any]:
    """What is in lists of lists."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) else type(value)


def check_config(cfg: CfgNode, defaults: CfgNode) -> None:
    """Refuse values that contradict each other or that nothing would read.

    Args:
        cfg: the configuration to check.
        defaults: one with every key at its default.

    Raises:
        InputError: names the key, what was found and what was expected.
    """
    for key in _UNUSED_INPUT_KEYS:
        if cfg.INPUT[key] != defaults.INPUT[key]:
            raise InputError(f"INPUT.{key} has no effect here: images are resized by INPUT.SCALE")
    if cfg.INPUT.SCALE <= 0:
        raise InputError(f"INPUT.SCALE: expected a number above 0, found {cfg.INPUT.SCALE}")
    if cfg.INPUT.MASK_FORMAT != "bitmask":
        raise InputError(f"INPUT.MASK_FORMAT: expected 'bitmask', found {cfg.INPUT.MASK_FORMAT!r}")
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE != "absolute":
        raise InputError(f"INPUT.CROP.TYPE: expected 'absolute', found {cfg.INPUT.CROP.TYPE!r}")
    _check_prediction(cfg)
    if cfg.MODEL.RPN.POST_NMS_TOPK_TEST < cfg.TEST.DETECTIONS_PER_IMAGE:
        raise InputError(
            f"MODEL.RPN.POST_NMS_TOPK_TEST is {cfg.MODEL.RPN.POST_NMS_TOPK_TEST}, below TEST.DETECTIONS_PER_IMAGE "
            f"({cfg.TEST.DETECTIONS_PER_IMAGE}): the model could never output that many detections"
        )
    _check_training(cfg)
    _check_backbone(cfg, defaults)
    _check_anchors(cfg)
    check_heads(cfg, defaults)


def _check_prediction(cfg: CfgNode) -> None:
    for key in ("CELL_DIAMETER", "MICRONS_PER_PIXEL"):
        if cfg.INPUT[key] < 0:
            raise InputError(f"INPUT.{key}: expected 0 (not known) or more, found {cfg.INPUT[key]}")
    if cfg.TEST.AUG.ENABLED:
        raise InputError("TEST.AUG.ENABLED has no effect here: use TEST.TTA.ENABLED, which merges masks")
    if not cfg.TEST.TTA.SCALES or min(cfg.TEST.TTA.SCALES) <= 0:
        raise InputError(
            f"TEST.TTA.SCALES: expected one or more numbers above 0, found {list(cfg.TEST.TTA.SCALES)}"
        )
    if cfg.MODEL.CPU_MODE not in CPU_MODES:
        raise InputError(
            f"MODEL.CPU_MODE: expected one of {', '.join(CPU_MODES)}, found {cfg.MODEL.CPU_MODE!r}"
        )


def _check_training(cfg: CfgNode) -> None:
    """Refuse what the trainer could not follow."""
    solver, test = cfg.SOLVER, cfg.TEST
    for key, value, least in (
        ("SOLVER.MAX_EPOCHS", solver.MAX_EPOCHS, 0),
        ("SOLVER.CHECKPOINT_EPOCHS", solver.CHECKPOINT_EPOCHS, 0),
        ("TEST.EVAL_EPOCHS", test.EVAL_EPOCHS, 0),
        ("SOLVER.ACCUMULATE", solver.ACCUMULATE, 1),
        ("SOLVER.CHECKPOINT_PERIOD", solver.CHECKPOINT_PERIOD, 1),
        ("SOLVER.CHECKPOINTS_KEPT", solver.CHECKPOINTS_KEPT, 1),
        ("TEST.EVAL_PERIOD", test.EVAL_PERIOD, 0),
        ("TEST.VALIDATION_LOSS_PERIOD", test.VALIDATION_LOSS_PERIOD, 0),
        ("TEST.VALIDATION_LOSS_CROPS", test.VALIDATION_LOSS_CROPS, 1),
        ("TEST.PATIENCE", test.PATIENCE, 0),
    ):
        if value < least:
            raise InputError(f"{key}: expected a number from {least} on, found {value}")
    for key, found, known in (
        ("SOLVER.OPTIMIZER", solver.OPTIMIZER, ("AdamW", "SGD")),
        ("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, ("WarmupMultiStepLR", "WarmupCosineLR")),
        ("SOLVER.AMP.DTYPE", solver.AMP.DTYPE, ("auto", "float16", "bfloat16")),
    ):
        if found not in known:
            raise InputError(f"{key}: expected one of {', '.join(known)}, found {found!r}")
    if not 0 < cfg.MODEL_EMA.DECAY < 1:
        raise InputError(f"MODEL_EMA.DECAY: expected a share in (0, 1), found {cfg.MODEL_EMA.DECAY}")
    if test.PATIENCE and not (test.EVAL_PERIOD or test.EVAL_EPOCHS):
        raise InputError(
            f"TEST.PATIENCE is {test.PATIENCE}, but TEST.EVAL_PERIOD is 0: nothing is evaluated that it could count"
        )


def _check_backbone(cfg: CfgNode, defaults: CfgNode) -> None:
    stock, name = defaults.MODEL, cfg.MODEL.BACKBONE.NAME
    for section, backbones in _BACKBONE_SECTIONS.items():
        if name not in backbones and cfg.MODEL[section] != stock[section]:
            raise InputError(
                f"MODEL.{section} has no effect with MODEL.BACKBONE.NAME {name!r}: expected {' or '.join(backbones)}"
            )
    for key in _VIT_KEYS if name != "build_timm_sfp_backbone" else ():
        if cfg.MODEL.TIMM[key] != stock.TIMM[key]:
            raise InputError(
                f"MODEL.TIMM.{key} has no effect with MODEL.BACKBONE.NAME {name!r}: expected build_timm_sfp_backbone"
            )
    options = cfg.MODEL.TIMM.OPTIONS
    if not all(
        isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[0], str) for one in options
    ):
        raise InputError(f"MODEL.TIMM.OPTIONS: expected [name, value] pairs, found {options}")
    if (
        any(name in backbones for backbones in _BACKBONE_SECTIONS.values())
        and cfg.MODEL.BACKBONE.FREEZE_AT != 0
    ):
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_AT has no effect with MODEL.BACKBONE.NAME {name!r}: expected 0, "
            f"found {cfg.MODEL.BACKBONE.FREEZE_AT}"
        )


def _check_anchors(cfg: CfgNode) -> None:
    """As many lists of sizes and ratios as there are levels, or one for all, and as many anchors on each level."""
    levels = len(cfg.MODEL.RPN.IN_FEATURES)
    counts = []
    for key in ("SIZES", "ASPECT_RATIOS"):
        lists = cfg.MODEL.ANCHOR_GENERATOR[key]
        if len(lists) not in (1, levels) or not all(isinstance(one, list | tuple) and one for one in lists):
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key}: expected one list of numbers, or one a level of MODEL.RPN.IN_FEATURES "
                f"({levels}), found {lists}"
            )
        counts.append([len(one) for one in lists] * (levels // len(lists)))
    anchors = [sizes * ratios for sizes, ratios in zip(*counts)]
    if len(set(anchors)) > 1:
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR: expected as many anchors on every level, which share one head, found {anchors} "
            "(sizes times aspect ratios)"
        )
