"""What happens between the steps: evaluation with the best checkpoint, stopping, smoothing windows, weight averages."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from bccd_d2.errors import InputError
from bccd_d2.system import raise_signal, receive_stop_signals, restore_signals, signal_name

_logger = logging.getLogger(__name__)
# Detectron2's writers give the median of as many values.
_SMOOTHING_WINDOW = 20
# Iterations are timed again in every run.
_NOT_RESUMED = ("time", "data_time")
# A signal that comes twice within this time, in seconds, is one: a terminal and a parent process may both send it.
_ONE_SIGNAL = 1.0


class StopTraining(BaseException):
    """Ends the training loop; no error, so that nothing on the way takes it for one.

    ``signum`` is the signal that asked for it, None when there is nothing left to do.
    """

    def __init__(self, signum: int | None = None) -> None:
        super().__init__(signum)
        self.signum = signum


class EvaluationHook(HookBase):
    """Evaluates, keeps the best checkpoint and stops when it has not become better for long, in place of ``EvalHook``.

    A checkpoint is saved before the evaluation at the same iteration; a training that resumes from it makes up for the
    evaluation first. ``period`` is in iterations, 0 for none, and the last one is due too; ``evaluate`` returns nested
    metrics, empty in all processes but the first; ``metric`` is a key of the flattened metrics, higher is better;
    ``save_best`` gets the iteration and the value of each new best one; after ``patience`` evaluations without one
    training stops, 0 for never.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Mapping[str, Any]],
        metric: str,
        save_best: Callable[[int, float], object],
        patience: int = 0,
    ) -> None:
        self._period = period
        self._evaluate = evaluate
        self._metric = metric
        self._save_best = save_best
        self._patience = patience
        self._best = -math.inf
        self._since_best = 0
        self._last_iteration = -1

    @property
    def is_exhausted(self) -> bool:
        """Whether patience is at its end."""
        return bool(self._patience) and self._since_best >= self._patience

    def before_train(self) -> None:
        """Make up for the evaluation that was due after the checkpoint from which this run resumes."""
        iteration = self.trainer.start_iter - 1
        due = is_due(iteration, self._period, self.trainer.max_iter)
        if iteration >= 0 and due and self._last_iteration < iteration:
            self._run(iteration)

    def after_step(self) -> None:
        """Evaluate where it is time to; StopTraining when patience is at its end."""
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            self._run(self.trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, evaluations since then, iteration of the last one."""
        return {"best": self._best, "since_best": self._since_best, "last_iteration": self._last_iteration}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`."""
        self._best = state_dict["best"]
        self._since_best = state_dict["since_best"]
        self._last_iteration = state_dict["last_iteration"]

    def _run(self, iteration: int) -> None:
        self.trainer.interruptible = True
        results = self._evaluate()
        self.trainer.interruptible = False
        self._last_iteration = iteration
        if results:
            flat = {name: float(value) for name, value in flatten_results_dict(results).items()}
            self.trainer.storage.iter = iteration
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
            self.trainer.storage.iter = self.trainer.iter
            if self._period:
                self._compare(flat, iteration)
        # Only the first process has the metrics; all stop together.
        if comm.all_gather(self.is_exhausted)[0]:
            _logger.info("%s: no better for %d evaluations, training stops", self._metric, self._since_best)
            raise StopTraining

    def _compare(self, metrics: Mapping[str, float], iteration: int) -> None:
        if self._metric not in metrics:
            raise InputError(
                f"TEST.BEST_METRIC: {self._metric}, expected one of {', '.join(sorted(metrics))}"
            )
        value = metrics[self._metric]
        if value > self._best:  # false for NaN
            self._best, self._since_best = value, 0
            _logger.info("%s: %.3f is the best so far (iteration %d)", self._metric, value, iteration)
            self._save_best(iteration, value)
        else:
            self._since_best += 1


class MetricsHistory(HookBase):
    """Keeps what Detectron2's writers smooth over, so that metrics.json does not show where a run was interrupted."""

    def __init__(self) -> None:
        self._loaded: dict[str, list[list[float]]] = {}

    def before_train(self) -> None:
        """Give the new storage the last values of the old one."""
        storage = self.trainer.storage
        for name, values in self._loaded.items():
            for value, iteration in values:
                storage.iter = iteration
                storage.put_scalar(name, value)
        storage.iter = self.trainer.start_iter

    def state_dict(self) -> dict[str, Any]:
        """(value, iteration) of the last iterations, by name."""
        storage = self.trainer.storage
        return {
            name: [list(pair) for pair in history.values()[-_SMOOTHING_WINDOW:]]
            for name, history in storage.histories().items()
            if storage.smoothing_hints()[name] and name not in _NOT_RESUMED
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`."""
        self._loaded = dict(state_dict)


class StopOnSignal(HookBase):
    """SIGINT and SIGTERM end the training after the iteration, or at once during an evaluation of a single process.

    A second signal does what it did before the training.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._received = 0.0
        self._before: dict[int, Any] = {}

    def before_train(self) -> None:
        """Listen; only a process's main thread can."""
        try:
            self._before = receive_stop_signals(self._receive)
        except ValueError:
            _logger.warning("signals cannot be received outside the main thread")

    def after_step(self) -> None:
        """Stop all processes (StopTraining) when one was asked to, unless this was the last iteration."""
        found = [signum for signum in comm.all_gather(self._signum) if signum is not None]
        if found and self.trainer.iter + 1 < self.trainer.max_iter:
            raise StopTraining(found[0])

    def after_train(self) -> None:
        """Listen no longer."""
        restore_signals(self._before)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signum is not None:
            if now - self._received > _ONE_SIGNAL:
                self.after_train()
                raise_signal(signum)
            return
        self._signum, self._received = signum, now
        if self.trainer.interruptible and comm.get_world_size() == 1:
            raise StopTraining(signum)
        _logger.warning("%s: stopping after this iteration", signal_name(signum))


def is_due(iteration: int, period: int, max_iter: int) -> bool:
    """Whether something with this period, in iterations, happens after ``iteration`` or because it is the last."""
    return iteration + 1 >= max_iter or (period > 0 and (iteration + 1) % period == 0)


class ModelEMA(HookBase):
    """Averages weights and batch norm statistics over the iterations (Polyak and Juditsky 1992), with timm's class.

    Update t = 1, 2, ... keeps d = min(decay, (1 + t) / (10 + t)) of the average, so that the first iterations are soon
    forgotten. ``module`` is a copy of the model (not wrapped for distributed training) with the average, in evaluation
    mode. A checkpoint holds the average as its model, and this hook's state the weights that are trained.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        from timm.utils.model_ema import ModelEmaV3  # takes two seconds

        self._model = model
        # 1 - 1 / (1 + step / 9) with step = t + 1 is the warm-up above.
        self._average = ModelEmaV3(model, decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)
        self.module: torch.nn.Module = self._average.module
        self._updates = 0

    def before_train(self) -> None:
        """Start from the weights that the training starts from."""
        if not self._updates:
            self.module.load_state_dict(self._model.state_dict())

    def after_step(self) -> None:
        """Take in the weights after one more step."""
        self._updates += 1
        self._average.update(self._model, step=self._updates + 2)  # timm's step is one ahead

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the weights that are trained."""
        return {"updates": self._updates, "tensors": self._floating()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`, after the model has loaded the average from the same checkpoint."""
        self._updates = state_dict["updates"]
        self.module.load_state_dict(self._model.state_dict())
        floating = self._floating()
        for name, tensor in state_dict["tensors"].items():
            floating[name].copy_(tensor)

    def _floating(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict()
        return {name: tensor.detach() for name, tensor in state.items() if tensor.is_floating_point()}
