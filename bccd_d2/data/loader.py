"""The training loader: the same seed gives the same batches, with any number of workers.

Detectron2 seeds each worker, and its release 0.6 lets each worker make batches of its share. Here a crop depends on the
run's seed and on the sample's number alone, so a training that resumes, or runs on several processes, sees the same
crops.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator, worker_init_reset_seed
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from bccd_d2.system import at_fork, leave_stop_to_parent

_LAST_ITERATION = 120  # seconds that the iteration in which a stop was asked for may take

_opencv_threads_before_fork = 0


class NumberedSampler(Sampler[tuple[int, int]]):
    """Yields (number, index): the indices of a sampler of Detectron2 with their numbers among those of all processes.

    ``start`` of this process's indices are left out, for a training that resumes.
    """

    def __init__(self, sampler: Sampler[int], start: int = 0) -> None:
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        numbers = itertools.count(comm.get_rank(), comm.get_world_size())
        return itertools.islice(zip(numbers, self.sampler), self.start, None)


class SeededDataset(Dataset[Any]):
    """Maps dataset dicts, NumPy's global generator, which the mapper draws from, being seeded by the sample's
    number.
    """

    def __init__(
        self, dataset_dicts: Sequence[dict[str, Any]], mapper: Callable[[dict[str, Any]], Any], seed: int
    ) -> None:
        # Detectron2's serialized list: forked workers do not copy it by counting references.
        self._dicts = DatasetFromList(list(dataset_dicts), copy=False)
        self._mapper = mapper
        self._seed = seed

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, numbered: tuple[int, int]) -> Any:
        number, index = numbered
        with numpy_seeded(self._seed, number):
            return self._mapper(self._dicts[index])


@contextmanager
def numpy_seeded(*seeds: int) -> Iterator[None]:
    """Seed NumPy's global generator, and give it back its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002  what Detectron2's augmentations draw from
    np.random.seed(np.random.SeedSequence(seeds).generate_state(4))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def build_train_loader(cfg: CfgNode, mapper: Callable[[dict[str, Any]], Any], first_batch: int = 0) -> Any:
    """Endless batches, lists of mapped samples; several processes together get the samples that one would get.

    A negative ``SEED`` is drawn. ``first_batch`` batches are left out, because an earlier part of the training had
    them: those that follow are what they would have been.
    """
    dicts = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        # A region to ignore is written once for each category and shows none of them.
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            [{"annotations": [a for a in d["annotations"] if not a.get("iscrowd", 0)]} for d in dicts],
            cfg.DATALOADER.REPEAT_THRESHOLD,
        )
        sampler = RepeatFactorTrainingSampler(factors, seed=seed)
    else:
        sampler = TrainingSampler(len(dicts), seed=seed)
    batch_size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    return DataLoader(
        SeededDataset(dicts, mapper, seed),
        sampler=NumberedSampler(sampler, start=first_batch * batch_size),
        batch_size=batch_size,
        drop_last=True,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int) -> None:
    worker_init_reset_seed(worker)
    leave_stop_to_parent(_LAST_ITERATION)


@functools.cache
def stop_opencv_threads_at_fork() -> None:
    """Let no forked process inherit OpenCV's thread pool; further calls do nothing.

    Threads do not survive a fork, but the pool believes that they do: in the child, ``cv2.setNumThreads`` waits
    for them forever. So they end before the fork, start again in the parent, and the child has none.
    """
    at_fork(before=_stop_opencv, after_in_parent=_start_opencv)


def use_one_opencv_thread_in_workers() -> None:
    """In a loader's worker, leave OpenCV one thread: pools of several workers would fight for the same cores."""
    if get_worker_info() is not None and cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _stop_opencv() -> None:
    global _opencv_threads_before_fork
    _opencv_threads_before_fork = cv2.getNumThreads()
    cv2.setNumThreads(1)


def _start_opencv() -> None:
    cv2.setNumThreads(_opencv_threads_before_fork)


class TorchvisionCells(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Map-style data set of training samples in torchvision's detection format; each access draws again.

    ``mapper`` is :class:`bccd_d2.data.dataset_mapper.BCCDDatasetMapper` for training, ``image_format`` its
    ``INPUT.FORMAT``. A sample is the image, (3, h, w) float32 RGB in [0, 1], and the target in pixels of it: ``boxes``
    (N, 4) float32 xyxy, ``labels`` (N,) int64 from 1 on, 0 being background, ``masks`` (N, h, w) uint8, ``area`` (N,)
    float32 pixels of each mask, ``iscrowd`` (N,) int64, all 0, and ``image_id``, the index.
    """

    def __init__(
        self,
        dataset_dicts: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        image_format: str = "BGR",
    ) -> None:
        self._dicts, self._mapper, self._image_format = dataset_dicts, mapper, image_format

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        sample = self._mapper(self._dicts[index])
        image, instances = sample["image"].float() / 255, sample["instances"]
        masks = instances.gt_masks.tensor
        target = {
            "boxes": instances.gt_boxes.tensor.clone(),
            "labels": instances.gt_classes + 1,
            "masks": masks.to(torch.uint8),
            "area": masks.flatten(1).sum(1).float(),
            "iscrowd": torch.zeros(len(instances), dtype=torch.int64),
            "image_id": torch.tensor(index, dtype=torch.int64),
        }
        return (image.flip(0) if self._image_format == "BGR" else image), target
