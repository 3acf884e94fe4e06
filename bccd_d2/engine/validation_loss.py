"""The training losses on crops of images that are not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import SeededDataset

CROPS = 16
# Not the run's, so that runs with different seeds are compared on the same crops.
_SEED = 0


class ValidationCrops:
    """The same crops, mapped as in training but without augmentation, each time it is gone through.

    ``dataset`` maps (number, index) to a sample, the same one each time; ``images`` indices are taken in turn for
    ``crops`` numbers, which several processes share.
    """

    def __init__(
        self, dataset: Callable[[tuple[int, int]], Mapping[str, Any]], images: int, crops: int
    ) -> None:
        self._dataset = dataset
        self._images = images
        self._crops = crops

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for number in range(comm.get_rank(), self._crops, comm.get_world_size()):
            yield self._dataset((number, number % self._images))


def build_validation_crops(cfg: CfgNode) -> ValidationCrops:
    """``CROPS`` crops of the images of ``DATASETS.TEST``."""
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
    return ValidationCrops(dataset.__getitem__, len(dicts), CROPS)


def validation_losses(model: torch.nn.Module, samples: ValidationCrops) -> dict[str, float]:
    """Mean of each loss over the samples of all processes, one at a time, with proposals sampled alike each time.

    The model, not wrapped for distributed training, computes losses as in training but sees what it sees in prediction:
    batch norm uses its running statistics and learns nothing, dropout drops nothing.
    """
    sums: Counter[str] = Counter()
    count = 0
    # The storage of its own takes what Detectron2's heads would put into that of the training.
    with loss_mode(model), torch.no_grad(), torch.random.fork_rng(), EventStorage():
        for number, sample in enumerate(samples):
            torch.manual_seed(number)
            sums.update({name: loss.item() for name, loss in model([sample]).items()})
            count += 1
    parts: Sequence[tuple[Counter[str], int]] = comm.all_gather((sums, count))
    total = sum(part_count for _, part_count in parts)
    names = sorted({name for part, _ in parts for name in part})
    return {name: sum(part[name] for part, _ in parts) / total for name in names}


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
