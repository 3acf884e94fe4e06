"""torchvision's Mask R-CNN on this project's samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import numpy as np
import torch
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.samplers import TrainingSampler
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from baselines.detectron2_methods import own_options
from baselines.evaluator import DETECTIONS, Evaluator
from baselines.method import WARMUP_SHARE, Budget, Setting
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import TorchvisionCells
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.engine.setup import setup_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

SAMPLES = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
"""Whose crops and augmentations it is trained on: half the native size, the cheaper ones."""
# The rate is that of its references, 0.02 for 16 images, for 2.
RATE, MOMENTUM, WEIGHT_DECAY = 0.0025, 0.9, 0.0005
# Of its reference training's 26 epochs.
DROPS = (16 / 26, 22 / 26)
_WARMUP_FACTOR = 0.001


class TorchvisionMaskRCNN:
    """``torchvision.models.detection.MaskRCNN``, trained as torchvision's references train it."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        cfg = setup_config(SAMPLES, own_options(setting, folder), str(setting.data_root))
        self._format = cfg.INPUT.FORMAT
        self._preprocessor = ImagePreprocessor.from_config(cfg)
        self._device = torch.device(cfg.MODEL.DEVICE)
        self._model = build_model(cfg.MODEL.ROI_HEADS.NUM_CLASSES, setting.torchvision_weights)
        self._model.to(self._device)
        dicts = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=True)
        data = TorchvisionCells(dicts, BCCDDatasetMapper(cfg, is_train=True), self._format)
        self._batches: Iterator[Any] = iter(
            DataLoader(
                data,
                batch_size=cfg.SOLVER.IMS_PER_BATCH,
                sampler=TrainingSampler(len(data), seed=setting.seed),
                collate_fn=lambda samples: tuple(zip(*samples)),
            )
        )
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in self._trained)
        weights = setting.torchvision_weights
        start = f"R50-FPN, {weights.name}, frozen norms" if weights else "R18-FPN, random weights, batch norm"
        self.recipe = (
            f"torchvision's `MaskRCNN`, {start}; SGD {RATE}, momentum {MOMENTUM}, weight decay {WEIGHT_DECAY}, "
            f"divided by ten at 16/26 and 22/26 of the budget; {cfg.SOLVER.IMS_PER_BATCH} samples of "
            f"`{SAMPLES.name}` a step (crops of 512 px at half size, its augmentations); masks pasted as Detectron2 "
            "pastes them"
        )

    def train(self, budget: Budget, evaluator: Evaluator) -> None:
        """See :class:`baselines.method.Method`."""
        optimizer = torch.optim.SGD(self._trained, RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
        self._model.train()
        budget.start()
        done = False
        while not done:
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_factor(budget.share)
            images, targets = next(self._batches)
            losses = self._model(
                [image.to(self._device) for image in images],
                [{key: value.to(self._device) for key, value in target.items()} for target in targets],
            )
            loss = torch.stack(list(losses.values())).sum()
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at iteration {budget.iterations}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = budget.step(lambda: self._evaluated(evaluator))

    @torch.no_grad()
    def predict(self, image: NDArray[np.uint8]) -> Cells:
        """Cells of a native image, (height, width, 3) uint8 BGR."""
        prepared = self._preprocessor(image, self._preprocessor.colors.statistics(image))
        pixels = torch.from_numpy(np.ascontiguousarray(prepared[:, :, ::-1].transpose(2, 0, 1)))
        found = self._model([pixels.to(self._device).float() / 255])[0]
        boxes, labels, scores, masks = (
            found[key].cpu().numpy() for key in ("boxes", "labels", "scores", "masks")
        )
        height, width = prepared.shape[:2]
        # Class 0 is the background.
        cells = Detections(height, width, boxes, labels - 1, scores, masks[:, 0])
        return cells.resized(*image.shape[:2]).paste()

    def _evaluated(self, evaluator: Evaluator) -> dict[str, Any]:
        self._model.eval()
        found = evaluator(self.predict)
        self._model.train()
        return found


def build_model(classes: int, weights: Path | None) -> MaskRCNN:
    """The model without its resizing, which the samples have behind them, and without its pasting.

    torchvision pastes every mask into an image of its own, 4 GB for 500 of 1600x1200 px; ``masks`` are left as the
    network says them. ``weights`` are of torchvision's Mask R-CNN (COCO) or its ResNet-50 (ImageNet); norms are frozen
    then, and of the backbone the last three stages are trained. Without them it is a ResNet-18 with batch norm: the
    larger one would make a few dozen steps in minutes of a CPU.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50" if weights else "resnet18",
        weights=None,
        norm_layer=FrozenBatchNorm2d if weights else nn.BatchNorm2d,
        trainable_layers=3 if weights else 5,
    )
    model = MaskRCNN(backbone, classes + 1, box_detections_per_img=DETECTIONS, _skip_resize=True)
    if weights:
        _load(model, weights)
    model.transform.postprocess = lambda result, *_: result
    return model


def rate_factor(share: float) -> float:
    """What the learning rate is multiplied by when this share of the budget is used."""
    if share < WARMUP_SHARE:
        return _WARMUP_FACTOR + (1 - _WARMUP_FACTOR) * share / WARMUP_SHARE
    return math.prod(0.1 for drop in DROPS if share >= drop)


def _load(model: MaskRCNN, weights: Path) -> None:
    """All tensors that fit; heads of other classes stay random, as in torchvision's tutorial."""
    there, here = read_checkpoint(weights)["model"], model.state_dict()
    if not any(name.startswith("backbone.") for name in there):
        there = {f"backbone.body.{name}": tensor for name, tensor in there.items()}
    # Names of old files that are not here are renamed by torchvision's layers when they load them.
    offered = {name: t for name, t in there.items() if name not in here or t.shape == here[name].shape}
    left = model.load_state_dict(offered, strict=False).unexpected_keys
    if len(left) == len(offered):
        raise InputError(
            f"{weights}: no tensor in it fits: expected the state dict of torchvision's maskrcnn_resnet50_fpn or "
            "resnet50"
        )
    print(f"{weights}: {len(offered) - len(left)} of {len(there)} tensors taken")
