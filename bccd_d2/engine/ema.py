"""Exponential moving average of the weights, as a hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase


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
