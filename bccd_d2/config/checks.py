"""Configurations that are refused: values of the wrong kind, contradictions, and keys that have no effect."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from typing import Any

from detectron2.config import CfgNode

from bccd_d2.errors import InputError

BACKGROUND = "background"

_CHOICES = {
    "INPUT.FORMAT": ("BGR", "RGB"),
    "INPUT.MASK_FORMAT": ("bitmask",),
    "INPUT.CROP.TYPE": ("absolute",),
    "INPUT.RANDOM_FLIP": ("both", "horizontal", "vertical", "none"),
    "INPUT.AUGMENTATION.PRESET": ("none", "mild", "strong"),
    "DATALOADER.ASPECT_RATIO_GROUPING": (False,),
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "RepeatFactorTrainingSampler"),
    "MODEL.ROI_HEADS.MASK_NMS.METRIC": ("iou", "containment"),
    "SOLVER.OPTIMIZER": ("AdamW", "SGD"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.AMP.DTYPE": ("auto", "float16", "bfloat16"),
}
# Smallest and largest value, or that of each number in a list.
_RANGES = {
    "INPUT.SCALE": (0.01, math.inf),
    "INPUT.CELL_DIAMETER": (0, math.inf),
    "INPUT.MICRONS_PER_PIXEL": (0, math.inf),
    "INPUT.CELL_DENSITY": (0.01, 3),
    "INPUT.STAIN.TARGET_STD": (0.1, math.inf),
    # A larger shift pushes dark nuclei (L about 20) against black, where their texture is lost.
    "INPUT.STAIN.JITTER_MEAN": (0, 15),
    # One affine map per channel moves all cells of an image, so classes keep their order, and their distances shrink by
    # no more than the smallest factor. In normalized images of the BCCD detection set 15 to 43 units lie between nuclei
    # of white cells and red cells; the strongest jitter left at least half of that.
    "INPUT.STAIN.JITTER_STD": (0, 0.5),
    "INPUT.AUGMENTATION.ZOOM": (0.1, 10),
    "INPUT.AUGMENTATION.CELL_DIAMETERS": (1, math.inf),
    "MODEL.ROI_HEADS.MASK_NMS.THRESH": (0, 1),
    "MODEL_EMA.DECAY": (0, 0.999999),
    "SOLVER.MAX_ITER": (1, math.inf),
    "SOLVER.IMS_PER_BATCH": (1, math.inf),
    "SOLVER.ACCUMULATE": (1, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (1, math.inf),
    "TEST.EVAL_PERIOD": (0, math.inf),
    "TEST.VALIDATION_LOSS_PERIOD": (0, math.inf),
    "TEST.PATIENCE": (0, math.inf),
    "TEST.TTA.SCALES": (0.01, math.inf),
}
# How many numbers a list has.
_LENGTHS = {
    "INPUT.CELL_DENSITY": (0, 3),
    "INPUT.STAIN.TARGET_MEAN": (3,),
    "INPUT.STAIN.TARGET_STD": (3,),
    "INPUT.STAIN.JITTER_MEAN": (3,),
    "INPUT.AUGMENTATION.ZOOM": (0, 2),
    "INPUT.AUGMENTATION.CELL_DIAMETERS": (0, 2),
    "INPUT.CROP.SIZE": (2,),
}
_RISING = ("INPUT.AUGMENTATION.ZOOM", "INPUT.AUGMENTATION.CELL_DIAMETERS")
_OUR_HEADS = ("CellROIHeads", "CellCascadeROIHeads")
_HEADS = ("MODEL.ROI_HEADS.NAME", _OUR_HEADS)
_TRANSFORMER = ("MODEL.BACKBONE.NAME", ("build_timm_sfp_backbone",))
_OWN_BACKBONES = {
    "MODEL.TIMM": ("build_timm_fpn_backbone", "build_timm_sfp_backbone"),
    "MODEL.SLIM_RESNET": ("build_slim_resnet_fpn_backbone",),
}
# Keys, or groups of them, and the key with the values that let them have an effect.
_NEEDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    **{group: ("MODEL.BACKBONE.NAME", names) for group, names in _OWN_BACKBONES.items()},
    "MODEL.TIMM.CHECKPOINT_PATH": _TRANSFORMER,
    "MODEL.TIMM.OPTIONS": _TRANSFORMER,
    "MODEL.TIMM.LR_DECAY": _TRANSFORMER,
    "INPUT.CELL_DENSITY": ("INPUT.WHITE_BALANCE", (True,)),
    "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS": _HEADS,
    # A cascade of Detectron2 0.6 suppresses boxes by itself.
    "MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC": ("MODEL.ROI_HEADS.NAME", ("CellROIHeads",)),
    "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS": _HEADS,
    "MODEL.ROI_HEADS.MASK_NMS.METRIC": ("MODEL.ROI_HEADS.MASK_NMS.ENABLED", (True,)),
    "MODEL.ROI_HEADS.MASK_NMS.THRESH": ("MODEL.ROI_HEADS.MASK_NMS.ENABLED", (True,)),
    "MODEL_EMA.DECAY": ("MODEL_EMA.ENABLED", (True,)),
}
# Keys of Detectron2 that never have an effect here, and what does.
_REPLACED = {
    **{
        f"INPUT.{size}_SIZE_{part}": "INPUT.SCALE resizes images"
        for size in ("MIN", "MAX")
        for part in ("TRAIN", "TEST")
    },
    "TEST.AUG.ENABLED": "TEST.TTA.ENABLED merges masks",
}


def check_values(cfg: CfgNode, defaults: CfgNode, prefix: str = "") -> None:
    """Refuse values that Detectron2 accepts in place of numbers: ``None``, NaN, words in lists of numbers."""
    for key, default in defaults.items():
        name, value = f"{prefix}{key}", cfg[key]
        if isinstance(default, CfgNode) and isinstance(value, CfgNode):
            check_values(value, default, f"{name}.")
        elif (value is None and default is not None) or isinstance(default, CfgNode):
            raise InputError(f"{name}: expected a value such as {default!r}, found {value!r}")
        elif default is not None:
            expected = {_kind(leaf) for leaf in _leaves(default)}
            if expected and not {_kind(leaf) for leaf in _leaves(value)} <= expected:
                raise InputError(f"{name}: expected values such as {default!r}, found {value!r}")
            if any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(value)):
                raise InputError(f"{name}: expected finite numbers, found {value!r}")


def check_config(cfg: CfgNode, defaults: CfgNode, written: Collection[str] = ()) -> None:
    """Refuse values that contradict each other, and keys that were written although they have no effect.

    Only keys that the user has ``written`` are checked for an effect, so that a file may be based on another one and
    change, for example, the backbone. Raises InputError that names the key, what was found and what was expected.
    """
    for key, choices in _CHOICES.items():
        if _get(cfg, key) not in choices:
            expected = f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else repr(choices[0])
            raise InputError(f"{key}: expected {expected}, found {_get(cfg, key)!r}")
    for key, (least, most) in _RANGES.items():
        if not all(least <= value <= most for value in _leaves(_get(cfg, key))):
            bounds = f"from {least} on" if most == math.inf else f"from {least} to {most}"
            raise InputError(f"{key}: expected a number {bounds}, found {_get(cfg, key)}")
    for key, lengths in _LENGTHS.items():
        if len(_get(cfg, key)) not in lengths:
            raise InputError(f"{key}: expected {max(lengths)} numbers, found {_get(cfg, key)}")
    if not cfg.TEST.TTA.SCALES:
        raise InputError("TEST.TTA.SCALES: expected one number or more, found []")
    for key in _RISING:
        if list(_get(cfg, key)) != sorted(_get(cfg, key)):
            raise InputError(f"{key}: expected [smallest, largest], found {_get(cfg, key)}")
    crop = cfg.INPUT.CROP
    if crop.ENABLED and not all(isinstance(side, int) and side > 0 for side in crop.SIZE):
        raise InputError(f"INPUT.CROP.SIZE: expected [height, width] in native pixels, found {crop.SIZE}")
    if cfg.TEST.PATIENCE and not cfg.TEST.EVAL_PERIOD:
        raise InputError(f"TEST.PATIENCE is {cfg.TEST.PATIENCE}, but TEST.EVAL_PERIOD is 0: nothing to count")
    if cfg.MODEL.RPN.POST_NMS_TOPK_TEST < cfg.TEST.DETECTIONS_PER_IMAGE:
        raise InputError(
            f"MODEL.RPN.POST_NMS_TOPK_TEST: expected TEST.DETECTIONS_PER_IMAGE or more, found a number below "
            f"TEST.DETECTIONS_PER_IMAGE ({cfg.TEST.DETECTIONS_PER_IMAGE})"
        )
    if cfg.MODEL.META_ARCHITECTURE == "CellRCNN":
        for key, names in (("MODEL.PROPOSAL_GENERATOR.NAME", ("CellRPN",)), _HEADS):
            if _get(cfg, key) not in names:
                raise InputError(
                    f"{key}: expected {' or '.join(names)} with MODEL.META_ARCHITECTURE 'CellRCNN', because others "
                    f"train regions to ignore as cells; found {_get(cfg, key)!r}"
                )
    options = cfg.MODEL.TIMM.OPTIONS
    if not all(isinstance(v, list | tuple) and len(v) == 2 and isinstance(v[0], str) for v in options):
        raise InputError(f"MODEL.TIMM.OPTIONS: expected [name, value] pairs, found {options}")
    _check_anchors(cfg)
    _check_effect(cfg, defaults, written)
    if cfg.DATASETS.CLASS_NAMES:  # else they are read from the data, and building the model checks this
        class_weights(cfg)
        score_thresholds(cfg)


def class_weights(cfg: CfgNode) -> list[float] | None:
    """Weight of each class in the classification loss, background last; ``None`` for equal weights."""
    key = "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS"
    if not _get(cfg, key):
        return None
    weights = values_by_class(cfg, key, 1.0, extra=(BACKGROUND,))
    if min(weights) < 0 or max(weights) == 0:
        raise InputError(f"{key}: expected numbers from 0 on, not all 0, found {_get(cfg, key)}")
    return weights


def score_thresholds(cfg: CfgNode) -> list[float] | None:
    """Minimum score of a detection of each class; ``None`` where ``SCORE_THRESH_TEST`` is that of all."""
    heads, key = cfg.MODEL.ROI_HEADS, "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS"
    if not heads.SCORE_THRESH_PER_CLASS:
        return None
    thresholds = values_by_class(cfg, key, heads.SCORE_THRESH_TEST)
    if min(thresholds) < heads.SCORE_THRESH_TEST or max(thresholds) >= 1:
        raise InputError(
            f"{key}: expected numbers from MODEL.ROI_HEADS.SCORE_THRESH_TEST ({heads.SCORE_THRESH_TEST}) to below 1, "
            f"found {heads.SCORE_THRESH_PER_CLASS}"
        )
    return thresholds


def values_by_class(cfg: CfgNode, key: str, default: float, extra: Sequence[str] = ()) -> list[float]:
    """Numbers of a key, in the order of the classes and then of ``extra`` names, or as [name, number] pairs.

    ``default`` is that of classes that no pair names.
    """
    values, names = list(_get(cfg, key)), [*cfg.DATASETS.CLASS_NAMES, *extra]
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES + len(extra)
    if all(_is_number(value) for value in values):
        if len(values) != number:
            order = " and ".join(("one per class", *extra))
            raise InputError(f"{key}: expected {number} numbers ({order}), found {values}")
        return [float(value) for value in values]
    if not all(isinstance(v, list | tuple) and len(v) == 2 and _is_number(v[1]) for v in values):
        raise InputError(f"{key}: expected {number} numbers or [name, number] pairs, found {values}")
    given = {str(name): float(value) for name, value in values}
    if len(given) != len(values) or not set(given) <= set(names):
        raise InputError(f"{key}: expected each of {', '.join(names)} at most once, found {values}")
    return [given.get(name, default) for name in names]


def _check_effect(cfg: CfgNode, defaults: CfgNode, written: Collection[str]) -> None:
    """Refuse keys that the user wrote, with a value other than the default, and that nothing reads."""
    name = cfg.MODEL.BACKBONE.NAME
    if (
        any(name in names for names in _OWN_BACKBONES.values())
        and "MODEL.BACKBONE.FREEZE_AT" in written
        and cfg.MODEL.BACKBONE.FREEZE_AT
    ):
        raise InputError(f"MODEL.BACKBONE.FREEZE_AT has no effect with MODEL.BACKBONE.NAME {name!r}")
    changed = sorted(key for key in written if _get(cfg, key) != _get(defaults, key))
    for key in changed:
        if key in _REPLACED:
            raise InputError(f"{key} has no effect: {_REPLACED[key]}")
        group = ".".join(key.split(".")[:2])
        other, values = _NEEDS.get(key) or _NEEDS.get(group) or ("", ())
        if other and _get(cfg, other) not in values:
            expected = " or ".join(str(value) for value in values)
            raise InputError(
                f"{key} is {_get(cfg, key)!r}, but has no effect with {other} {_get(cfg, other)!r}: expected {expected}"
            )


def _check_anchors(cfg: CfgNode) -> None:
    """One list of sizes and ratios per level, or one for all, and equally many anchors on each level."""
    levels = len(cfg.MODEL.RPN.IN_FEATURES)
    counts = []
    for key in ("SIZES", "ASPECT_RATIOS"):
        lists = cfg.MODEL.ANCHOR_GENERATOR[key]
        if len(lists) not in (1, levels) or not all(isinstance(one, list | tuple) and one for one in lists):
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key}: expected one list of numbers, or one per level of "
                f"MODEL.RPN.IN_FEATURES ({levels}), found {lists}"
            )
        counts.append([len(one) for one in lists] * (levels // len(lists)))
    anchors = [sizes * ratios for sizes, ratios in zip(*counts)]
    if len(set(anchors)) > 1:
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR: expected equally many anchors on every level, found {anchors}"
        )


def _leaves(value: Any) -> Iterator[Any]:
    """What is in lists of lists."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) else type(value)


def _get(cfg: CfgNode, key: str) -> Any:
    return reduce(getattr, key.split("."), cfg)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
