"""Every configuration key that this project adds to Detectron2's, with its meaning and unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode as CN  # noqa: N817  Detectron2's own habit
from detectron2.config import get_cfg

from bccd_d2.errors import InputError

_UNUSED_INPUT_KEYS = (
    "MIN_SIZE_TRAIN",
    "MIN_SIZE_TRAIN_SAMPLING",
    "MAX_SIZE_TRAIN",
    "MIN_SIZE_TEST",
    "MAX_SIZE_TEST",
)
CPU_MODES = ("auto", "plain", "channels_last", "bfloat16")
# Where weights lie that were trained on BGR images with COCO's mean subtracted.
_DETECTRON2_WEIGHTS = (
    "detectron2://COCO",
    "detectron2://LVIS",
    "detectron2://ImageNetPretrained/MSRA",
    "detectron2://ImageNetPretrained/FAIR",
    "https://dl.fbaipublicfiles.com/detectron2/COCO",
    "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA",
)


def add_bccd_config(cfg: CN) -> None:
    """Add this project's keys, with their defaults, to a Detectron2 configuration, in place.

    Args:
        cfg: a configuration as ``detectron2.config.get_cfg()`` returns it.
    """
    # Folder that tools/convert_bccd.py wrote. Empty: "bccd" below $DETECTRON2_DATASETS, or below ./datasets.
    cfg.DATASETS.ROOT = ""
    # Names of the classes by index; empty: taken from the training annotations and written into the run's config.yaml,
    # so that prediction knows them.
    cfg.DATASETS.CLASS_NAMES = []

    # Network pixels per native pixel, for training, evaluation and prediction alike. It takes the place of
    # MIN_SIZE_* and MAX_SIZE_*, which shrink a large image more than a small one: a cell's size in pixels is
    # set by the microscope, not by the size of the picture.
    cfg.INPUT.SCALE = 1.0
    # Median diameter of a cell of the training images in native pixels, of a disc of the same area; 0: taken from the
    # training annotations and written into the run's config.yaml. Prediction with a diameter resizes images to it.
    cfg.INPUT.CELL_DIAMETER = 0.0
    # Microns per native pixel of the training images; 0: not known. Images whose own is known are resized to it.
    cfg.INPUT.MICRONS_PER_PIXEL = 0.0
    # Size of the training crop [height, width] in native pixels is INPUT.CROP.SIZE with TYPE "absolute".
    # An instance that the crop cuts is kept as long as this share of its pixels is left.
    cfg.INPUT.CROP.MIN_VISIBLE = 0.1
    # Beside Detectron2's "horizontal", "vertical" and "none" also "both", each flip with a probability of one
    # half: a smear has no upper side.
    cfg.INPUT.RANDOM_FLIP = "both"
    # What the network sees: "coco" (BGR, COCO's mean subtracted, as Detectron2's own weights expect), "unit"
    # (levels in [0, 1]), or "custom": what MODEL.PIXEL_MEAN and PIXEL_STD say, which the other two set.
    cfg.INPUT.PIXELS = "custom"
    # Rotate training crops by a random multiple of 90 degrees.
    cfg.INPUT.ROT90 = True
    # Decoded training images to keep, in MB (5.5 for one of 1600x1200), the first that are read; 0 keeps none.
    # Decoding takes nine tenths of the time that a sample takes. They are kept in memory, by each loader process
    # an equal share, or ...
    cfg.INPUT.CACHE_MB = 0
    # ... in this folder, when it is not empty, where all processes and later runs find them.
    cfg.INPUT.CACHE_DIR = ""

    # Reinhard stain normalization (Reinhard et al. 2001), see bccd_d2/data/stain.py.
    cfg.INPUT.STAIN = CN()
    cfg.INPUT.STAIN.ENABLED = False
    # Mean and standard deviation of each CIELAB channel (L in [0, 100], a and b signed) that the cells of an
    # image are moved to. The defaults are the medians that tools/fit_stain.py finds over 60 images of
    # "BCCD Dataset with mask" (train).
    cfg.INPUT.STAIN.TARGET_MEAN = [39.2, 9.0, -22.9]
    cfg.INPUT.STAIN.TARGET_STD = [11.9, 4.6, 4.5]
    # A source deviation below this counts as this, same unit: a flat channel is not blown up to noise.
    cfg.INPUT.STAIN.MIN_STD = 1.0
    # What the statistics are taken over: "otsu" for the cells that Otsu's threshold finds in CHANNEL ("green",
    # "grey" or "saturation"), "all" for the whole image.
    cfg.INPUT.STAIN.FOREGROUND = "otsu"
    cfg.INPUT.STAIN.CHANNEL = "green"
    # With "otsu": "keep" leaves the glass as it is, "normalize" moves it like the cells.
    cfg.INPUT.STAIN.BACKGROUND = "keep"
    # Training crops go to a target drawn around the one above or, when not ENABLED, around their image's own
    # statistics: the mean of L, a and b shifted by at most this, and each deviation times 1 +- this.
    cfg.INPUT.STAIN.JITTER_MEAN = [0.0, 0.0, 0.0]
    cfg.INPUT.STAIN.JITTER_STD = 0.0

    cfg.INPUT.AUGMENTATION = CN()
    # Augmentation of the training crops: a preset of bccd_d2/data/pipeline.py ("none", "mild", "strong") ...
    cfg.INPUT.AUGMENTATION.PRESET = "mild"
    # ... or, when not empty, this list of [name, {parameter: value}] of Albumentations in its place, ...
    cfg.INPUT.AUGMENTATION.PIPELINE = []
    # ... and crops magnified by a random factor in [smallest, largest]; [] takes the preset's, or none with a
    # PIPELINE.
    cfg.INPUT.AUGMENTATION.ZOOM = []

    cfg.INPUT.COPY_PASTE = CN()
    # Paste cells of other training images into crops (Ghiasi et al. 2021), rare classes more often.
    cfg.INPUT.COPY_PASTE.ENABLED = False
    # At most this many cells a crop; the number is drawn evenly from 0 on.
    cfg.INPUT.COPY_PASTE.MAX_CELLS = 4
    # Cells of each class that are cut out when training starts and kept in memory (40 to 200 kB each).
    cfg.INPUT.COPY_PASTE.CELLS_PER_CLASS = 64

    # MODEL.BACKBONE.NAME "build_slim_resnet_fpn_backbone": channels and number of blocks of the stages res2 to res5.
    cfg.MODEL.SLIM_RESNET = CN()
    cfg.MODEL.SLIM_RESNET.CHANNELS = [32, 64, 128, 192]
    cfg.MODEL.SLIM_RESNET.BLOCKS = [2, 2, 2, 2]

    # Where SOLVER.STEPS is empty: the shares of SOLVER.MAX_ITER after which the rate is multiplied by SOLVER.GAMMA, so
    # that a shorter run needs only another MAX_ITER.
    cfg.SOLVER.STEP_SHARES = [0.6, 0.8, 0.9]
    # How many of the checkpoints written every SOLVER.CHECKPOINT_PERIOD iterations are kept, newest first.
    cfg.SOLVER.CHECKPOINTS_KEPT = 2
    # "AdamW" or "SGD" (with SOLVER.MOMENTUM).
    cfg.SOLVER.OPTIMIZER = "AdamW"

    # Pixel overlap counts predictions with at least this score.
    cfg.TEST.SCORE_THRESH = 0.5

    # Evaluate and predict several views of each image and merge them on masks, see
    # bccd_d2/inference/test_time_augmentation.py; takes the place of Detectron2's TEST.AUG, which merges boxes.
    cfg.TEST.TTA = CN()
    cfg.TEST.TTA.ENABLED = False
    # Mirror images, and turns by multiples of 90 degrees; with both, the eight symmetries of a square.
    cfg.TEST.TTA.FLIP = True
    cfg.TEST.TTA.ROT90 = True
    # Each of these views at each of these sizes, relative to INPUT.SCALE.
    cfg.TEST.TTA.SCALES = [1.0]

    # How the network runs on a CPU when it predicts: "plain", "channels_last" (memory layout, same results), "bfloat16"
    # (a third of the time where the CPU has it in hardware, see docs/inference.md) or "auto" for the fastest here.
    cfg.MODEL.CPU_MODE = "auto"


def get_bccd_cfg() -> CN:
    """A fresh configuration with Detectron2's keys and ours."""
    cfg = get_cfg()
    add_bccd_config(cfg)
    return cfg


