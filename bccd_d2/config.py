"""Every configuration key that this project adds to Detectron2's, with its meaning and unit."""

from __future__ import annotations

from detectron2.config import CfgNode as CN  # noqa: N817  Detectron2's own habit
from detectron2.config import get_cfg

_UNUSED_INPUT_KEYS = (
    "MIN_SIZE_TRAIN",
    "MIN_SIZE_TRAIN_SAMPLING",
    "MAX_SIZE_TRAIN",
    "MIN_SIZE_TEST",
    "MAX_SIZE_TEST",
)


def add_bccd_config(cfg: CN) -> None:
    """Add this project's keys, with their defaults, to a Detectron2 configuration, in place.

    Args:
        cfg: a configuration as ``detectron2.config.get_cfg()`` returns it.
    """
    # Folder that tools/convert_bccd.py wrote. Empty: "bccd" below $DETECTRON2_DATASETS, or below ./datasets.
    cfg.DATASETS.ROOT = ""

    # Network pixels per native pixel, for training, evaluation and prediction alike. It takes the place of
    # MIN_SIZE_* and MAX_SIZE_*, which shrink a large image more than a small one: a cell's size in pixels is
    # set by the microscope, not by the size of the picture.
    cfg.INPUT.SCALE = 1.0
    # Size of the training crop [height, width] in native pixels is INPUT.CROP.SIZE with TYPE "absolute".
    # An instance that the crop cuts is kept as long as this share of its pixels is left.
    cfg.INPUT.CROP.MIN_VISIBLE = 0.1
    # Beside Detectron2's "horizontal", "vertical" and "none" also "both", each flip with a probability of one
    # half: a smear has no upper side.
    cfg.INPUT.RANDOM_FLIP = "both"
    # Rotate training crops by a random multiple of 90 degrees.
    cfg.INPUT.ROT90 = True
    # Decoded training images that each loader process keeps in memory, in MB (5.5 for one of 1600x1200).
    # Decoding takes two thirds of the time that a crop takes, so this pays where the images, or a worker's
    # share, fit.
    cfg.INPUT.CACHE_MB = 0

    # Reinhard stain normalization (Reinhard et al. 2001), see bccd_d2/data/stain.py.
    cfg.INPUT.STAIN = CN()
    cfg.INPUT.STAIN.ENABLED = False
    # Mean and standard deviation of each CIELAB channel (L in [0, 100], a and b signed) that the cells of an
    # image are moved to. The defaults are the medians, value by value, of ReinhardNormalizer.statistics()
    # over 60 images of
    # "BCCD Dataset with mask" (train).
    cfg.INPUT.STAIN.TARGET_MEAN = [39.2, 9.0, -22.9]
    cfg.INPUT.STAIN.TARGET_STD = [11.9, 4.6, 4.5]
    # A source deviation below this counts as this, same unit: a flat channel is not blown up to noise.
    cfg.INPUT.STAIN.MIN_STD = 1.0

    # Albumentations of the training crops: a preset ("none", "mild", "strong") ...
    cfg.INPUT.AUGMENTATION = CN()
    cfg.INPUT.AUGMENTATION.PRESET = "mild"
    # ... or, when not empty, this list of [name, {parameter: value}] entries in its place.
    cfg.INPUT.AUGMENTATION.PIPELINE = []

    # "AdamW" or "SGD" (with SOLVER.MOMENTUM).
    cfg.SOLVER.OPTIMIZER = "AdamW"

    # The share of pixels, and the F1 at a threshold, count predictions with at least this score.
    cfg.TEST.SCORE_THRESH = 0.5


def get_bccd_cfg() -> CN:
    """A fresh configuration with Detectron2's keys and ours."""
    cfg = get_cfg()
    add_bccd_config(cfg)
    return cfg
