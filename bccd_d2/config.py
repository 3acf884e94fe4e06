"""Every configuration key that this project adds to Detectron2's, with its meaning and unit."""

from __future__ import annotations

from detectron2.config import CfgNode as CN  # noqa: N814  Detectron2's own habit
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
    # MIN_SIZE_* and MAX_SIZE_*, which shrink a large image more than a small one: a cell's size in pixels is set
    # by the microscope, not by the size of the picture.
    cfg.INPUT.SCALE = 1.0
    # Size of the training crop [height, width] in native pixels is INPUT.CROP.SIZE with TYPE "absolute".
    # An instance that the crop cuts is kept as long as this share of its pixels is left.
    cfg.INPUT.CROP.MIN_VISIBLE = 0.1
    # Rotate training crops by a random multiple of 90 degrees.
    cfg.INPUT.ROT90 = True

    # Reinhard stain normalization (Reinhard et al. 2001), see bccd_d2/data/stain.py.
    cfg.INPUT.STAIN = CN()
    cfg.INPUT.STAIN.ENABLED = False
    # Mean and standard deviation of each CIELAB channel (L in [0, 100], a and b signed) that images are moved to.
    cfg.INPUT.STAIN.TARGET_MEAN = [68.0, 12.0, -6.0]
    cfg.INPUT.STAIN.TARGET_STD = [6.0, 4.0, 3.0]

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
