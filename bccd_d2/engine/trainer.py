"""The trainer: Detectron2's, with this project's mapper, evaluators and optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.evaluation import DatasetEvaluators
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm

from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import build_train_loader
from bccd_d2.errors import InputError
from bccd_d2.evaluation.coco_evaluation import CellCOCOEvaluator
from bccd_d2.evaluation.overlap import PixelOverlapEvaluator
from bccd_d2.files import write_json
from bccd_d2.inference.cell_model import CellModel
from bccd_d2.modeling.weights import weights_errors


class BCCDTrainer(DefaultTrainer):
    """``DefaultTrainer`` that maps with :class:`BCCDDatasetMapper` and evaluates cells."""

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; of the periodic checkpoints only the newest ``SOLVER.CHECKPOINTS_KEPT`` stay."""
        all_hooks = super().build_hooks()
        for hook in all_hooks:
            if isinstance(hook, PeriodicCheckpointer):
                hook.max_to_keep = self.cfg.SOLVER.CHECKPOINTS_KEPT
        return all_hooks

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Endless batches of mapped training crops; the same for the same seed."""
        return build_train_loader(cfg, BCCDDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Every image of the data set once, whole."""
        return build_detection_test_loader(cfg, dataset_name, mapper=BCCDDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        """COCO metrics and pixel overlap; files go to ``OUTPUT_DIR/inference/<data set>``."""
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return DatasetEvaluators(
            [
                CellCOCOEvaluator(
                    dataset_name, max_detections=cfg.TEST.DETECTIONS_PER_IMAGE, output_dir=str(output_dir)
                ),
                PixelOverlapEvaluator(dataset_name, score_threshold=cfg.TEST.SCORE_THRESH),
            ]
        )

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter 2019) or SGD; norms and biases with a weight decay of their own.

        Raises:
            InputError: ``SOLVER.OPTIMIZER`` is neither.
        """
        solver = cfg.SOLVER
        parameters = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        if solver.OPTIMIZER == "AdamW":
            optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
            return optimizer_class(parameters, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
        if solver.OPTIMIZER == "SGD":
            optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
            return optimizer_class(
                parameters,
                lr=solver.BASE_LR,
                momentum=solver.MOMENTUM,
                nesterov=solver.NESTEROV,
                weight_decay=solver.WEIGHT_DECAY,
            )
        raise InputError(f"SOLVER.OPTIMIZER: expected 'AdamW' or 'SGD', found {solver.OPTIMIZER!r}")

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Detectron2's schedule; without ``SOLVER.STEPS`` its steps are ``SOLVER.STEP_SHARES`` of the iterations."""
        if not cfg.SOLVER.STEPS:
            cfg = cfg.clone()
            cfg.defrost()
            iterations = cfg.SOLVER.MAX_ITER
            steps = sorted({round(share * iterations) for share in cfg.SOLVER.STEP_SHARES} - {0, iterations})
            # fvcore wants more iterations than rates, which a trial run of two iterations must not fail on.
            cfg.SOLVER.STEPS = tuple(steps[: max(0, iterations - 2)])
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every data set of ``DATASETS.TEST``, with ``TEST.TTA``, and write ``OUTPUT_DIR/results.json``.

        Returns:
            As ``DefaultTrainer.test``: the metrics in percent, by data set where there are several.
        """
        results = super().test(cfg, CellModel(cfg, model), evaluators)
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_dataset = {names[0]: results} if len(names) == 1 else results
            write_json(Path(cfg.OUTPUT_DIR) / "results.json", by_dataset, indent=2)
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        """As ``DefaultTrainer.resume_or_load``; weights that cannot be had are an :class:`InputError`."""
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
            return
        with weights_errors(self.cfg.MODEL.WEIGHTS):
            super().resume_or_load(resume=False)
