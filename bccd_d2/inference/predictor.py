"""Finds cells with a trained Detectron2 model: from one image to its cells."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, ROIMasks
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from bccd_d2.config import check_device, load_config
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.errors import InputError
from bccd_d2.inference.finder import CellFinder, detections_in
from bccd_d2.inference.options import AUTO, PredictionOptions
from bccd_d2.inference.tta import TestTimeAugmentation, predict_images
from bccd_d2.modeling.roi_heads import keep_features_exact
from bccd_d2.modeling.weights import fold_batch_norm, load_weights
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

CpuMode = Literal["plain", "channels_last", "bfloat16"]
_LARGEST_BATCH_ON_CUDA = 8
# Proposals before and after non-maximum suppression where an image shows a few dozen cells: half the time of a small
# image is spent on the usual thousand.
_FEW_PROPOSALS = (300, 100)


class Network:
    """A ``GeneralizedRCNN`` in evaluation mode and how it is run.

    On CUDA, ``half`` runs it in float16 where autocast thinks it safe. On the CPU, ``cpu_mode`` "channels_last" is the
    same as "plain" up to rounding, and "bfloat16" (channels last, 8-bit mantissas) is faster where the CPU has it in
    hardware, but not the same (docs/inference.md); both change the memory layout of the weights in place.
    ``batch_size`` images go through the model together: 1 on the CPU, which is no faster with more, and at most 8 on a
    GPU, halved whenever its memory does not suffice.
    """

    def __init__(self, model: Any, *, half: bool = False, cpu_mode: CpuMode = "plain") -> None:
        self.model = model
        self.on_cuda = model.device.type == "cuda"
        self.mode = "cuda" if self.on_cuda else cpu_mode
        self._half = half
        self.batch_size = _LARGEST_BATCH_ON_CUDA if self.on_cuda else 1
        if self.mode in ("channels_last", "bfloat16"):
            model.to(memory_format=torch.channels_last)
        if self.mode == "bfloat16" or (self.on_cuda and half):
            keep_features_exact(model.backbone)

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images (h, w, 3) uint8, in the network's size and colour order, each in its pixels."""
        found: list[Detections] = []
        # A batch is padded to its largest image, and the network sees the padding: one size per batch.
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
                        "Out of GPU memory: %d images per batch now", self.batch_size
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
    masks = instances.pred_masks
    masks = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    return detections_in(
        height,
        width,
        instances.pred_boxes.tensor.float().cpu().numpy(),
        instances.pred_classes.cpu().numpy(),
        instances.scores.float().cpu().numpy(),
        masks.float().cpu().numpy(),
    )


