"""The figures of the data set of a configuration, drawn by :mod:`bccd_d2.reporting.data_figures`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from fvcore.transforms.transform import NoOpTransform, TransformList
from matplotlib.figure import Figure
from tqdm import tqdm

from bccd_d2.data.augmentation import AlbumentationsTransform, Rot90Transform
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.label_map import ImageInstances
from bccd_d2.data.loader import TorchvisionCells, numpy_seeded
from bccd_d2.data.pipeline import PRESETS
from bccd_d2.data.preprocessing import resize_image, scaled_size
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from bccd_d2.reporting import data_figures as figures
from bccd_d2.reporting.anchors import best_anchors
from bccd_d2.structures.dataset_files import dataset_files, default_root

_GRID_IMAGES = 8
_STAIN_ROWS = 3
_STAIN_IMAGES = 60
_PATCHES = 6
_DRAWS = 6


class DataPreviews:
    """Draws the figures of the first of ``DATASETS.TRAIN``, which is registered; ``image`` is the index of the one
    shown alone.

    Raises :class:`InputError` if there is no such image.
    """

    def __init__(self, cfg: CfgNode, image: int = 0, seed: int = 0) -> None:
        self.cfg, self.seed = cfg, seed
        self.name = cfg.DATASETS.TRAIN[0]
        self.dicts: list[dict[str, Any]] = DatasetCatalog.get(self.name)
        if not 0 <= image < len(self.dicts):
            raise InputError(f"--image {image}: {self.name} has images 0 to {len(self.dicts) - 1}")
        self.record = self.dicts[image]

    def figures(self) -> dict[str, Callable[[], Figure]]:
        """What draws each figure, by its name."""
        return {
            "training_images": self.split,
            "stain_normalization": self.reinhard,
            "annotated_cells": self.mask_overlay,
            "training_crops": self.patches,
            "augmentations": self.augmentations,
            "anchors": self.anchors,
            "dataset_item": self.dataset_item,
        }

    def split(self) -> Figure:
        """Some training images with their cells, and the size of each part."""
        shown = _evenly(self.dicts, _GRID_IMAGES)
        counts = {}
        used, root = (*self.cfg.DATASETS.TRAIN, *self.cfg.DATASETS.TEST), self.cfg.DATASETS.ROOT
        for name in dict.fromkeys((*used, *dataset_files(Path(root or default_root())))):
            dicts = self.dicts if name == self.name else DatasetCatalog.get(name)
            counts[name] = (len(dicts), sum(len(_cells(record)) for record in dicts))
        images = [_read(record) for record in shown]
        labels = [_label_map(record) for record in shown]
        return figures.split_grid(images, labels, [_title(r) for r in shown], self.name, counts)

    def reinhard(self) -> Figure:
        """Stain normalization of some images, and of the mean colours of up to 60."""
        cfg = self.cfg.clone()
        cfg.INPUT.FORMAT = "BGR"
        normalizer = ReinhardNormalizer.from_config(cfg)
        found: list[tuple[dict[str, Any], StainStatistics]] = []
        after = []
        for record in tqdm(_evenly(self.dicts, _STAIN_IMAGES), desc="stain", unit="image", leave=False):
            image = _read(record)
            statistics = normalizer.statistics(image)
            moved = normalizer.statistics(normalizer.apply(image, statistics))
            if statistics is not None and moved is not None:
                found.append((record, statistics))
                after.append(moved)
        if not found:
            raise InputError(f"{self.name}: found no cells to measure the stain of in any image")
        rows = []
        # From the darkest to the lightest stain.
        for record, statistics in _evenly(sorted(found, key=lambda pair: pair[1].mean[0]), _STAIN_ROWS):
            image = _read(record)
            mask = normalizer.foreground_mask(image, statistics)
            foreground = np.where(mask[..., None], image, np.uint8(255))
            rows.append((_title(record), image, foreground, normalizer.apply(image, statistics)))
        return figures.reinhard_preview(rows, [one for _, one in found], after, normalizer.target)

    def mask_overlay(self) -> Figure:
        """The annotated cells of the image."""
        return figures.mask_overlay(_read(self.record), _label_map(self.record), _title(self.record))

    def patches(self) -> Figure:
        """Training crops of the image without augmentation."""
        mapper = self._mapper("none")
        with numpy_seeded(self.seed):
            crops = [mapper.take_crop(self.record) for _ in range(_PATCHES)]
        return figures.patch_preview(
            _read(self.record),
            [(crop.x, crop.y, crop.width, crop.height) for crop, _ in crops],
            [self._bgr(taken.image) for _, taken in crops],
            [taken.sem_seg for _, taken in crops],
            _title(self.record),
        )

    def augmentations(self) -> Figure:
        """One crop, and random augmentations of it by each preset, without changes of magnification."""
        with numpy_seeded(self.seed):
            _, original = self._mapper("none").take_crop(self.record)
        rows = {}
        for preset in PRESETS:
            if preset == "none":
                continue
            mapper = self._mapper(preset)
            draws = []
            for number in range(_DRAWS):
                taken = copy.copy(original)
                with numpy_seeded(self.seed, number):
                    done = mapper.augmentations(taken)
                draws.append((self._bgr(taken.image), taken.sem_seg, describe(done)))
            rows[preset] = draws
        return figures.augmentation_preview((self._bgr(original.image), original.sem_seg), rows)

    def anchors(self) -> Figure:
        """The configured anchors that overlap the annotated boxes of the image most."""
        native, scale = _read(self.record), self.cfg.INPUT.SCALE
        image = resize_image(native, *scaled_size(native.shape[0], native.shape[1], scale))
        boxes = np.array([one["bbox"] for one in _cells(self.record)], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        best = best_anchors(self.cfg, boxes * scale, *image.shape[:2])
        threshold = max(self.cfg.MODEL.RPN.IOU_THRESHOLDS)
        return figures.anchor_preview(image, boxes * scale, best, _title(self.record), threshold)

    def dataset_item(self) -> Figure:
        """Item 0 of the training set in torchvision's format."""
        mapper = BCCDDatasetMapper(self.cfg, is_train=True)
        with numpy_seeded(self.seed):
            image, target = TorchvisionCells(self.dicts, mapper, self.cfg.INPUT.FORMAT)[0]
        return figures.dataset_item(image, target, list(self.cfg.DATASETS.CLASS_NAMES))

    def _mapper(self, preset: str) -> BCCDDatasetMapper:
        cfg = self.cfg.clone()
        cfg.INPUT.AUGMENTATION.PRESET, cfg.INPUT.AUGMENTATION.PIPELINE = preset, []
        return BCCDDatasetMapper(cfg, is_train=True)

    def _bgr(self, image: np.ndarray) -> np.ndarray:
        return image if self.cfg.INPUT.FORMAT == "BGR" else image[..., ::-1]


def describe(transforms: TransformList) -> str:
    """Names of the transforms that did something, in order."""
    names = []
    for transform in transforms.transforms:
        if isinstance(transform, AlbumentationsTransform):
            names += [type(step.transform).__name__ for step in transform.steps]
        elif isinstance(transform, Rot90Transform):
            names += [f"Rot90 x{transform.turns}"] if transform.turns else []
        elif not isinstance(transform, NoOpTransform):
            names.append(type(transform).__name__.removesuffix("Transform"))
    return ", ".join(names) or "nothing"


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` items, evenly spread, the first and the last among them."""
    index = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[k] for k in index]


def _cells(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [annotation for annotation in record["annotations"] if not annotation.get("iscrowd", 0)]


def _read(record: dict[str, Any]) -> np.ndarray:
    return read_image(record["file_name"], "BGR")


def _label_map(record: dict[str, Any]) -> np.ndarray:
    height, width = record["height"], record["width"]
    found = ImageInstances.from_annotations(record["annotations"], height, width, record["file_name"])
    return found.label_map(0, 0, width, height)


def _title(record: dict[str, Any]) -> str:
    stem = Path(record["file_name"]).stem
    return stem if len(stem) <= 20 else f"{stem[:8]}...{stem[-8:]}"
