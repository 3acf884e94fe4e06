"""One iteration: forward and backward of one or several batches, then the optimizer's update."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch.nn.parallel import DistributedDataParallel

from bccd_d2.errors import InputError


class NonFiniteError(InputError):
    """A loss or a gradient is infinite or NaN, so this step was not made; ``file_names`` are the images."""

    def __init__(self, message: str, file_names: Sequence[str]) -> None:
        super().__init__(message)
        self.file_names = list(file_names)


class TrainStep(TrainerBase):
    """Makes the steps of :class:`bccd_d2.engine.trainer.BCCDTrainer`, in place of ``SimpleTrainer`` and ``AMPTrainer``.

    An iteration averages the gradients of ``accumulate`` batches. For a loss that is a mean over images that is the
    gradient of one batch of all of them; Mask R-CNN's box and mask losses are means over regions, so there a batch with
    fewer cells counts as much as one with more. ``amp_dtype`` is the lower precision of the forward pass, bfloat16 or
    float16 (with scaled gradients); None for float32.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        accumulate: int = 1,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.optimizer = optimizer
        self.accumulate = accumulate
        self.amp_dtype = amp_dtype
        self.data_loader: Iterable[Sequence[Mapping[str, Any]]] = ()
        self._batches: Iterator[Sequence[Mapping[str, Any]]] = iter(())
        # Only float16 needs it: bfloat16 has the range of float32.
        self._scaler = torch.amp.GradScaler("cuda") if amp_dtype == torch.float16 else None

    def read_from(self, data_loader: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        """Take the batches of the next steps from the start of ``data_loader``."""
        self.data_loader = data_loader
        self._batches = iter(data_loader)

    def run_step(self) -> None:
        """Make one iteration and put its losses, means over its batches and over all processes, into the storage.

        Raises NonFiniteError in every process; the weights are then as they were before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        records, names = [], []
        for part in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time = time.perf_counter() - start
            last = part == self.accumulate - 1
            with self._without_reduction() if not last else contextlib.nullcontext():
                losses = self._losses(batch)
                found = {name: loss.item() for name, loss in losses.items()}
                shared = comm.all_gather((found, data_time, _file_names(batch)))
                names += [name for _, _, process_names in shared for name in process_names]
                if not all(_finite(process_losses) for process_losses, _, _ in shared):
                    raise self._error(batch, [process_losses for process_losses, _, _ in shared])
                total = torch.stack(list(losses.values())).sum() / self.accumulate
                (self._scaler.scale(total) if self._scaler else total).backward()
            records += [(process_losses, seconds) for process_losses, seconds, _ in shared]
        self._update(names)
        if comm.is_main_process():
            storage = get_event_storage()
            # The slowest process's loading is what the others wait for.
            storage.put_scalar("data_time", max(seconds for _, seconds in records))
            means = {name: float(np.mean([losses[name] for losses, _ in records])) for name in records[0][0]}
            storage.put_scalar("total_loss", sum(means.values()))
            storage.put_scalars(**means)

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer and of the gradients' scale."""
        state = {"optimizer": self.optimizer.state_dict()}
        if self._scaler:
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over :meth:`state_dict`; a scale that one of the two runs lacks is left alone."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if self._scaler and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])

    def _losses(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        device = next(self.model.parameters()).device
        try:
            with torch.autocast(device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                return self.model(batch)
        except FloatingPointError:  # Detectron2's, of boxes that the RPN predicts
            return {"predicted boxes": torch.tensor(math.nan, device=device)}

    def _without_reduction(self) -> contextlib.AbstractContextManager[Any]:
        """Gradients of all but the last batch stay in their process."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _update(self, file_names: Sequence[str]) -> None:
        if self._scaler:
            self._scaler.step(self.optimizer)  # leaves out steps whose gradients are not finite
            self._scaler.update()
            return
        # A finite loss may have a gradient that is not, which would reach the weights and the next checkpoint.
        gradients = [p.grad for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        if gradients and not torch.stack([gradient.norm() for gradient in gradients]).isfinite().all():
            raise NonFiniteError(
                f"the gradient is not finite at iteration {self.iter}; images: {', '.join(file_names)}",
                file_names,
            )
        self.optimizer.step()

    def _error(
        self, batch: Sequence[Mapping[str, Any]], losses: Sequence[Mapping[str, float]]
    ) -> NonFiniteError:
        """What to say; the images are looked at one by one where their batch's loss is not finite."""
        culprits: list[str] = []
        if not _finite(losses[comm.get_rank()]):
            with torch.no_grad():
                culprits = _file_names([sample for sample in batch if not _finite(self._losses([sample]))])
            culprits = culprits or _file_names(batch)
        file_names = [name for names in comm.all_gather(culprits) for name in names]
        values = {(name, value) for found in losses for name, value in found.items()}
        terms = sorted(f"{name} {value}" for name, value in values if not math.isfinite(value))
        return NonFiniteError(
            f"the loss is not finite at iteration {self.iter} ({', '.join(terms)}); images: {', '.join(file_names)}",
            file_names,
        )


def _finite(losses: Mapping[str, Any]) -> bool:
    return all(math.isfinite(float(value)) for value in losses.values())


def _file_names(batch: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(sample.get("file_name", "unnamed")) for sample in batch]
