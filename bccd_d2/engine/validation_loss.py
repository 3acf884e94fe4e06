"""The training losses on crops of images that are not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import SeededDataset
from bccd_d2.engine.hooks import is_due

Crops = Callable[[int], Mapping[str, Any]]
"""The training sample of each number, the same one each time."""
CROPS = 16
# Not the run's, so that runs with different seeds are compared on the same crops.
_SEED = 0


def build_validation_crops(cfg: CfgNode) -> Crops:
    """Crops of the images of ``DATASETS.TEST`` in turn, mapped as in training but without augmentation."""
    cfg = cfg.clone()
    cfg.defrost()
    augmentation = cfg.INPUT.AUGMENTATION
    augmentation.PRESET, augmentation.PIPELINE, augmentation.ZOOM = "none", [], []
    if augmentation.CELL_DIAMETERS:
        augmentation.CELL_DIAMETERS = [cfg.INPUT.CELL_DIAMETER] * 2
    cfg.INPUT.COPY_PASTE.ENABLED = False
    cfg.INPUT.CACHE_MB = 0  # all of it is the training images'
    cfg.INPUT.STAIN.JITTER_MEAN, cfg.INPUT.STAIN.JITTER_STD = [0.0, 0.0, 0.0], 0.0
    cfg.INPUT.RANDOM_FLIP = "none"
    dicts = get_detection_dataset_dicts(cfg.DATASETS.TEST, filter_empty=False)
    dataset = SeededDataset(dicts, BCCDDatasetMapper(cfg, is_train=True), _SEED)
    return lambda number: dataset[number, number % len(dicts)]


def validation_losses(model: torch.nn.Module, crops: Crops) -> dict[str, float]:
    """Mean of each loss over ``CROPS`` crops, which all processes share, with proposals sampled alike each time.

    The model, not wrapped for distributed training, computes losses as in training but sees what it sees in prediction:
    batch norm uses its running statistics and learns nothing, dropout drops nothing.
    """
    own = []
    # The storage of its own takes what Detectron2's heads would put into that of the training.
    with loss_mode(model), torch.no_grad(), torch.random.fork_rng(), EventStorage():
        for number in range(comm.get_rank(), CROPS, comm.get_world_size()):
            torch.manual_seed(number)
            own.append({name: loss.item() for name, loss in model([crops(number)]).items()})
    found = list(itertools.chain.from_iterable(comm.all_gather(own)))
    return {name: sum(losses[name] for losses in found) / len(found) for name in sorted(found[0])}


@contextmanager
def loss_mode(model: torch.nn.Module) -> Iterator[None]:
    """Modules that hold others train, so that they return losses; the layers themselves predict."""
    before = {module: module.training for module in model.modules()}
    for module in model.modules():
        module.training = any(True for _ in module.children())
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


class ValidationLossHook(HookBase):
    """Puts the validation losses into the storage as ``validation/total_loss`` and ``validation/loss_...``.

    ``period`` is in iterations, and the last one is due too; ``losses`` is called in every process.
    """

    def __init__(self, period: int, losses: Callable[[], Mapping[str, float]]) -> None:
        self._period = period
        self._losses = losses

    def after_step(self) -> None:
        """Compute them where it is time to."""
        if is_due(self.trainer.iter, self._period, self.trainer.max_iter):
            losses = self._losses()
            named = {f"validation/{name}": value for name, value in losses.items()}
            named["validation/total_loss"] = sum(losses.values())
            self.trainer.storage.put_scalars(**named, smoothing_hint=False)
