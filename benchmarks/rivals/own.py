"""This project's model, as its configuration says."""

from __future__ import annotations

import sys
from pathlib import Path

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 and registers the models

# isort: split
import numpy as np
from detectron2.utils.events import EventWriter
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.data.registration import annotation_file, class_names
from bccd_d2.engine.setup import setup_config
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.inference.predictor import Network
from bccd_d2.structures.cells import Cells
from rivals.budget import WARMUP_SHARE
from rivals.contender import Setting
from rivals.detectron2_trainer import SCHEDULE_STEPS, TrainerContender
from rivals.judge import DETECTIONS


def build_own(setting: Setting, folder: Path) -> TrainerContender:
    """This project's model."""
    cfg = setup_config(setting.config_file, own_options(setting, folder), str(setting.data_root))
    cfg.freeze()
    trainer = _Quiet(cfg)
    trainer.resume_or_load(resume=False)
    preprocessor = ImagePreprocessor(cfg)

    def predict(image: NDArray[np.uint8]) -> Cells:
        if preprocessor.image_format == "RGB":
            image = image[:, :, ::-1]
        prepared = preprocessor(image, preprocessor.statistics(image))
        return Network(trainer.model)([prepared])[0].resized(*image.shape[:2]).paste()

    solver, size = cfg.SOLVER, "x".join(map(str, cfg.INPUT.CROP.SIZE))
    precision = "" if not solver.AMP.ENABLED else f", {solver.AMP.DTYPE} for the forward pass of the training"
    recipe = (
        f"`{setting.config_file.name}` as it is from {cfg.MODEL.WEIGHTS or 'random weights'}: {solver.OPTIMIZER} "
        f"{solver.BASE_LR}, {solver.LR_SCHEDULER_NAME}, {solver.IMS_PER_BATCH} crops of {size} px at {cfg.INPUT.SCALE} "
        f"of their size a step{', averaged weights' if cfg.MODEL_EMA.ENABLED else ''}{precision}"
    )
    return TrainerContender(trainer, predict, recipe)


def own_options(setting: Setting, folder: Path) -> list[str]:
    """Keys and values that fit a configuration of this project to the comparison."""
    classes = len(class_names(annotation_file(setting.data_root, "train")))
    return [
        *("DATASETS.TEST", f"('bccd_{setting.part}',)", "DATALOADER.NUM_WORKERS", "0"),
        *("MODEL.ROI_HEADS.NUM_CLASSES", str(classes), "SEED", str(setting.seed), "OUTPUT_DIR", str(folder)),
        *("TEST.DETECTIONS_PER_IMAGE", str(DETECTIONS), "TEST.EVAL_PERIOD", "0"),
        *("TEST.VALIDATION_LOSS_PERIOD", "0", "SOLVER.CHECKPOINT_PERIOD", str(sys.maxsize)),
        *("SOLVER.MAX_ITER", str(SCHEDULE_STEPS)),
        *("SOLVER.WARMUP_ITERS", str(round(WARMUP_SHARE * SCHEDULE_STEPS))),
    ]


class _Quiet(BCCDTrainer):
    """Without the line for people, whose iterations left mean nothing here."""

    def build_writers(self) -> list[EventWriter]:
        return super().build_writers()[1:]
