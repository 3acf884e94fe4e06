"""Every configuration key that this project adds to Detectron2's, and how a configuration is read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode as CN  # noqa: N817  Detectron2's own habit
from detectron2.config import get_cfg

from bccd_d2.config.checks import check_config, check_values
from bccd_d2.config.normalization import apply_pixels
from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, shipped_file

_logger = logging.getLogger(__name__)


def add_bccd_config(cfg: CN) -> None:
    """Add this project's keys, with their defaults, to a Detectron2 configuration, in place."""
    # Folder that tools/convert_bccd.py wrote. Empty: "bccd" below $DETECTRON2_DATASETS, or below ./datasets.
    cfg.DATASETS.ROOT = ""
    # Class names by index. Empty: read from the training annotations and written to the run's config.yaml for
    # prediction.
    cfg.DATASETS.CLASS_NAMES = []

    # Network pixels per native pixel, in training, evaluation and prediction. Replaces MIN_SIZE_* and MAX_SIZE_*,
    # which shrink large images more than small ones: a cell's size in pixels depends on the microscope, not on the
    # image size.
    cfg.INPUT.SCALE = 1.0
    # Median diameter of red cells in the training images, in native pixels (disc of equal area). 0: computed from the
    # training annotations and written to the run's config.yaml. Prediction with a diameter resizes images to match it.
    cfg.INPUT.CELL_DIAMETER = 0.0
    # Microns per native pixel of the training images; 0: unknown. Images whose own value is known are resized to it.
    cfg.INPUT.MICRONS_PER_PIXEL = 0.0
    # Symmetries of the training crops: "both" for mirror images and quarter turns alike (all eight symmetries of the
    # square), or Detectron2's "horizontal", "vertical", "none".
    cfg.INPUT.RANDOM_FLIP = "both"
    # Normalization of the network's input: "coco" (BGR, COCO mean subtracted, for most Detectron2 weights), "coco_std"
    # (also divided by the standard deviation, for its X-101 and from-scratch weights), "imagenet" or "timm" (with
    # INPUT.FORMAT "RGB": mean and deviation of ImageNet, or of MODEL.TIMM.NAME), "unit" (values in [0, 1]), or
    # "custom" (MODEL.PIXEL_MEAN and PIXEL_STD as given; the others set them).
    cfg.INPUT.PIXELS = "custom"
    # Memory in MB for decoded training images (5.5 for one of 1600x1200), 0 for none. Decoding takes most of the
    # time of mapping a sample. Shared equally by all loader processes of this machine.
    cfg.INPUT.CACHE_MB = 0

    # Multiply each channel so that the image's own background comes to the same white (data/preprocessing.py).
    cfg.INPUT.WHITE_BALANCE = False
    # Then multiply each channel's optical density so that its median over the cells comes to these values, in the order
    # of INPUT.FORMAT; []: not at all.
    cfg.INPUT.CELL_DENSITY = []

    # Reinhard stain normalization (Reinhard et al. 2001), see bccd_d2/data/stain.py.
    cfg.INPUT.STAIN = CN()
    # Normalize the stain of every image.
    cfg.INPUT.STAIN.ENABLED = False
    # Target mean of each CIELAB channel (L in [0, 100], signed a and b) over the cells of an image. The default is the
    # median that tools/fit_stain.py finds over 60 images of "BCCD Dataset with mask" (train).
    cfg.INPUT.STAIN.TARGET_MEAN = [39.2, 9.0, -22.9]
    # Target standard deviation of each channel, likewise.
    cfg.INPUT.STAIN.TARGET_STD = [11.9, 4.6, 4.5]
    # Stain augmentation of training crops: largest shift of the mean of L, a and b, around the target or, when
    # normalization is off, around the image's own statistics ...
    cfg.INPUT.STAIN.JITTER_MEAN = [0.0, 0.0, 0.0]
    # ... and largest relative change of each deviation.
    cfg.INPUT.STAIN.JITTER_STD = 0.0

    cfg.INPUT.AUGMENTATION = CN()
    # Preset of bccd_d2/data/pipeline.py for training crops: "none", "mild" or "strong".
    cfg.INPUT.AUGMENTATION.PRESET = "mild"
    # Albumentations pipeline instead of the preset's: a list of [name, {parameter: value}].
    cfg.INPUT.AUGMENTATION.PIPELINE = []
    # Range [smallest, largest] of the random zoom of crops. []: the preset's, or no zoom with a PIPELINE.
    cfg.INPUT.AUGMENTATION.ZOOM = []
    # Instead of ZOOM, for training images of several magnifications: range [smallest, largest] of the median cell
    # diameter in network pixels. Each image is resized from its own diameter to one drawn from it.
    cfg.INPUT.AUGMENTATION.CELL_DIAMETERS = []
    cfg.INPUT.COPY_PASTE = CN()
    # Paste cells of other training images into crops (Ghiasi et al. 2021), rare classes more often.
    cfg.INPUT.COPY_PASTE.ENABLED = False

    # MODEL.BACKBONE.NAME "build_timm_fpn_backbone": a timm model with features at strides 4, 8, 16 and 32 under
    # Detectron2's FPN; "build_timm_sfp_backbone": a plain vision transformer of timm under a simple feature pyramid.
    cfg.MODEL.TIMM = CN()
    # timm model, with or without the tag of its weights.
    cfg.MODEL.TIMM.NAME = ""
    # Start from timm's weights (downloaded once) when MODEL.WEIGHTS is empty, instead of random ones.
    cfg.MODEL.TIMM.PRETRAINED = True
    # Vision transformers: file of weights to start from instead of timm's.
    cfg.MODEL.TIMM.CHECKPOINT_PATH = ""
    # Vision transformers: [name, value] pairs for timm's constructor, such as ["init_values", 1e-5].
    cfg.MODEL.TIMM.OPTIONS = []
    # Vision transformers: learning rate of each block relative to the next one (Clark et al. 2020).
    cfg.MODEL.TIMM.LR_DECAY = 1.0

    # MODEL.BACKBONE.NAME "build_slim_resnet_fpn_backbone": a ResNet-18 with other channels.
    cfg.MODEL.SLIM_RESNET = CN()
    # Channels of the stages res2 to res5.
    cfg.MODEL.SLIM_RESNET.CHANNELS = [32, 64, 128, 256]

    # Class weights of the classification loss: [] for equal weights, one number per class followed by one for the
    # background, or [name, number] pairs (class names or "background"; 1 for the others).
    cfg.MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS = []
    # Boxes suppress those of other classes too.
    cfg.MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC = False
    # Minimum score of a detection by class: one number per class, or [name, number] pairs. [] and classes that are not
    # named: MODEL.ROI_HEADS.SCORE_THRESH_TEST. tools/tune_thresholds.py chooses them.
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS = []
    # After the mask head, remove cells whose mask overlaps a better one of the same class.
    cfg.MODEL.ROI_HEADS.MASK_NMS = CN()
    cfg.MODEL.ROI_HEADS.MASK_NMS.ENABLED = False
    # "iou", or "containment": intersection over the smaller area.
    cfg.MODEL.ROI_HEADS.MASK_NMS.METRIC = "iou"
    # Overlap above which the worse of two cells is removed.
    cfg.MODEL.ROI_HEADS.MASK_NMS.THRESH = 0.5

    # "AdamW", or "SGD" with SOLVER.MOMENTUM.
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # Number of batches of SOLVER.IMS_PER_BATCH whose gradients are averaged for one iteration.
    cfg.SOLVER.ACCUMULATE = 1
    # Precision of SOLVER.AMP: "float16", "bfloat16", or "auto" (bfloat16 where the GPU has it). On a CPU only
    # "bfloat16" has an effect, where the CPU has it in hardware: a step then takes 0.6 of the time.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Exponential moving average of the weights, which is what is evaluated and saved.
    cfg.MODEL_EMA = CN()
    cfg.MODEL_EMA.ENABLED = False
    # Update t keeps min(DECAY, (1 + t) / (10 + t)) of the average.
    cfg.MODEL_EMA.DECAY = 0.999

    # Iterations between two computations of the losses on 16 crops of DATASETS.TEST, always the same ones, without
    # augmentation; 0 for never.
    cfg.TEST.VALIDATION_LOSS_PERIOD = 100
    # Metric ("GROUP/NAME" as in results.json, first data set of DATASETS.TEST) that selects model_best.pth.
    cfg.TEST.BEST_METRIC = "segm/AP"
    # Stop training after this many evaluations in a row without a better one; 0 for never.
    cfg.TEST.PATIENCE = 0
    # Diameters in native pixels (disc of equal area) that separate small, medium and large cells in the evaluation:
    # platelets, red cells, white cells.
    cfg.TEST.SIZE_EDGES = [40.0, 130.0]
    # Test-time augmentation: predict the eight symmetries of the image and merge their masks. Replaces Detectron2's
    # TEST.AUG, which merges boxes.
    cfg.TEST.TTA = CN()
    cfg.TEST.TTA.ENABLED = False
    # Sizes of every view relative to INPUT.SCALE.
    cfg.TEST.TTA.SCALES = [1.0]


