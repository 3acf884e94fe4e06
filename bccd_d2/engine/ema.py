"""Exponential moving average of the weights, as a hook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase


class ModelEMA(HookBase):
    """Averages weights and batch norm statistics over the iterations (Polyak and Juditsky 1992).

    After update t = 1, 2, ... average = d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)), so
    that the first iterations, which know little, are soon forgotten. Everything in the model's state that is a
    floating-point tensor is averaged, batch norm's running mean and variance too; the rest stays the model's own.

    Args:
        model: not wrapped for distributed training.
        decay: in (0, 1).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._updates = 0
        # The average; while it is applied, what the model had instead.
        self._tensors: dict[str, torch.Tensor] = {}

    def before_train(self) -> None:
        """Start from the weights that the training starts from."""
        if not self._updates:
            self._tensors = {name: tensor.clone() for name, tensor in self._floating().items()}

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in the weights after one more step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, tensor in self._floating().items():
            self._tensors[name].lerp_(tensor, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average inside, and its own weights again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and whichever of average and weights is not in the model now."""
        return {"updates": self._updates, "tensors": dict(self._tensors)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state saved while the average was applied, after the model has loaded that average."""
        self._updates = state_dict["updates"]
        floating = self._floating()
        self._tensors = {
            name: tensor.to(floating[name].device, copy=True)
            for name, tensor in state_dict["tensors"].items()
        }
        self._exchange()

    def _floating(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict()
        return {name: tensor.detach() for name, tensor in state.items() if tensor.is_floating_point()}

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self._floating().items():
            kept = tensor.clone()
            tensor.copy_(self._tensors[name])
            self._tensors[name].copy_(kept)
