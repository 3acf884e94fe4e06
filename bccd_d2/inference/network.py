"""Runs the network: device, precision, memory layout, batches that fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances, ROIMasks
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.modeling.precision import keep_features_exact
from bccd_d2.structures.detections import Detections

_LARGEST_BATCH_ON_CUDA = 8
CPU_MODES = ("auto", "plain", "channels_last", "bfloat16")


class Network:
    """A model and how it is run.

    Attributes:
        batch_size: images that go through the model together: 1 on the CPU, which is no faster with more, and at most 8
            on a GPU, halved whenever its memory does not suffice.

    Args:
        model: a ``GeneralizedRCNN`` in evaluation mode. Other modes than "plain" change the memory layout of its
            weights in place, not their values.
        half: on CUDA, run in float16 where autocast thinks it safe.
        cpu_mode: on the CPU: "plain", "channels_last" (the same up to rounding), "bfloat16" (channels last with 8-bit
            mantissas: faster where the CPU has them in hardware, but not the same) or "auto", the fastest that is the
            same: channels last. See docs/inference.md for what was measured.

    Raises:
        InputError: the mode is unknown.
    """

    def __init__(self, model: Any, *, half: bool = False, cpu_mode: str = "plain") -> None:
        if cpu_mode not in CPU_MODES:
            raise InputError(f"cpu_mode: expected one of {', '.join(CPU_MODES)}, found {cpu_mode!r}")
        self.model = model
        self.on_cuda = model.device.type == "cuda"
        if cpu_mode == "auto":
            cpu_mode = "channels_last"
        self.mode = "cuda" if self.on_cuda else cpu_mode
        self._half = half
        self.batch_size = _LARGEST_BATCH_ON_CUDA if self.on_cuda else 1
        if self.mode in ("channels_last", "bfloat16"):
            model.to(memory_format=torch.channels_last)
        if self.mode == "bfloat16" or (self.on_cuda and half):
            keep_features_exact(model.backbone)

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images.

        Args:
            images: (h, w, 3) uint8, in the size and colour order that the network was trained on; those that are of
                one size go through it together.

        Returns:
            One an image, in its pixels.
        """
        found: list[Detections] = []
        # A batch is padded to its largest image, and the network sees what lies beside an image: one size a batch.
        for _, same_size in groupby(images, key=lambda image: image.shape):
            waiting = list(same_size)
            while waiting:
                batch = waiting[: self.batch_size]
                try:
                    found += self._run(batch)
                except torch.cuda.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    self.batch_size = len(batch) // 2
                    logging.getLogger(__name__).info(
                        "Out of GPU memory: %d images a batch now", self.batch_size
                    )
                    torch.cuda.empty_cache()
                    continue
                waiting = waiting[len(batch) :]
        return found

    def _run(self, batch: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        inputs = [
            {"image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))} for image in batch
        ]
        with self._precision():
            outputs = self.model.inference(inputs, do_postprocess=False)
        return [detections_of(output) for output in outputs]

    def _precision(self) -> AbstractContextManager[None]:
        if self.on_cuda and self._half:
            return torch.autocast("cuda", torch.float16)
        return torch.autocast("cpu", torch.bfloat16) if self.mode == "bfloat16" else nullcontext()


def detections_of(instances: Instances) -> Detections:
    """The output of ``GeneralizedRCNN.inference(..., do_postprocess=False)`` for one image, in the same pixels."""
    height, width = instances.image_size
    boxes = instances.pred_boxes.tensor.float().cpu().numpy()
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    masks = instances.pred_masks
    masks = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Detections(
        height,
        width,
        boxes[inside],
        instances.pred_classes.cpu().numpy()[inside],
        instances.scores.float().cpu().numpy()[inside],
        masks.float().cpu().numpy()[inside],
    )
