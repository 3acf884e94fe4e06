"""From one dataset dict to one training sample, touching only what its crop needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from bccd_d2.data.augmentation import AlbumentationsAugmentation, RandomRot90, build_pipeline
from bccd_d2.data.cache import LRUCache
from bccd_d2.data.label_map import InstanceRuns, instances_from_label_map, resize_labels
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.data.stain import StainStatistics
from bccd_d2.errors import InputError

_logger = logging.getLogger(__name__)
_FLIPS = {
    "none": (),
    "horizontal": ("horizontal",),
    "vertical": ("vertical",),
    "both": ("horizontal", "vertical"),
}


class BCCDDatasetMapper:
    """Maps a Detectron2 dataset dict to what Detectron2's stock models take.

    In training: a random crop of the native image, resized, stain-normalized with the statistics of the whole
    image, augmented, with the instances it shows. In testing: the whole image, the same resizing and stain
    step, nothing random and no annotations.

    Args:
        is_train: training or testing.
        preprocessor: resizing and stain normalization.
        crop: what picks the crop, in native pixels; None takes the whole image.
        augmentations: applied to the resized crop and its label map, in training.
        min_visible: an instance is kept as long as crop and augmentations leave this share of its area, in
            [0, 1].
        cache_bytes: decoded images kept in memory by each process that maps, in bytes.

    Raises:
        InputError: ``min_visible`` is out of range.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        preprocessor: ImagePreprocessor,
        crop: T.Augmentation | None,
        augmentations: Sequence[T.Augmentation],
        min_visible: float,
        cache_bytes: int,
    ) -> None:
        if not 0 <= min_visible <= 1:
            raise InputError(f"INPUT.CROP.MIN_VISIBLE is {min_visible}; expected a share in [0, 1]")
        self.is_train = is_train
        self.preprocessor = preprocessor
        self.crop = crop
        self.augmentations = T.AugmentationList(augmentations)
        self.min_visible = min_visible
        # Separate, so that images never push out the runs, which are fifty times smaller.
        self._images = LRUCache(cache_bytes)
        self._runs = LRUCache(cache_bytes // 20)
        self._statistics: dict[str, StainStatistics | None] = {}
        self._threads_set = False
        _logger.info("%s: crop %s, then %s", "training" if is_train else "testing", crop, self.augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments from ``INPUT``."""
        crop: T.Augmentation | None = None
        augmentations: list[T.Augmentation] = []
        if is_train:
            if cfg.INPUT.RANDOM_FLIP not in _FLIPS:
                raise InputError(
                    f"INPUT.RANDOM_FLIP is {cfg.INPUT.RANDOM_FLIP!r}; expected one of {', '.join(_FLIPS)}"
                )
            if cfg.INPUT.CROP.ENABLED:
                crop = T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)
            for direction in _FLIPS[cfg.INPUT.RANDOM_FLIP]:
                augmentations.append(T.RandomFlip(**{"horizontal": False, direction: True}))
            if cfg.INPUT.ROT90:
                augmentations.append(RandomRot90())
            pipeline = build_pipeline(cfg.INPUT.AUGMENTATION.PRESET, cfg.INPUT.AUGMENTATION.PIPELINE)
            if pipeline:
                augmentations.append(AlbumentationsAugmentation(pipeline, cfg.INPUT.FORMAT))
        return {
            "is_train": is_train,
            "preprocessor": ImagePreprocessor(cfg),
            "crop": crop,
            "augmentations": augmentations,
            "min_visible": cfg.INPUT.CROP.MIN_VISIBLE,
            "cache_bytes": cfg.INPUT.CACHE_MB * 2**20 if is_train else 0,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one image.

        Args:
            dataset_dict: in Detectron2's dataset format; it is left as it is.

        Returns:
            The dict without its annotations, with ``image``, a (3, h, w) uint8 tensor in ``INPUT.FORMAT``,
            and in training ``instances`` with ``gt_boxes``, ``gt_classes`` and ``gt_masks``, in pixels of
            ``image``. ``height`` and ``width`` stay those of the native image.

        Raises:
            InputError: the image or an annotation cannot be used.
        """
        self._use_one_thread_in_workers()
        sample = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        name = sample["file_name"]
        image = self._images.get(name, lambda: self.preprocessor.read(name))
        try:
            detection_utils.check_image_size(sample, image)
        except detection_utils.SizeMismatchError as error:
            raise InputError(f"{name}: {error}") from error
        if name not in self._statistics:
            self._statistics[name] = self.preprocessor.statistics(image)
        statistics = self._statistics[name]
        if not self.is_train:
            sample["image"] = _as_tensor(self.preprocessor(image, statistics))
            return sample

        runs = self._runs.get(
            name,
            lambda: InstanceRuns.from_annotations(
                dataset_dict.get("annotations", ()), image.shape[0], image.shape[1], name
            ),
        )
        x, y, width, height = self._window(image)
        labels = runs.label_map(x, y, width, height, self.min_visible)
        crop = self.preprocessor(image[y : y + height, x : x + width], statistics)
        labels = resize_labels(labels, *crop.shape[:2])

        augmented = T.AugInput(crop, sem_seg=labels)
        self.augmentations(augmented)
        sample["image"] = _as_tensor(augmented.image)
        min_pixels = runs.area * (self.min_visible * self.preprocessor.scale**2)
        sample["instances"] = instances_from_label_map(augmented.sem_seg, runs.classes, min_pixels)
        return sample

    def image_tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Prepare a whole native image as a test sample's is.

        Args:
            image: (H, W, 3) uint8 in ``INPUT.FORMAT``.

        Returns:
            (3, h, w) uint8 tensor.
        """
        return _as_tensor(self.preprocessor(image, self.preprocessor.statistics(image)))

    def _window(self, image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
        """x, y, width and height of the crop, native pixels."""
        if self.crop is None:
            return 0, 0, image.shape[1], image.shape[0]
        crop = self.crop.get_transform(image)
        return crop.x0, crop.y0, crop.w, crop.h

    def _use_one_thread_in_workers(self) -> None:
        # Each worker's pool of OpenCV threads would fight the others' for the same cores.
        if not self._threads_set and get_worker_info() is not None:
            cv2.setNumThreads(1)
        self._threads_set = True


def _as_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
