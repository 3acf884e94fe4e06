"""The keys of losses, heads and suppression: what each means, what they mean together, and numbers given by class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN  # noqa: N817  Detectron2's own habit

from bccd_d2.errors import InputError

BACKGROUND = "background"
MASK_LOSSES = ("bce", "dice", "bce_dice", "boundary_bce")
NMS_KINDS = ("hard", "soft_linear", "soft_gaussian")
MASK_METRICS = ("iou", "containment")
_CHOICES = {
    "MODEL.RPN.OBJECTNESS_LOSS": ("bce", "focal"),
    "MODEL.ROI_BOX_HEAD.CLS_LOSS": ("cross_entropy", "focal"),
    "MODEL.ROI_MASK_HEAD.LOSS": MASK_LOSSES,
    "MODEL.ROI_HEADS.NMS_KIND": NMS_KINDS,
    "MODEL.ROI_HEADS.MASK_NMS.METRIC": MASK_METRICS,
}
_SHARES = (
    "MODEL.IGNORE_THRESH",
    "MODEL.RPN.FOCAL_ALPHA",
    "MODEL.ROI_BOX_HEAD.FOCAL_ALPHA",
    "MODEL.ROI_HEADS.MASK_NMS.THRESH",
)
_NOT_NEGATIVE = (
    *(f"MODEL.LOSS_WEIGHTS.{name}" for name in ("RPN_CLS", "RPN_LOC", "CLS", "BOX_REG", "MASK")),
    "MODEL.RPN.FOCAL_GAMMA",
    "MODEL.ROI_BOX_HEAD.FOCAL_GAMMA",
    "MODEL.ROI_MASK_HEAD.BOUNDARY_WEIGHT",
)
# By the key that chooses a class, those of ours, and the keys that only they read.
_OURS = {
    "MODEL.PROPOSAL_GENERATOR.NAME": ("CellRPN",),
    "MODEL.ROI_HEADS.NAME": ("CellROIHeads", "CellCascadeROIHeads"),
    "MODEL.ROI_MASK_HEAD.NAME": ("CellMaskHead",),
    "MODEL.META_ARCHITECTURE": ("CellRCNN",),
}
_READ_BY = {
    "MODEL.PROPOSAL_GENERATOR.NAME": (
        *("MODEL.LOSS_WEIGHTS.RPN_CLS", "MODEL.LOSS_WEIGHTS.RPN_LOC", "MODEL.RPN.OBJECTNESS_LOSS"),
    ),
    "MODEL.ROI_HEADS.NAME": (
        *("MODEL.LOSS_WEIGHTS.CLS", "MODEL.LOSS_WEIGHTS.BOX_REG"),
        *("MODEL.ROI_BOX_HEAD.CLS_LOSS", "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS"),
        *("MODEL.ROI_HEADS.NMS_KIND", "MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC"),
        *("MODEL.ROI_HEADS.MASK_NMS.ENABLED", "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS"),
    ),
    "MODEL.ROI_MASK_HEAD.NAME": ("MODEL.LOSS_WEIGHTS.MASK", "MODEL.ROI_MASK_HEAD.LOSS"),
    "MODEL.META_ARCHITECTURE": ("MODEL.IGNORE_THRESH",),
}
# Keys that are read only where another one has this value.
_NEEDS = {
    "MODEL.RPN.FOCAL_ALPHA": ("MODEL.RPN.OBJECTNESS_LOSS", "focal"),
    "MODEL.RPN.FOCAL_GAMMA": ("MODEL.RPN.OBJECTNESS_LOSS", "focal"),
    "MODEL.ROI_BOX_HEAD.FOCAL_ALPHA": ("MODEL.ROI_BOX_HEAD.CLS_LOSS", "focal"),
    "MODEL.ROI_BOX_HEAD.FOCAL_GAMMA": ("MODEL.ROI_BOX_HEAD.CLS_LOSS", "focal"),
    "MODEL.ROI_MASK_HEAD.BOUNDARY_WEIGHT": ("MODEL.ROI_MASK_HEAD.LOSS", "boundary_bce"),
    "MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH": ("MODEL.ROI_MASK_HEAD.LOSS", "boundary_bce"),
    "MODEL.ROI_HEADS.NMS_SIGMA": ("MODEL.ROI_HEADS.NMS_KIND", "soft_gaussian"),
    "MODEL.ROI_HEADS.MASK_NMS.METRIC": ("MODEL.ROI_HEADS.MASK_NMS.ENABLED", True),
    "MODEL.ROI_HEADS.MASK_NMS.THRESH": ("MODEL.ROI_HEADS.MASK_NMS.ENABLED", True),
    "MODEL.ROI_HEADS.MASK_NMS.CLASS_AGNOSTIC": ("MODEL.ROI_HEADS.MASK_NMS.ENABLED", True),
}
# Detectron2's weights of losses, what takes their place, and by which class.
_REPLACED = {
    "MODEL.RPN.LOSS_WEIGHT": ("MODEL.LOSS_WEIGHTS.RPN_CLS and RPN_LOC", "MODEL.PROPOSAL_GENERATOR.NAME"),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": ("MODEL.LOSS_WEIGHTS.RPN_LOC", "MODEL.PROPOSAL_GENERATOR.NAME"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": ("MODEL.LOSS_WEIGHTS.BOX_REG", "MODEL.ROI_HEADS.NAME"),
}


def add_head_keys(cfg: CfgNode) -> None:
    """Add the keys of losses, heads and suppression, in place; part of :func:`bccd_d2.config.add_bccd_config`."""
    # Factors of the five losses, whose sum is trained on. They stand for Detectron2's MODEL.RPN.LOSS_WEIGHT and
    # *.BBOX_REG_LOSS_WEIGHT.
    cfg.MODEL.LOSS_WEIGHTS = CN()
    # Objectness of anchors.
    cfg.MODEL.LOSS_WEIGHTS.RPN_CLS = 1.0
    # Boxes of anchors.
    cfg.MODEL.LOSS_WEIGHTS.RPN_LOC = 1.0
    # Classes of proposals; of a cascade, in each stage.
    cfg.MODEL.LOSS_WEIGHTS.CLS = 1.0
    # Boxes of proposals; of a cascade, in each stage.
    cfg.MODEL.LOSS_WEIGHTS.BOX_REG = 1.0
    # Masks.
    cfg.MODEL.LOSS_WEIGHTS.MASK = 1.0

    # Anchors and proposals of which more than this share lies in regions to ignore (iscrowd) are neither cell nor
    # background; 1 takes the regions for background.
    cfg.MODEL.IGNORE_THRESH = 0.5

    # "bce" of a sample of anchors, or "focal" (Lin et al. 2017) of all anchors.
    cfg.MODEL.RPN.OBJECTNESS_LOSS = "bce"
    # Weight of the positive anchors in focal loss, that of the others being 1 - alpha.
    cfg.MODEL.RPN.FOCAL_ALPHA = 0.25
    # Exponent of focal loss; 0 leaves cross entropy.
    cfg.MODEL.RPN.FOCAL_GAMMA = 2.0
    # "cross_entropy" or "focal".
    cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS = "cross_entropy"
    # Weight of the classes in focal loss, that of the background being 1 - alpha.
    cfg.MODEL.ROI_BOX_HEAD.FOCAL_ALPHA = 0.5
    # Exponent of focal loss; 0 leaves cross entropy.
    cfg.MODEL.ROI_BOX_HEAD.FOCAL_GAMMA = 2.0
    # Weight of each class in the box classifier's loss: [] for all alike, a number a class and one for the background,
    # or [name, number] pairs, where who is not named (a class or "background") has 1.
    cfg.MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS = []
    # "bce", "dice", "bce_dice" (their sum) or "boundary_bce", see bccd_d2/modeling/mask_losses.py.
    cfg.MODEL.ROI_MASK_HEAD.LOSS = "bce"
    # "boundary_bce" weighs a pixel by 1 + this times the distance of the target from its mean around the pixel.
    cfg.MODEL.ROI_MASK_HEAD.BOUNDARY_WEIGHT = 5.0
    # Side of the square that this mean is taken over, odd, in pixels of the mask head (28 to a box).
    cfg.MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH = 5

    # How boxes suppress worse ones: "hard" (removed above MODEL.ROI_HEADS.NMS_THRESH_TEST), "soft_linear" or
    # "soft_gaussian" (scores lowered, Bodla et al. 2017).
    cfg.MODEL.ROI_HEADS.NMS_KIND = "hard"
    # Of "soft_gaussian": scores are multiplied by exp(-IoU^2 / sigma).
    cfg.MODEL.ROI_HEADS.NMS_SIGMA = 0.5
    # Boxes of different classes suppress each other too.
    cfg.MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC = False
    # The model outputs no detection of a class below this score: a number a class, or [name, number] pairs; [] and who
    # is not named: MODEL.ROI_HEADS.SCORE_THRESH_TEST. tools/tune_thresholds.py finds them.
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS = []
    # After the mask head, remove cells whose mask overlaps that of a better one.
    cfg.MODEL.ROI_HEADS.MASK_NMS = CN()
    cfg.MODEL.ROI_HEADS.MASK_NMS.ENABLED = False
    # "iou", or "containment": the intersection over the smaller area.
    cfg.MODEL.ROI_HEADS.MASK_NMS.METRIC = "iou"
    # An overlap above this removes the worse of two.
    cfg.MODEL.ROI_HEADS.MASK_NMS.THRESH = 0.5
    # Masks of different classes suppress each other too.
    cfg.MODEL.ROI_HEADS.MASK_NMS.CLASS_AGNOSTIC = False


def check_heads(cfg: CfgNode, stock: CfgNode) -> None:
    """Refuse values that contradict each other or that nothing would read.

    Args:
        cfg: to check.
        stock: the same keys with their defaults.

    Raises:
        InputError: names the key, what was found and what was expected.
    """
    _check_values(cfg)
    ours = {key: _get(cfg, key) in names for key, names in _OURS.items()}
    if ours["MODEL.META_ARCHITECTURE"]:
        for key in ("MODEL.PROPOSAL_GENERATOR.NAME", "MODEL.ROI_HEADS.NAME"):
            if not ours[key]:
                raise InputError(
                    f"{key}: expected {' or '.join(_OURS[key])}, because MODEL.META_ARCHITECTURE is 'CellRCNN', whose "
                    f"regions to ignore others take for cells; found {_get(cfg, key)!r}"
                )
    changed = {key for key in _all_keys() if _get(cfg, key) != _get(stock, key)}
    for chooser, keys in _READ_BY.items():
        for key in changed.intersection(keys) if not ours[chooser] else ():
            raise _no_effect(cfg, key, f"expected {chooser} {' or '.join(_OURS[chooser])}")
    for key, (other, value) in _NEEDS.items():
        if key in changed and _get(cfg, other) != value:
            raise _no_effect(cfg, key, f"expected {other} {value!r}")
    for key, (successor, chooser) in _REPLACED.items():
        if key in changed and ours[chooser]:
            raise _no_effect(cfg, key, f"{successor} take its place")
    heads = cfg.MODEL.ROI_HEADS
    if heads.NMS_KIND == "soft_gaussian" and "MODEL.ROI_HEADS.NMS_THRESH_TEST" in changed:
        raise _no_effect(cfg, "MODEL.ROI_HEADS.NMS_THRESH_TEST", "NMS_KIND is 'soft_gaussian'")
    if cfg.MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS and "MODEL.ROI_BOX_HEAD.FOCAL_ALPHA" in changed:
        raise InputError(
            "MODEL.ROI_BOX_HEAD: CLASS_WEIGHTS and FOCAL_ALPHA both weigh classes against the background; expected one"
        )
    if (
        cfg.DATASETS.CLASS_NAMES
    ):  # else they are read from the data, and this is checked when the model is built
        class_weights(cfg)
        score_thresholds(cfg)


def class_weights(cfg: CfgNode) -> list[float] | None:
    """Weight of each class in the box classifier's loss, the background last; ``None`` for all alike.

    Raises:
        InputError: ``MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS`` does not fit the classes.
    """
    head = cfg.MODEL.ROI_BOX_HEAD
    if not head.CLASS_WEIGHTS:
        if head.CLS_LOSS != "focal" or head.FOCAL_ALPHA == 0.5:
            return None
        return [head.FOCAL_ALPHA] * cfg.MODEL.ROI_HEADS.NUM_CLASSES + [1 - head.FOCAL_ALPHA]
    key = "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS"
    weights = values_by_class(cfg, key, 1.0, extra=(BACKGROUND,))
    if min(weights) < 0 or max(weights) == 0:
        raise InputError(f"{key}: expected numbers from 0 on, not all 0, found {head.CLASS_WEIGHTS}")
    return weights


def score_thresholds(cfg: CfgNode) -> list[float]:
    """Score of each class that a detection must be above.

    Raises:
        InputError: ``MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS`` does not fit the classes.
    """
    heads, key = cfg.MODEL.ROI_HEADS, "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS"
    if not heads.SCORE_THRESH_PER_CLASS:
        return [heads.SCORE_THRESH_TEST] * heads.NUM_CLASSES
    thresholds = values_by_class(cfg, key, heads.SCORE_THRESH_TEST)
    if min(thresholds) < heads.SCORE_THRESH_TEST or max(thresholds) >= 1:
        raise InputError(
            f"{key}: expected numbers from MODEL.ROI_HEADS.SCORE_THRESH_TEST ({heads.SCORE_THRESH_TEST}) to below 1, "
            f"found {heads.SCORE_THRESH_PER_CLASS}"
        )
    return thresholds


def values_by_class(cfg: CfgNode, key: str, default: float, extra: Sequence[str] = ()) -> list[float]:
    """Numbers of a key that are given in the order of the classes or as [name, number] pairs.

    Args:
        cfg: with ``MODEL.ROI_HEADS.NUM_CLASSES``, for pairs also ``DATASETS.CLASS_NAMES``.
        key: where they stand.
        default: of those whom no pair names.
        extra: names of what follows the classes.

    Raises:
        InputError: there are too few or too many, or a name is unknown.
    """
    values, names = list(_get(cfg, key)), [*cfg.DATASETS.CLASS_NAMES, *extra]
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES + len(extra)
    if all(_is_number(value) for value in values):
        if len(values) != number:
            order = " and ".join(("one a class", *extra))
            raise InputError(f"{key}: expected {number} numbers ({order}), found {values}")
        return [float(value) for value in values]
    if not all(isinstance(v, list | tuple) and len(v) == 2 and _is_number(v[1]) for v in values):
        raise InputError(f"{key}: expected {number} numbers or [name, number] pairs, found {values}")
    given = {str(name): float(value) for name, value in values}
    if len(given) != len(values) or not set(given) <= set(names):
        raise InputError(f"{key}: expected each of {', '.join(names)} at most once, found {values}")
    return [given.get(name, default) for name in names]


def _check_values(cfg: CfgNode) -> None:
    for key, choices in _CHOICES.items():
        if _get(cfg, key) not in choices:
            raise InputError(f"{key}: expected one of {', '.join(choices)}, found {_get(cfg, key)!r}")
    for key in _SHARES:
        if not 0 <= _get(cfg, key) <= 1:
            raise InputError(f"{key}: expected a number in [0, 1], found {_get(cfg, key)}")
    for key in _NOT_NEGATIVE:
        if _get(cfg, key) < 0:
            raise InputError(f"{key}: expected a number from 0 on, found {_get(cfg, key)}")
    if cfg.MODEL.ROI_HEADS.NMS_SIGMA <= 0:
        raise InputError(
            f"MODEL.ROI_HEADS.NMS_SIGMA: expected a number above 0, found {cfg.MODEL.ROI_HEADS.NMS_SIGMA}"
        )
    width = cfg.MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH
    if width < 3 or width % 2 == 0:
        raise InputError(
            f"MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH: expected an odd number of mask pixels from 3 on, found {width}"
        )


def _all_keys() -> set[str]:
    read = {key for keys in _READ_BY.values() for key in keys}
    return {*read, *_NEEDS, *_REPLACED, "MODEL.ROI_HEADS.NMS_THRESH_TEST"}


def _get(cfg: CfgNode, key: str) -> Any:
    return reduce(getattr, key.split("."), cfg)


def _no_effect(cfg: CfgNode, key: str, reason: str) -> InputError:
    return InputError(f"{key} is {_get(cfg, key)!r}, but has no effect: {reason}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