def load_config(config_file: str | Path, options: Sequence[str] = ()) -> CN:
    """Read a YAML file and ``KEY VALUE`` pairs into a checked configuration for this machine.

    Args:
        config_file: YAML, on Detectron2's ``_BASE_`` mechanism.
        options: ``["KEY", "VALUE", ...]``, which win over the file.

    Returns:
        The configuration, not frozen, with ``MODEL.DEVICE`` and ``SOLVER.AMP`` as this machine can have them.

    Raises:
        InputError: the file cannot be read, a key does not exist, a value has the wrong type, or values disagree.
    """
    cfg = get_bccd_cfg()
    try:
        cfg.merge_from_file(str(config_file))
    except (OSError, AssertionError) as error:
        raise InputError(f"{config_file}: expected a YAML configuration, cannot read it ({error})") from error
    except (KeyError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{config_file}: {_first_argument(error)}") from error
    if len(options) % 2:
        raise InputError(
            f"options: expected pairs of KEY VALUE, found {len(options)} words: {' '.join(options)}"
        )
    try:
        cfg.merge_from_list(list(options))
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(f"options: {_first_argument(error)}") from error
    _apply_pixels(cfg)
    _fit_to_machine(cfg)
    check_config(cfg)
    return cfg


def check_config(cfg: CN) -> None:
    """Refuse values that contradict each other or that nothing would read.

    Raises:
        InputError: names the key, what was found and what was expected.
    """
    stock = get_cfg()
    for key in _UNUSED_INPUT_KEYS:
        if cfg.INPUT[key] != stock.INPUT[key]:
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


def _check_prediction(cfg: CN) -> None:
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


def _apply_pixels(cfg: CN) -> None:
    """Set ``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` as ``INPUT.PIXELS`` says, and check it against the weights.

    Raises:
        InputError: the switch is unknown, contradicts a value that was set, or is not what the weights expect.
    """
    stock = get_cfg().MODEL
    coco = (list(stock.PIXEL_MEAN), list(stock.PIXEL_STD))
    found = (list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD))
    known = {"coco": coco, "unit": ([0.0] * 3, [255.0] * 3), "custom": found}
    pixels = cfg.INPUT.PIXELS
    if pixels not in known:
        raise InputError(f"INPUT.PIXELS: expected one of {', '.join(known)}, found {pixels!r}")
    if found not in (coco, known[pixels]):
        raise InputError(
            f"MODEL.PIXEL_MEAN and PIXEL_STD are {found[0]} and {found[1]}, but INPUT.PIXELS is {pixels!r}, which "
            "sets them: expected 'custom'"
        )
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = known[pixels]
    from_detectron2 = cfg.MODEL.WEIGHTS.startswith(_DETECTRON2_WEIGHTS)
    if from_detectron2 and (known[pixels] != coco or cfg.INPUT.FORMAT != "BGR"):
        raise InputError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS} expects INPUT.PIXELS 'coco' and INPUT.FORMAT 'BGR', "
            f"found {pixels!r} and {cfg.INPUT.FORMAT!r}"
        )


def _fit_to_machine(cfg: CN) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        cfg.SOLVER.AMP.ENABLED = False


def _first_argument(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