def get_bccd_cfg() -> CN:
    """A fresh configuration with Detectron2's keys and ours."""
    cfg = get_cfg()
    add_bccd_config(cfg)
    return cfg


def load_config(config_file: str | Path, options: Sequence[str] = (), *, training: bool = False) -> CN:
    """Read a YAML file and ``["KEY", "VALUE", ...]``, which win over it, into a checked configuration for this machine.

    Returns it not frozen, with ``MODEL.DEVICE`` and ``SOLVER.AMP`` set to what this machine has; a ``training`` is
    warned where mixed precision is enabled and not there. Raises InputError where the file cannot be read, a key does
    not exist or has no effect, a value has the wrong type, or values contradict each other.
    """
    cfg, defaults, config_file = get_bccd_cfg(), get_bccd_cfg(), shipped_file(config_file)
    content = _read_plain(config_file, ())
    try:
        cfg.merge_from_other_cfg(CN(CN.load_yaml_with_base(config_file)))
    except (OSError, AssertionError) as error:
        raise InputError(f"{config_file}: expected a YAML configuration, cannot read it ({error})") from error
    except (KeyError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{config_file}: {_message(error)}") from error
    if len(options) % 2:
        raise InputError(
            f"options: expected pairs of KEY VALUE, found {len(options)} words: {' '.join(options)}"
        )
    try:
        cfg.merge_from_list(list(options))
    except (AssertionError, KeyError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"options: {_message(error)}") from error
    cfg.MODEL.WEIGHTS = shipped_file(cfg.MODEL.WEIGHTS)
    check_values(cfg, defaults)
    apply_pixels(cfg)
    _fit_to_machine(cfg, asked="MODEL.DEVICE" in options, training=training)
    # A file without _BASE_ is a complete configuration, as a run writes it, not what a user chose.
    written = {*options[::2], *(_names(content) if "_BASE_" in content else ())}
    check_config(cfg, defaults, written - {"_BASE_"})
    return cfg


def cpu_supports_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without that it is slower than float32."""
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def _read_plain(config_file: str, above: tuple[str, ...]) -> dict[str, Any]:
    """Content of a file without its bases, which are checked too: fvcore's reader trusts what it reads."""
    if "://" in config_file:
        return {}
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
        _read_plain(
            base if "://" in base else str(path.parent / Path(base).expanduser()),
            (*above, str(path.resolve())),
        )
    return content


def _names(content: Any, prefix: str = "") -> Iterable[str]:
    """Dotted names of the values in nested dicts."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def check_device(device: str, key: str = "MODEL.DEVICE") -> None:
    """InputError for what is no device, and for a GPU such as "cuda:1" that PyTorch does not find; ``key`` is the key
    or option that named it.
    """
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{key}: expected cpu, cuda or cuda:N, found {device!r}") from error
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if parsed.type == "cuda" and (parsed.index or 0) >= number:
        raise InputError(f"{key}: found {device!r}, but PyTorch finds {number} GPUs here; expected 'cpu'")


def _fit_to_machine(cfg: CN, *, asked: bool, training: bool) -> None:
    """Set device and mixed precision, in place; the CPU replaces a missing GPU that was not ``asked`` for."""
    if asked:
        check_device(cfg.MODEL.DEVICE)
    elif cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        _warn_once(f"PyTorch finds no GPU: MODEL.DEVICE {cfg.MODEL.DEVICE} becomes cpu")
        cfg.MODEL.DEVICE = "cpu"
    if not cfg.SOLVER.AMP.ENABLED or cfg.MODEL.DEVICE.startswith("cuda"):
        return
    if cfg.SOLVER.AMP.DTYPE != "bfloat16" or not cpu_supports_bfloat16():
        if training:
            _warn_once(
                "SOLVER.AMP is off: it needs a GPU, or a CPU with bfloat16 and SOLVER.AMP.DTYPE bfloat16"
            )
        cfg.SOLVER.AMP.ENABLED = False


@cache
def _warn_once(message: str) -> None:
    """A command may read its configuration more than once."""
    _logger.warning(message)


def _message(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
