"""Every configuration key that this project adds to Detectron2's, with its meaning and unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode as CN  # noqa: N817  Detectron2's own habit
from detectron2.config import get_cfg

from bccd_d2.config_checks import check_config, check_kinds
from bccd_d2.config_heads import add_head_keys
from bccd_d2.errors import InputError
from bccd_d2.machine import cpu_supports_bfloat16
from bccd_d2.pixels import apply_pixels
from bccd_d2.plain_yaml import read_yaml


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
    # What the network sees: "coco" (BGR, COCO's mean subtracted, as Detectron2's own weights expect), "coco_std" (that
    # divided by the standard deviation, as its X-101 weights and those from scratch expect), "imagenet" and "timm"
    # (INPUT.FORMAT "RGB", ImageNet's mean and deviation or those of MODEL.TIMM.NAME), "unit" (levels in [0, 1]), or
    # "custom": what MODEL.PIXEL_MEAN and PIXEL_STD say, which the others set.
    cfg.INPUT.PIXELS = "custom"
    # Rotate training crops by a random multiple of 90 degrees.
    cfg.INPUT.ROT90 = True
    # Decoded training images to keep, in MB (5.5 for one of 1600x1200), the first that are read; 0 keeps none.
    # Decoding takes nine tenths of the time that a sample takes. They are kept in memory, an equal share by each
    # loader process of all processes that train on this machine, or ...
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
    # In place of ZOOM, for training images of several magnifications: [smallest, largest] median cell diameter of a
    # crop in network pixels. Each image is resized from its own diameter to one drawn from this range.
    cfg.INPUT.AUGMENTATION.CELL_DIAMETERS = []

    cfg.INPUT.COPY_PASTE = CN()
    # Paste cells of other training images into crops (Ghiasi et al. 2021), rare classes more often.
    cfg.INPUT.COPY_PASTE.ENABLED = False
    # At most this many cells a crop; the number is drawn evenly from 0 on.
    cfg.INPUT.COPY_PASTE.MAX_CELLS = 4
    # Cells of each class that are cut out when training starts and kept in memory (40 to 200 kB each).
    cfg.INPUT.COPY_PASTE.CELLS_PER_CLASS = 64

    # MODEL.BACKBONE.NAME "build_timm_fpn_backbone": a model of timm with features at strides 4, 8, 16 and 32 under
    # Detectron2's FPN; "build_timm_sfp_backbone": a plain vision transformer of timm under a simple feature pyramid.
    cfg.MODEL.TIMM = CN()
    # timm's name of the model, with or without the tag of its weights.
    cfg.MODEL.TIMM.NAME = ""
    # Training without MODEL.WEIGHTS starts from timm's own weights (downloaded once), else from random ones.
    cfg.MODEL.TIMM.PRETRAINED = True
    # Batch norms keep their statistics, scale and offset, as Detectron2's "FrozenBN" does: for pretrained models with
    # batch norm, whose statistics few images would spoil. ConvNeXt and Swin have none.
    cfg.MODEL.TIMM.FREEZE_BN = False
    # Of vision transformers: file of weights to start from in place of timm's own.
    cfg.MODEL.TIMM.CHECKPOINT_PATH = ""
    # Of vision transformers: [name, value] pairs that timm's constructor gets, such as ["init_values", 1e-5].
    cfg.MODEL.TIMM.OPTIONS = []
    # Of vision transformers: the learning rate of each block is this times that of the next one (Clark et al. 2020).
    cfg.MODEL.TIMM.LR_DECAY = 1.0

    # MODEL.BACKBONE.NAME "build_slim_resnet_fpn_backbone": channels and number of blocks of the stages res2 to res5.
    cfg.MODEL.SLIM_RESNET = CN()
    cfg.MODEL.SLIM_RESNET.CHANNELS = [32, 64, 128, 192]
    cfg.MODEL.SLIM_RESNET.BLOCKS = [2, 2, 2, 2]
    add_head_keys(cfg)

    # "AdamW" or "SGD" (with SOLVER.MOMENTUM).
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # Length of the training in epochs (each training image once); above 0 it sets SOLVER.MAX_ITER and limits
    # SOLVER.WARMUP_ITERS to a tenth of it. 0: SOLVER.MAX_ITER counts, in iterations.
    cfg.SOLVER.MAX_EPOCHS = 0
    # In epochs, above 0 they set SOLVER.CHECKPOINT_PERIOD and TEST.EVAL_PERIOD (iterations).
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    cfg.TEST.EVAL_EPOCHS = 0
    # Where SOLVER.STEPS is empty: the shares of SOLVER.MAX_ITER after which the rate is multiplied by SOLVER.GAMMA, so
    # that a shorter run needs only another MAX_ITER. Read by "WarmupMultiStepLR", not by "WarmupCosineLR".
    cfg.SOLVER.STEP_SHARES = [0.6, 0.8, 0.9]
    # Batches of SOLVER.IMS_PER_BATCH whose gradients are averaged for one iteration.
    cfg.SOLVER.ACCUMULATE = 1
    # Mixed precision (SOLVER.AMP.ENABLED): "float16", "bfloat16", or "auto": bfloat16 where the card has it. On the CPU
    # only "bfloat16" has an effect, and only where the CPU has it in hardware: a step then takes 0.6 of the time.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # How many of the checkpoints written every SOLVER.CHECKPOINT_PERIOD iterations are kept, newest first.
    cfg.SOLVER.CHECKPOINTS_KEPT = 2

    # Exponential moving average of the weights; what is evaluated and saved is the average. In its t-th update it
    # keeps min(DECAY, (1 + t) / (10 + t)) of itself.
    cfg.MODEL_EMA = CN()
    cfg.MODEL_EMA.ENABLED = False
    cfg.MODEL_EMA.DECAY = 0.999

    # The losses on this many crops of the DATASETS.TEST images, always the same ones without augmentation, every so
    # many iterations and after the last; a period of 0: never.
    cfg.TEST.VALIDATION_LOSS_PERIOD = 100
    cfg.TEST.VALIDATION_LOSS_CROPS = 16
    # With TEST.EVAL_PERIOD: the evaluation in which this metric ("GROUP/NAME" as in results.json, of the first data
    # set of DATASETS.TEST) is highest is kept as model_best.pth ...
    cfg.TEST.BEST_METRIC = "segm/AP"
    # ... and after this many evaluations in a row without a new best one training stops; 0: never.
    cfg.TEST.PATIENCE = 0

    # What an evaluation counts, outlines and puts into error bins are predictions with at least this score; average
    # precision, curves and calibration look at all.
    cfg.TEST.SCORE_THRESH = 0.5
    # Diameters in native pixels (of a disc with the area of the mask) that part small cells from medium and medium from
    # large ones: platelets, red cells, white cells.
    cfg.TEST.SIZE_EDGES = [40.0, 130.0]
    # A mask that comes within this many native pixels of the image border touches it; "interior" figures leave it out.
    cfg.TEST.BORDER_MARGIN = 0
    # Gaps in native pixels to the next cell up to which a cell counts as touching another, and as near one.
    cfg.TEST.CROWDING_EDGES = [3.0, 20.0]
    # Native pixels by which an outline may be off in boundary F1.
    cfg.TEST.BOUNDARY_TOLERANCE = 2.0
    # Resamples of the images for confidence intervals; 0 for none.
    cfg.TEST.BOOTSTRAP_SAMPLES = 1000

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
    # (half the time where the CPU has it in hardware, up to a point of AP less, see docs/inference.md) or "auto" for
    # the fastest with the same results.
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
        _require_plain_yaml(str(config_file), ())
        # Detectron2's default is to follow tags that run any code.
        cfg.merge_from_file(str(config_file), allow_unsafe=False)
    except InputError:
        raise
    except (OSError, AssertionError) as error:
        raise InputError(f"{config_file}: expected a YAML configuration, cannot read it ({error})") from error
    except (KeyError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{config_file}: {_first_argument(error)}") from error
    if len(options) % 2:
        raise InputError(
            f"options: expected pairs of KEY VALUE, found {len(options)} words: {' '.join(options)}"
        )
    try:
        cfg.merge_from_list(list(options))
    except (AssertionError, KeyError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"options: {_first_argument(error)}") from error
    check_kinds(cfg, get_bccd_cfg())
    apply_pixels(cfg)
    _fit_to_machine(cfg)
    check_config(cfg, get_bccd_cfg())
    return cfg


def _require_plain_yaml(config_file: str, above: tuple[str, ...]) -> None:
    """Look at a file, and at those it names with ``_BASE_``, before fvcore does, which is not careful.

    Args:
        config_file: path; addresses are left to fvcore.
        above: the files that led to this one.
    """
    if "://" in config_file:
        return
    path = Path(config_file).expanduser()
    if not path.is_file():
        raise InputError(f"{config_file}: expected a YAML configuration, there is no such file")
    if str(path.resolve()) in above:
        raise InputError(f"{config_file}: _BASE_ leads back to this file")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{config_file}: {str(content)[:60]!r}, expected keys and values")
    bases = content.get("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not base:
            raise InputError(f"{config_file}: _BASE_: {base!r}, expected the path of a YAML file")
        _require_plain_yaml(
            base if "://" in base else str(path.parent / Path(base).expanduser()),
            (*above, str(path.resolve())),
        )


def _fit_to_machine(cfg: CN) -> None:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.DEVICE.startswith("cuda") and not (
        cfg.SOLVER.AMP.DTYPE == "bfloat16" and cpu_supports_bfloat16()
    ):
        cfg.SOLVER.AMP.ENABLED = False


def _first_argument(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
