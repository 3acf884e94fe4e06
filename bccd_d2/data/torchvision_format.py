"""The same samples in torchvision's detection format, so that its reference models train on the same data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset


def to_torchvision(
    sample: dict[str, Any], image_id: int, image_format: str = "BGR"
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Convert a training sample of :class:`bccd_d2.data.dataset_mapper.BCCDDatasetMapper`.

    Args:
        sample: with ``image`` and ``instances``.
        image_id: a number of the image, unique in the data set.
        image_format: colour order of ``sample["image"]``.

    Returns:
        The image, (3, h, w) float32 RGB in [0, 1], and the target in pixels of it: ``boxes`` (N, 4) float32 xyxy,
        ``labels`` (N,) int64 from 1 on, 0 being background, ``masks`` (N, h, w) uint8, ``area`` (N,) float32 pixels
        of each mask, ``iscrowd`` (N,) int64, all 0, and ``image_id``, int64.
    """
    image = sample["image"].float() / 255
    instances = sample["instances"]
    masks = instances.gt_masks.tensor
    target = {
        "boxes": instances.gt_boxes.tensor.clone(),
        "labels": instances.gt_classes + 1,
        "masks": masks.to(torch.uint8),
        "area": masks.flatten(1).sum(1).float(),
        "iscrowd": torch.zeros(len(instances), dtype=torch.int64),
        "image_id": torch.tensor(image_id, dtype=torch.int64),
    }
    return (image.flip(0) if image_format == "BGR" else image), target


class TorchvisionCells(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Map-style data set of training samples in torchvision's detection format; each access draws anew.

    Args:
        dataset_dicts: in Detectron2's format.
        mapper: :class:`bccd_d2.data.dataset_mapper.BCCDDatasetMapper` for training.
        image_format: the mapper's ``INPUT.FORMAT``.
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
        return to_torchvision(self._mapper(self._dicts[index]), index, self._image_format)
