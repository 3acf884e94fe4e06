"""Detectron2 as others use it: its tutorial's model, and a small one of its own keys."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import detectron2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from detectron2.engine import DefaultTrainer
from numpy.typing import NDArray

from bccd_d2.data.registration import class_names, register_bccd
from bccd_d2.errors import InputError
from bccd_d2.inference.predictor import Network
from bccd_d2.modeling.weights import BCCDCheckpointer
from bccd_d2.structures.cells import Cells
from rivals.budget import WARMUP_SHARE
from rivals.contender import Setting
from rivals.detectron2_trainer import SCHEDULE_STEPS, TrainerContender
from rivals.judge import DETECTIONS

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
FROM_WEIGHTS = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
FROM_SCRATCH = "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"
STEPS_3X = [round(SCHEDULE_STEPS * step / 270_000) for step in (210_000, 250_000)]
"""Where the zoo's "3x" schedule divides the rate by ten."""
CROP = 512
"""Side of the small model's crops in native pixels."""


def tutorial_config(classes: int, weights: Path | None) -> CfgNode:
    """Detectron2's tutorial on a zoo's Mask R-CNN R50-FPN: two whole images a step, 128 regions each.

    Args:
        classes: of the data.
        weights: what it starts from, with the tutorial's constant rate and frozen norms; None for the zoo's recipe
            from scratch with its rate for 16 images divided by eight, since frozen norms cannot start from noise.

    Raises:
        InputError: this installation of Detectron2 lacks the zoo's configurations.
    """
    cfg = _zoo_config(FROM_WEIGHTS if weights else FROM_SCRATCH)
    cfg.MODEL.WEIGHTS = str(weights or "")
    cfg.SOLVER.BASE_LR = 0.00025 if weights else cfg.SOLVER.BASE_LR / 8
    cfg.SOLVER.STEPS = () if weights else STEPS_3X
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    return _for_these_data(cfg, classes)


def small_stock_config(classes: int, shortest_side: int) -> CfgNode:
    """Detectron2's R18-FPN from scratch with batch norm on crops at half size, from Detectron2's own keys alone.

    Args:
        classes: of the data.
        shortest_side: median of the images, native pixels.

    Raises:
        InputError: as :func:`tutorial_config`.
    """
    cfg = _zoo_config("Base-RCNN-FPN.yaml")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.OUT_CHANNELS = 128
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [CROP, CROP]
    cfg.INPUT.MIN_SIZE_TRAIN = (min(CROP, shortest_side) // 2,)
    cfg.INPUT.MIN_SIZE_TEST = shortest_side // 2
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.STEPS = STEPS_3X
    return _for_these_data(cfg, classes)


def _zoo_config(name: str) -> CfgNode:
    file = ZOO / name
    if not file.is_file():
        raise InputError(f"{file} is not there: expected Detectron2 with the configurations of its model zoo")
    cfg = get_cfg()
    cfg.merge_from_file(str(file))
    return cfg


def _for_these_data(cfg: CfgNode, classes: int) -> CfgNode:
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("bccd_train",), ()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MASK_FORMAT = "bitmask"  # what the annotations are
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = SCHEDULE_STEPS
    cfg.SOLVER.WARMUP_ITERS = round(WARMUP_SHARE * SCHEDULE_STEPS)
    cfg.SOLVER.CHECKPOINT_PERIOD = sys.maxsize
    cfg.TEST.DETECTIONS_PER_IMAGE = DETECTIONS
    return cfg


def build_tutorial(setting: Setting, folder: Path) -> TrainerContender:
    """Detectron2's tutorial."""
    weights = setting.detectron2_weights
    cfg = tutorial_config(_register(setting), weights)
    start = (
        f"zoo `{FROM_WEIGHTS}` from {weights.name}, SGD at a constant 0.00025 (the tutorial's)"
        if weights
        else f"zoo `{FROM_SCRATCH}` (group norm, random weights), SGD 0.0025 (the zoo's 0.02 for 16 images), divided "
        "by ten at 7/9 and 25/27 of the budget"
    )
    step = "2 whole images a step, shortest side 640-800 px, horizontal flips, 128 regions"
    return _stock(cfg, folder, f"`DefaultTrainer`, {start}; {step}")


def build_small_stock(setting: Setting, folder: Path) -> TrainerContender:
    """Detectron2's R18-FPN from scratch."""
    classes = _register(setting)
    sides = [min(record["height"], record["width"]) for record in DatasetCatalog.get("bccd_train")]
    recipe = (
        "`DefaultTrainer`, R18-FPN of 128 channels, batch norm, random weights, SGD 0.01 divided by ten at 7/9 and "
        f"25/27 of the budget; 2 crops of {CROP} px at half size a step, horizontal flips, 128 regions"
    )
    return _stock(small_stock_config(classes, round(statistics.median(sides))), folder, recipe)


def _register(setting: Setting) -> int:
    """Register the data; the number of its classes."""
    registered = register_bccd(setting.data_root)
    if "bccd_train" not in registered:
        raise InputError(f"{setting.data_root}: expected annotations/instances_train.json in it, found none")
    return len(class_names(registered["bccd_train"]))


def _stock(cfg: CfgNode, folder: Path, recipe: str) -> TrainerContender:
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    trainer = DefaultTrainer(cfg)
    if cfg.MODEL.WEIGHTS:
        BCCDCheckpointer(trainer.model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    shrink = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    def predict(image: NDArray[np.uint8]) -> Cells:
        small = shrink.get_transform(image).apply_image(image)
        return Network(trainer.model)([small])[0].resized(*image.shape[:2]).paste()

    return TrainerContender(trainer, predict, recipe)
