"""Methods with a trainer of Detectron2's kind: its tutorial's model, a small one of its keys, this project's model."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 and registers the models

# isort: split
import detectron2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils.events import EventWriter
from numpy.typing import NDArray

from baselines.evaluator import DETECTIONS, Evaluator, Predict
from baselines.method import WARMUP_SHARE, Budget, Setting
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.data.registration import class_names, register_bccd
from bccd_d2.engine.hooks import StopTraining
from bccd_d2.engine.setup import setup_config
from bccd_d2.engine.train_step import NonFiniteError
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.inference.predictor import Network
from bccd_d2.modeling.weights import BCCDCheckpointer
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import annotation_file

SCHEDULE_STEPS = 10_000
"""Into which the budget is divided where Detectron2's schedules count iterations."""


class BudgetHook(HookBase):
    """Puts the schedule where the budget is, has the model evaluated, and ends the training."""

    def __init__(self, budget: Budget, evaluate: Callable[[], dict[str, Any]]) -> None:
        self._budget = budget
        self._evaluate = evaluate

    def before_train(self) -> None:
        """Start the clock."""
        self._budget.start()

    def before_step(self) -> None:
        """Set the rate of this step."""
        if self.trainer.iter > 0:  # the first one's is set
            scheduler = self.trainer.scheduler
            scheduler.last_epoch = min(int(self._budget.share * SCHEDULE_STEPS), SCHEDULE_STEPS - 1) - 1
            scheduler.step()

    def after_step(self) -> None:
        """Count it; StopTraining where the budget is used up."""
        if self._budget.step(self._evaluate):
            raise StopTraining


class DetectronMethod:
    """A method with a trainer of Detectron2's kind, whose schedule is ``SCHEDULE_STEPS`` long."""

    def __init__(self, trainer: DefaultTrainer, predict: Predict, recipe: str) -> None:
        self.recipe = recipe
        self.parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self._trainer = trainer
        self._predict = predict

    def train(self, budget: Budget, evaluator: Evaluator) -> None:
        """See :class:`baselines.method.Method`."""
        trainer = self._trainer

        def evaluate_now() -> dict[str, Any]:
            trainer.model.eval()
            found = evaluator(self._predict)
            trainer.model.train()
            return found

        trainer.register_hooks([BudgetHook(budget, evaluate_now)])
        trainer.max_iter = sys.maxsize  # the budget ends it
        try:
            with suppress(StopTraining):
                trainer.train()
        except NonFiniteError as error:
            raise FloatingPointError(str(error)) from error


ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
FROM_WEIGHTS = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
FROM_SCRATCH = "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"
STEPS_3X = [round(SCHEDULE_STEPS * step / 270_000) for step in (210_000, 250_000)]
"""Where the zoo's "3x" schedule divides the rate by ten."""
CROP = 512
"""Side of the small model's crops in native pixels."""


def tutorial_config(classes: int, weights: Path | None) -> CfgNode:
    """Detectron2's tutorial on a zoo's Mask R-CNN R50-FPN: two whole images a step, 128 regions each.

    ``weights`` have the tutorial's constant rate and frozen norms; without them it is the zoo's recipe from scratch
    with its rate for 16 images divided by eight, since frozen norms cannot start from noise.
    """
    cfg = _zoo_config(FROM_WEIGHTS if weights else FROM_SCRATCH)
    cfg.MODEL.WEIGHTS = str(weights or "")
    cfg.SOLVER.BASE_LR = 0.00025 if weights else cfg.SOLVER.BASE_LR / 8
    cfg.SOLVER.STEPS = () if weights else STEPS_3X
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    return _for_these_data(cfg, classes)


def small_stock_config(classes: int, shortest_side: int) -> CfgNode:
    """Detectron2's R18-FPN from scratch with batch norm on crops at half size, from Detectron2's own keys alone."""
    cfg = _zoo_config("Base-RCNN-FPN.yaml")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = True
    resnets = cfg.MODEL.RESNETS
    resnets.DEPTH, resnets.RES2_OUT_CHANNELS, resnets.NORM = 18, 64, "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.OUT_CHANNELS = 128
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 128
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [CROP, CROP]
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


def build_tutorial(setting: Setting, folder: Path) -> DetectronMethod:
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


def build_small_stock(setting: Setting, folder: Path) -> DetectronMethod:
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
    return len(class_names(read_coco(registered["bccd_train"])))


def _stock(cfg: CfgNode, folder: Path, recipe: str) -> DetectronMethod:
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    trainer = DefaultTrainer(cfg)
    if cfg.MODEL.WEIGHTS:
        BCCDCheckpointer(trainer.model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    shrink = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    def predict(image: NDArray[np.uint8]) -> Cells:
        small = shrink.get_transform(image).apply_image(image)
        return Network(trainer.model)([small])[0].resized(*image.shape[:2]).paste()

    return DetectronMethod(trainer, predict, recipe)


def build_own(setting: Setting, folder: Path) -> DetectronMethod:
    """This project's model."""
    cfg = setup_config(setting.config_file, own_options(setting, folder), str(setting.data_root))
    cfg.freeze()
    trainer = _Quiet(cfg)
    trainer.resume_or_load(resume=False)
    preprocessor = ImagePreprocessor.from_config(cfg)

    def predict(image: NDArray[np.uint8]) -> Cells:
        if preprocessor.image_format == "RGB":
            image = image[:, :, ::-1]
        prepared = preprocessor(image, preprocessor.colors.statistics(image))
        return Network(trainer.evaluated_model)([prepared])[0].resized(*image.shape[:2]).paste()

    solver, size = cfg.SOLVER, "x".join(map(str, cfg.INPUT.CROP.SIZE))
    precision = "" if not solver.AMP.ENABLED else f", {solver.AMP.DTYPE} for the forward pass of the training"
    recipe = (
        f"`{setting.config_file.name}` as it is from {cfg.MODEL.WEIGHTS or 'random weights'}: {solver.OPTIMIZER} "
        f"{solver.BASE_LR}, {solver.LR_SCHEDULER_NAME}, {solver.IMS_PER_BATCH} crops of {size} px at {cfg.INPUT.SCALE} "
        f"of their size a step{', averaged weights' if cfg.MODEL_EMA.ENABLED else ''}{precision}"
    )
    return DetectronMethod(trainer, predict, recipe)


def own_options(setting: Setting, folder: Path) -> list[str]:
    """Keys and values that fit a configuration of this project to the comparison."""
    classes = len(class_names(read_coco(annotation_file(setting.data_root, "train"))))
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
