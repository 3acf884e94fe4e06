"""From one dataset dict to one training sample, touching only what its crop needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils, get_detection_dataset_dicts
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from detectron2.utils import comm
from numpy.typing import NDArray

from bccd_d2.data.augmentation import RandomRot90, build_stain_augmentation
from bccd_d2.data.copy_paste import build_copy_paste
from bccd_d2.data.crop import CropResizeTransform, RandomZoomCrop
from bccd_d2.data.label_map import (
    CellInput,
    ImageInstances,
    instances_from_label_map,
    resize_labels,
    split_ignored,
)
from bccd_d2.data.loader import stop_opencv_threads_at_fork, use_one_opencv_thread_in_workers
from bccd_d2.data.pipeline import PRESETS, build_pipeline
from bccd_d2.data.preprocessing import ImagePreprocessor, resize_image, scaled_size
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.errors import InputError

_logger = logging.getLogger(__name__)
# Masks as large as their cell are a tenth of the decoded image: half a megabyte for 70 cells.
_MASK_CACHE_BYTES = 256 * 2**20
# An instance is kept as long as crop and augmentations leave this share of its area.
MIN_VISIBLE = 0.1


class MemoryCache:
    """Values by key, until they take ``limit`` bytes; then the cache stays as it is.

    Images are drawn evenly, so a full cache of a third of them serves a third of the draws. Making room for the
    latest, as least-recently-used caches do, would serve fewer, and none where they come in the same order again.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._values: dict[str, Any] = {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of ``key``; made by ``make()``, whose result has an ``nbytes``, where it is not there."""
        if key in self._values:
            return self._values[key]
        value = make()
        if self.size + value.nbytes <= self.limit:
            self._values[key] = value
            self.size += value.nbytes
        return value


class BCCDDatasetMapper:
    """Maps a Detectron2 dataset dict to what Detectron2's stock models take.

    In training: a random crop of the native image with the instances it shows, resized, stain-normalized with the
    statistics of the whole image (``stain_measure``), augmented. In testing: the whole image, the same resizing and
    stain step, nothing random and no annotations; with ``test_diameter`` images whose cell diameter is known are
    resized so that it becomes this, in network pixels at scale 1.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        preprocessor: ImagePreprocessor,
        crop: RandomZoomCrop,
        augmentations: Sequence[T.Augmentation],
        stain_measure: ReinhardNormalizer | None,
        image_cache: MemoryCache,
        test_diameter: float = 0.0,
    ) -> None:
        self.is_train = is_train
        self.preprocessor = preprocessor
        self.crop = crop
        self.augmentations = T.AugmentationList(augmentations)
        self.stain_measure = stain_measure
        self.test_diameter = test_diameter
        self._images = image_cache
        self._masks = MemoryCache(_MASK_CACHE_BYTES)
        self._statistics: dict[str, StainStatistics | None] = {}
        stop_opencv_threads_at_fork()
        if is_train:
            _logger.info("training crops: %s, then %s", crop, self.augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments from ``INPUT``; copy-paste reads the data sets of ``DATASETS.TRAIN``."""
        options = cfg.INPUT.AUGMENTATION
        preset = PRESETS[options.PRESET]
        zoom = tuple(options.ZOOM) or (preset.zoom if not options.PIPELINE else (1.0, 1.0))
        crop_size = list(cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else None
        augmentations: list[T.Augmentation] = []
        stain_measure = None
        if is_train:
            if cfg.INPUT.COPY_PASTE.ENABLED:
                dicts = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=True)
                augmentations.append(build_copy_paste(cfg, dicts))
            stain = build_stain_augmentation(cfg)
            if stain is not None:
                augmentations.append(stain)
            if augmentations:
                stain_measure = ReinhardNormalizer.from_config(cfg)
            if cfg.INPUT.RANDOM_FLIP in ("horizontal", "both"):
                augmentations.append(T.RandomFlip())
            if cfg.INPUT.RANDOM_FLIP in ("vertical", "both"):
                augmentations.append(T.RandomFlip(horizontal=False, vertical=True))
            if cfg.INPUT.RANDOM_FLIP == "both":
                augmentations.append(RandomRot90())
            pipeline = build_pipeline(options.PIPELINE or preset.pipeline, cfg.INPUT.FORMAT)
            if pipeline is not None:
                augmentations.append(pipeline)
        return {
            "is_train": is_train,
            "preprocessor": ImagePreprocessor.from_config(cfg),
            "crop": RandomZoomCrop(crop_size, cfg.INPUT.SCALE, zoom, tuple(options.CELL_DIAMETERS) or None),
            "augmentations": augmentations,
            "stain_measure": stain_measure,
            "image_cache": _image_cache(cfg) if is_train else MemoryCache(0),
            "test_diameter": cfg.INPUT.CELL_DIAMETER if options.CELL_DIAMETERS else 0.0,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one image; ``dataset_dict`` is left as it is.

        Returns the dict without its annotations, with ``image``, a (3, h, w) uint8 tensor in ``INPUT.FORMAT``, and in
        training ``instances`` with ``gt_boxes``, ``gt_classes`` and ``gt_masks``, in pixels of ``image``. ``height``
        and ``width`` stay those of the native image. Where the crop shows regions marked ``iscrowd``, ``ignore_mask``,
        an (h, w) bool tensor, is True on their pixels that belong to no instance. ``unlabeled_classes`` stay, and
        ``unlabeled_sizes`` become pixels of the resized crop, see :mod:`bccd_d2.modeling.partial_labels`.

        Raises InputError where the image or an annotation cannot be used.
        """
        use_one_opencv_thread_in_workers()
        sample = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        if not self.is_train:
            sample["image"] = self.image_tensor(self._read(sample), dataset_dict.get("cell_diameter", 0.0))
            return sample
        crop, augmented = self.take_crop(dataset_dict)
        self.augmentations(augmented)
        sample["image"] = _as_tensor(augmented.image)
        labels, ignored = split_ignored(augmented.sem_seg)
        sample["instances"] = instances_from_label_map(
            labels, augmented.classes, MIN_VISIBLE * augmented.areas, augmented.box_scales
        )
        if ignored is not None:
            sample["ignore_mask"] = torch.from_numpy(ignored)
        if "unlabeled_sizes" in sample:
            sample["unlabeled_sizes"] = [size * crop.area_scale**0.5 for size in sample["unlabeled_sizes"]]
        return sample

    def take_crop(self, dataset_dict: Mapping[str, Any]) -> tuple[CropResizeTransform, CellInput]:
        """Draw a window of an image, and the resized crop with the instances that it shows, for the augmentations.

        Raises InputError where the image or an annotation cannot be used.
        """
        name = dataset_dict["file_name"]
        image = self._read(dict(dataset_dict))
        height, width = image.shape[:2]
        found = self._masks.get(
            name,
            lambda: ImageInstances.from_annotations(dataset_dict.get("annotations", ()), height, width, name),
        )
        cell_diameter = dataset_dict.get("cell_diameter", 0.0) if self.crop.cell_diameters else 0.0
        crop = self.crop.get_transform(image, cell_diameter)
        labels = found.label_map(crop.x, crop.y, crop.width, crop.height, MIN_VISIBLE)
        return crop, CellInput(
            crop.apply_image(image),
            resize_labels(labels, crop.new_height, crop.new_width),
            classes=found.cells.classes,
            areas=found.areas * crop.area_scale,
            area_scale=crop.area_scale,
            stain_statistics=self._stain_statistics(name, image),
            box_scales=found.box_scales,
            cell_diameter=cell_diameter * crop.area_scale**0.5,
        )

    def image_tensor(self, image: NDArray[np.uint8], cell_diameter: float = 0.0) -> torch.Tensor:
        """Prepare a whole native image, (H, W, 3) uint8 in ``INPUT.FORMAT``, as a test sample's: (3, h, w) uint8."""
        statistics = self.preprocessor.colors.statistics(image)
        if self.test_diameter and cell_diameter:
            magnification = self.test_diameter / cell_diameter
            image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], magnification))
        return _as_tensor(self.preprocessor(image, statistics))

    def _read(self, sample: dict[str, Any]) -> NDArray[np.uint8]:
        """The native image; ``sample`` gets its height and width where it has none."""
        name = sample["file_name"]
        image = self._images.get(name, lambda: self._read_file(name))
        try:
            detection_utils.check_image_size(sample, image)
        except detection_utils.SizeMismatchError as error:
            raise InputError(f"{name}: {error}") from error
        return image

    def _read_file(self, name: str) -> NDArray[np.uint8]:
        """In training with the white balance of the whole image; in testing the preprocessor does it."""
        image = self.preprocessor.read(name)
        return self.preprocessor.colors.balance(image) if self.is_train else image

    def _stain_statistics(self, name: str, image: NDArray[np.uint8]) -> StainStatistics | None:
        if self.stain_measure is None:
            return None
        if name not in self._statistics:
            self._statistics[name] = self.stain_measure.statistics(image)
        return self._statistics[name]


def _image_cache(cfg: CfgNode) -> MemoryCache:
    """One in each process that reads images: the loader's workers, of each process that trains on this machine."""
    readers = max(1, cfg.DATALOADER.NUM_WORKERS) * comm.get_local_size()
    return MemoryCache(cfg.INPUT.CACHE_MB * 2**20 // readers)


def _as_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