class BCCDPredictor(CellFinder):
    """Finds the cells of images of any size with a trained model.

        predictor = BCCDPredictor("output/config.yaml", "output/model_final.pth")
        cells = predictor(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.pred_masks.shape)

    ``config`` is a configuration or its YAML file; ``weights``, ``device`` and ``max_detections`` take the place of its
    ``MODEL.WEIGHTS``, ``MODEL.DEVICE`` and ``TEST.DETECTIONS_PER_IMAGE``. ``options`` are used where a call is given
    none; ``None`` estimates the diameter of the red cells for a model that was trained on images of several
    magnifications, and takes images as they are for others. For ``cpu_mode`` see :class:`Network`.

    Raises :class:`InputError` if configuration or checkpoint cannot be read or the device is not there.
    """

    network: Network

    def __init__(
        self,
        config: CfgNode | str | Path,
        weights: str | Path | None = None,
        options: PredictionOptions | None = None,
        *,
        device: str | None = None,
        cpu_mode: CpuMode = "channels_last",
        max_detections: int | None = None,
    ) -> None:
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        cfg.defrost()
        if device is not None:
            cfg.MODEL.DEVICE = device
        if max_detections is not None:
            allow_detections(cfg, max_detections)
        check_device(cfg.MODEL.DEVICE, "MODEL.DEVICE" if device is None else "--device")
        names = list(cfg.DATASETS.CLASS_NAMES) or [
            f"class {index}" for index in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        ]
        self.model = build_model(cfg)
        load_weights(self.model, str(weights or cfg.MODEL.WEIGHTS))
        self.model.eval()
        fold_batch_norm(self.model)
        if options is None:
            options = PredictionOptions(diameter=AUTO if cfg.INPUT.AUGMENTATION.CELL_DIAMETERS else None)
        super().__init__(
            Network(self.model, half=cfg.SOLVER.AMP.ENABLED, cpu_mode=cpu_mode),
            names,
            ImagePreprocessor.from_config(cfg),
            most_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            training_diameter=cfg.INPUT.CELL_DIAMETER,
            training_microns=cfg.INPUT.MICRONS_PER_PIXEL,
            augmentation=augmentation_from_config(cfg),
            options=options,
        )

    def __call__(self, image: NDArray[np.uint8], options: PredictionOptions | None = None) -> Instances:
        """Predict one image (height, width, 3) uint8, BGR as OpenCV reads it, with masks of the image's size.

        Returns on the CPU, in native pixels, best score first: ``pred_boxes`` (N, 4) xyxy, ``scores`` (N,),
        ``pred_classes`` (N,) and ``pred_masks`` (N, height, width) bool.
        """
        return cells_to_instances(self.predict_cells(image, options))

    def _detect_few(self, image: NDArray[np.uint8]) -> Detections:
        rpn = self.model.proposal_generator
        before = (rpn.pre_nms_topk[False], rpn.post_nms_topk[False])
        rpn.pre_nms_topk[False], rpn.post_nms_topk[False] = map(min, before, _FEW_PROPOSALS)
        try:
            return super()._detect_few(image)
        finally:
            rpn.pre_nms_topk[False], rpn.post_nms_topk[False] = before


def allow_detections(cfg: CfgNode, number: int) -> None:
    """Let a model return ``number`` cells per image, and propose no fewer; an InputError if that is not above 0."""
    if number < 1:
        raise InputError(f"--max-detections: expected 1 or more, found {number}")
    cfg.TEST.DETECTIONS_PER_IMAGE = number
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = max(cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, 2 * number)
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = max(cfg.MODEL.RPN.POST_NMS_TOPK_TEST, 2 * number)


class CellModel(torch.nn.Module):
    """A ``GeneralizedRCNN`` as Detectron2's evaluation loop wants it: predicts mapped images as :class:`BCCDPredictor`
    does.

    The network runs in its plain mode: evaluation in the middle of a training must not change the layout of its
    weights, and the numbers of a run must not depend on the CPU it was evaluated on.
    """

    def __init__(self, cfg: CfgNode, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self._augmentation = augmentation_from_config(cfg)
        self._most_detections = cfg.TEST.DETECTIONS_PER_IMAGE

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict dicts with ``image`` ((3, h, w) uint8, prepared), ``height`` and ``width`` of the native image.

        Returns dicts with ``cells`` (``Cells``) and the same as ``instances`` (Detectron2's), in native pixels, best
        score first.
        """
        network = Network(self.model)
        images = [sample["image"].permute(1, 2, 0).cpu().numpy() for sample in batched_inputs]
        sizes = [(sample["height"], sample["width"]) for sample in batched_inputs]
        found = predict_images(network, images, sizes, self._augmentation, self._most_detections)
        return [{"cells": cells, "instances": cells_to_instances(cells)} for cells in found]


def augmentation_from_config(cfg: CfgNode) -> TestTimeAugmentation | None:
    """What ``TEST.TTA`` says; ``None`` where it is not enabled."""
    node = cfg.TEST.TTA
    return TestTimeAugmentation(scales=tuple(node.SCALES)) if node.ENABLED else None


def cells_to_instances(cells: Cells) -> Instances:
    """Detectron2's form of the cells of an image on the CPU, as :meth:`BCCDPredictor.__call__` returns it."""
    return Instances(
        (cells.height, cells.width),
        pred_boxes=Boxes(torch.from_numpy(cells.boxes).float()),
        scores=torch.from_numpy(cells.scores).float(),
        pred_classes=torch.from_numpy(cells.classes),
        pred_masks=torch.from_numpy(cells.full_masks()),
    )
