"""The trainer: Detectron2's, with this project's data, evaluators, optimiser, steps and hooks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter

from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import build_train_loader
from bccd_d2.engine.checkpoint import RunCheckpointer
from bccd_d2.engine.hooks import (
    EvaluationHook,
    MetricsHistory,
    ModelEMA,
    StopOnSignal,
    StopTraining,
)
from bccd_d2.engine.progress import ProgressLine
from bccd_d2.engine.train_step import NonFiniteError, TrainStep
from bccd_d2.engine.validation_loss import ValidationLossHook, build_validation_crops, validation_losses
from bccd_d2.errors import InputError
from bccd_d2.evaluation.detectron2_evaluator import CellEvaluator
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.inference.predictor import CellModel
from bccd_d2.modeling.roi_heads import keep_features_exact
from bccd_d2.modeling.timm_backbone import decay_layer_rates
from bccd_d2.modeling.weights import load_pretrained_backbone, weights_errors

_logger = logging.getLogger(__name__)
CHECKPOINTS_KEPT = 2
"""Periodic checkpoints that stay, newest first: the last one, and the one before in case that is damaged."""
# Of the iterations, where SOLVER.STEPS is empty; a shorter run then needs another SOLVER.MAX_ITER only.
_STEP_SHARES = (0.6, 0.8, 0.9)


class BCCDTrainer(DefaultTrainer):
    """``DefaultTrainer`` that maps with :class:`BCCDDatasetMapper`, evaluates cells, and resumes where it stopped.

    What a step draws at random depends on ``SEED``, the process and the iteration alone, and a crop on ``SEED`` and its
    number alone; with the states in a checkpoint a resumed training therefore ends with the same weights as one that
    was not interrupted (bit for bit on the CPU with one process). A negative ``SEED`` is drawn, and found in ``cfg`` of
    the trainer.
    """

    iter: int

    def __init__(self, cfg: CfgNode) -> None:
        # Not DefaultTrainer's constructor, which makes the steps, the loader and the checkpointer of its own.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size()).clone()
        self._seed_is_drawn = cfg.SEED < 0
        if self._seed_is_drawn:
            cfg.defrost()
            cfg.SEED = int(comm.shared_random_seed())
        self.cfg = cfg
        model = self.build_model(cfg)
        if amp_dtype(cfg):
            keep_features_exact(model.backbone)
        if not cfg.MODEL.DEVICE.startswith("cuda"):
            # Otherwise the CPU's convolutions rearrange each input first; benchmarks/bench_train_step.py.
            model.to(memory_format=torch.channels_last)
        optimizer = self.build_optimizer(cfg, model)
        self.ema = ModelEMA(model, cfg.MODEL_EMA.DECAY) if cfg.MODEL_EMA.ENABLED else None
        # Its weights are evaluated and saved.
        self.evaluated_model = self.ema.module if self.ema else model
        devices = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
        self._trainer = TrainStep(
            create_ddp_model(model, broadcast_buffers=False, device_ids=devices),
            optimizer,
            accumulate=cfg.SOLVER.ACCUMULATE,
            amp_dtype=amp_dtype(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RunCheckpointer(
            model, cfg.OUTPUT_DIR, self.evaluated_model, config=cfg, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        # While this is true a signal need not wait for the end of the iteration.
        self.interruptible = False
        self._last_iteration = -1
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks, with this project's evaluation instead of its own, and more."""
        cfg = self.cfg
        timer, *stock = super().build_hooks()
        hooks: list[HookBase] = [timer, MetricsHistory(), *([self.ema] if self.ema else [])]
        for hook in stock:
            if isinstance(hook, EvalHook):
                if cfg.TEST.VALIDATION_LOSS_PERIOD:
                    hooks.append(ValidationLossHook(cfg.TEST.VALIDATION_LOSS_PERIOD, self._validation_losses))
                self.evaluation = EvaluationHook(
                    cfg.TEST.EVAL_PERIOD,
                    self._test,
                    self._best_metric_key(),
                    lambda iteration, value: self.checkpointer.save_weights(
                        "model_best", iteration=iteration, metric=cfg.TEST.BEST_METRIC, value=value
                    ),
                    cfg.TEST.PATIENCE,
                )
                hooks.append(self.evaluation)
                continue
            if isinstance(hook, PeriodicCheckpointer):
                hook.max_to_keep = CHECKPOINTS_KEPT
            hooks.append(hook)
        return [*hooks, StopOnSignal()]

    def build_writers(self) -> list[EventWriter]:
        """A short line on the console, and Detectron2's: log.txt, metrics.json and TensorBoard."""
        return [ProgressLine(self.max_iter), *super().build_writers()]

    def train(self) -> None:
        """Train to the end, until patience is at its end, or until a signal comes.

        Raises SystemExit where SIGINT (130) or SIGTERM (143) came, after a checkpoint to resume from was saved, and
        NonFiniteError for a loss or a gradient; ``diagnostic.pth`` has the weights and the names of the images.
        """
        if self.evaluation.is_exhausted:
            _logger.info("patience was at its end already after iteration %d", self.start_iter)
            return
        self._last_iteration = self.start_iter - 1
        first_batch = self.start_iter * self.cfg.SOLVER.ACCUMULATE
        self._trainer.read_from(self.build_train_loader(self.cfg, first_batch))
        try:
            super().train()
        except NonFiniteError as error:
            self.checkpointer.save_weights(
                "diagnostic", evaluated=False, iteration=self.iter, file_names=error.file_names
            )
            raise
        except StopTraining as stop:
            # The patience of a resumed training may end with the evaluation that was interrupted, before any step.
            self.iter = self._last_iteration
            if stop.signum is None:
                self.checkpointer.save("model_final", iteration=self.iter)
            else:
                if self.iter >= self.start_iter:
                    self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
                _logger.warning("stopped after iteration %d; continue with --resume", self.iter + 1)
                raise SystemExit(128 + stop.signum) from None
        if self.ema:
            self.checkpointer.save_weights("model_final_raw", evaluated=False, iteration=self._last_iteration)

    def after_train(self) -> None:
        """End the loader's workers, then what Detectron2 does."""
        self._trainer.read_from(())
        super().after_train()

    def run_step(self) -> None:
        """One iteration, whose random draws do not depend on what was drawn before."""
        draws = np.random.SeedSequence((self.cfg.SEED, comm.get_rank(), self.iter))
        seed_all_rng(int(draws.generate_state(1)[0]))
        super().run_step()
        self._last_iteration = self.iter

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that a training resumes from: numbers, strings, tensors, lists and dicts."""
        return {**TrainerBase.state_dict(self), **self._trainer.state_dict(), "seed": self.cfg.SEED}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`, after the model has loaded its weights.

        Raises InputError where one of the two trainings averages its weights and the other does not.
        """
        averaged = ModelEMA.__qualname__ in state_dict.get("hooks", {})
        if averaged != bool(self.ema):
            raise InputError(
                f"MODEL_EMA.ENABLED is {bool(self.ema)}, but the checkpoint has {averaged}; --resume needs the same"
            )
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict)
        if self._seed_is_drawn and "seed" in state_dict:
            self.cfg.SEED = state_dict["seed"]

    def _best_metric_key(self) -> str:
        """With several data sets Detectron2 puts their names before the metrics'."""
        names = self.cfg.DATASETS.TEST
        return self.cfg.TEST.BEST_METRIC if len(names) < 2 else f"{names[0]}/{self.cfg.TEST.BEST_METRIC}"

    def _test(self) -> dict[str, Any]:
        if not self.cfg.DATASETS.TEST:
            return {}
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def _validation_losses(self) -> dict[str, float]:
        if not hasattr(self, "_validation_crops"):
            self._validation_crops = build_validation_crops(self.cfg)
        return validation_losses(self.evaluated_model, self._validation_crops)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, first_batch: int = 0) -> Any:
        """Endless batches of mapped training crops, the same for the same seed, from batch ``first_batch`` on."""
        return build_train_loader(cfg, BCCDDatasetMapper(cfg, is_train=True), first_batch)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Every image of the data set once, whole."""
        return build_detection_test_loader(cfg, dataset_name, mapper=BCCDDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> CellEvaluator:
        """All metrics of cells; files go to ``OUTPUT_DIR/inference/<data set>``."""
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return CellEvaluator(
            dataset_name,
            EvaluationOptions.from_config(cfg),
            class_names=list(cfg.DATASETS.CLASS_NAMES) or None,
            output_dir=str(output_dir),
        )

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter 2019) or SGD; norms and biases with a weight decay of their own."""
        solver = cfg.SOLVER
        parameters = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        parameters = decay_layer_rates(parameters, model, cfg.MODEL.TIMM.LR_DECAY)
        options: dict[str, Any] = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
        kind: type[torch.optim.Optimizer] = torch.optim.AdamW
        if solver.OPTIMIZER == "SGD":
            kind = torch.optim.SGD
            options |= {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
        return maybe_add_gradient_clipping(cfg, kind)(parameters, **options)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Detectron2's schedule; without ``SOLVER.STEPS`` its steps are after 60, 80 and 90 % of the iterations."""
        if not cfg.SOLVER.STEPS:
            cfg = cfg.clone()
            cfg.defrost()
            iterations = cfg.SOLVER.MAX_ITER
            steps = sorted({round(share * iterations) for share in _STEP_SHARES} - {0, iterations})
            # fvcore wants more iterations than rates, which a run of two iterations does not have.
            cfg.SOLVER.STEPS = tuple(steps[: max(0, iterations - 2)])
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on every data set of ``DATASETS.TEST``, with ``TEST.TTA``, and write ``OUTPUT_DIR/results.json``.

        Returns the metrics in percent, by data set where there are several, as ``DefaultTrainer.test``.
        """
        results = super().test(cfg, CellModel(cfg, model), evaluators)
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_dataset = {names[0]: results} if len(names) == 1 else results
            write_json(Path(cfg.OUTPUT_DIR) / "results.json", by_dataset, indent=2)
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        """As ``DefaultTrainer.resume_or_load``; what cannot be read is an :class:`InputError`.

        Without ``MODEL.WEIGHTS`` a backbone with weights of its own starts from those. Periodic checkpoints of a
        training that resumes count among those of which ``CHECKPOINTS_KEPT`` stay.
        """
        if resume and self.checkpointer.has_checkpoint():
            with self.checkpointer.resume_errors():
                super().resume_or_load(resume=True)
            for hook in self._hooks:
                if isinstance(hook, PeriodicCheckpointer):
                    hook.recent_checkpoints = self.checkpointer.checkpoints_before(self.start_iter)
            if self.start_iter >= self.max_iter:
                self.checkpointer.save_as_final()
            return
        if not self.cfg.MODEL.WEIGHTS:
            load_pretrained_backbone(self.model)
        with weights_errors(self.cfg.MODEL.WEIGHTS):
            super().resume_or_load(resume=False)


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The lower precision that ``SOLVER.AMP`` asks for; None where it is off."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.DTYPE == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}[cfg.SOLVER.AMP.DTYPE]
