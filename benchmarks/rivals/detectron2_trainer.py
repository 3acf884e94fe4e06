"""What methods with a trainer of Detectron2's kind have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 and registers the models

# isort: split
from detectron2.engine import DefaultTrainer, HookBase

from bccd_d2.engine.hooks import StopTraining
from bccd_d2.engine.train_step import NonFiniteError
from bccd_d2.engine.trainer import BCCDTrainer
from rivals.budget import Budget
from rivals.judge import Judge, Predict

SCHEDULE_STEPS = 10_000
"""Into which the budget is divided where Detectron2's schedules count iterations."""


class BudgetHook(HookBase):
    """Puts the schedule where the budget is, has the model judged, and ends the training.

    Args:
        budget: of the training.
        judge: says how good the model is now.
    """

    def __init__(self, budget: Budget, judge: Callable[[], dict[str, Any]]) -> None:
        self._budget = budget
        self._judge = judge

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
        """Count it.

        Raises:
            StopTraining: the budget is used up.
        """
        if self._budget.step(self._judge):
            raise StopTraining


class TrainerContender:
    """A method with a trainer of Detectron2's kind.

    Args:
        trainer: ready to start; its schedule is ``SCHEDULE_STEPS`` long.
        predict: with the model of the trainer.
        recipe: what it does.
    """

    def __init__(self, trainer: DefaultTrainer, predict: Predict, recipe: str) -> None:
        self.recipe = recipe
        self.parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self._trainer = trainer
        self._predict = predict

    def train(self, budget: Budget, judge: Judge) -> None:
        """See :class:`rivals.contender.Contender`."""
        trainer = self._trainer

        def judge_now() -> dict[str, Any]:
            trainer.model.eval()
            averaged = isinstance(trainer, BCCDTrainer)
            weights: AbstractContextManager[None] = trainer.evaluated_weights() if averaged else nullcontext()
            with weights:
                found = judge(self._predict)
            trainer.model.train()
            return found

        trainer.register_hooks([BudgetHook(budget, judge_now)])
        trainer.max_iter = sys.maxsize  # the budget ends it
        try:
            with suppress(StopTraining):
                trainer.train()
        except NonFiniteError as error:
            raise FloatingPointError(str(error)) from error
