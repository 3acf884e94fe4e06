"""A model as Detectron2's evaluation loop wants it, on the code path of the predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch.nn.parallel import DistributedDataParallel

from bccd_d2.inference.network import Network
from bccd_d2.inference.predictor import augmentation_from_config, cells_to_instances
from bccd_d2.inference.test_time_augmentation import predict_views, views_of


class CellModel(torch.nn.Module):
    """Predicts batches of mapped images with the views of ``TEST.TTA``, and pastes masks by windows.

    The network runs in its plain mode: evaluation in the middle of a training must not change the layout of its
    weights, and the numbers of a run shall not depend on the CPU it was evaluated on.

    Args:
        cfg: ``TEST.TTA`` and ``TEST.DETECTIONS_PER_IMAGE`` are read.
        model: a ``GeneralizedRCNN``, maybe in ``DistributedDataParallel``.
    """

    def __init__(self, cfg: CfgNode, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self._augmentation = augmentation_from_config(cfg)
        self._most_detections = cfg.TEST.DETECTIONS_PER_IMAGE

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict a batch.

        Args:
            batched_inputs: dicts with ``image`` ((3, h, w) uint8, prepared for the network), ``height`` and ``width``
                of the native image.

        Returns:
            Dicts with ``cells`` (``Cells``) and the same as ``instances`` (Detectron2's), in native
            pixels, best score first.
        """
        network = Network(self.model)
        images = [sample["image"].permute(1, 2, 0).cpu().numpy() for sample in batched_inputs]
        sizes = [(sample["height"], sample["width"]) for sample in batched_inputs]
        if self._augmentation is None:
            found = [d.resized(*size).paste() for d, size in zip(network(images), sizes)]
        else:
            views = views_of(self._augmentation)
            found = [
                predict_views(network, image, views, *size, self._most_detections)
                for image, size in zip(images, sizes)
            ]
        return [{"cells": cells, "instances": cells_to_instances(cells)} for cells in found]
