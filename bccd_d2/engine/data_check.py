"""What a data set must have to be trained on and evaluated, checked before the first iteration."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import albumentations as A  # noqa: N812  its own habit
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from bccd_d2.conversion.pairs import list_names
from bccd_d2.data.augmentation import AlbumentationsAugmentation, leaves
from bccd_d2.data.loader import numpy_seeded
from bccd_d2.data.pipeline import build_pipeline
from bccd_d2.data.registration import dataset_dicts
from bccd_d2.errors import InputError
from bccd_d2.io.coco_images import image_faults

_logger = logging.getLogger(__name__)


def check_data(cfg: CfgNode, *, training: bool) -> None:
    """Refuse data that nothing can be learned from; turn off evaluations that are impossible, with a warning.

    ``cfg`` is not frozen and has ``DATASETS.CLASS_NAMES``; of a training ``DATASETS.TEST`` loses data sets without
    cells and, when none is left, the periods of evaluation and validation loss become 0. Raises InputError that names
    the file or key.
    """
    if training:
        _check_training(cfg)
        _check_pipeline(cfg)
    used = dict.fromkeys([*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST])
    for name in used:
        _check_images(name)
    kept = [name for name in cfg.DATASETS.TEST if _can_be_evaluated(cfg, name, training)]
    if not kept and not training:
        raise InputError("DATASETS.TEST is (): expected the name of a data set to evaluate")
    cfg.DATASETS.TEST = tuple(kept)
    if not kept:
        _say("nothing is evaluated: DATASETS.TEST has no data set with cells")
        cfg.TEST.EVAL_PERIOD = cfg.TEST.VALIDATION_LOSS_PERIOD = cfg.TEST.PATIENCE = 0


def _check_training(cfg: CfgNode) -> None:
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is (): expected the name of a data set to train on")
    if cfg.SOLVER.IMS_PER_BATCH % comm.get_world_size():
        number = comm.get_world_size()
        raise InputError(
            f"SOLVER.IMS_PER_BATCH: found {cfg.SOLVER.IMS_PER_BATCH}, expected a multiple of the {number} processes"
        )
    dicts = dataset_dicts(cfg.DATASETS.TRAIN)
    files = ", ".join(_file(name) for name in dict.fromkeys(cfg.DATASETS.TRAIN))
    annotations = sum(len(record["annotations"]) for record in dicts)
    counts = _cells_by_class(dicts)
    if not dicts:
        raise InputError(f"{files}: found no images, expected images to train on")
    if not annotations:
        raise InputError(f"{files}: found {len(dicts)} images without annotations: nothing to learn from")
    if not counts:
        raise InputError(f"{files}: all {annotations} annotations have iscrowd 1: nothing to learn from")
    lacking = [name for index, name in enumerate(cfg.DATASETS.CLASS_NAMES) if not counts[index]]
    if lacking:
        _say(f"{files}: no {', '.join(lacking)} among the cells: the model will not learn to find them")
    if cfg.INPUT.CROP.ENABLED:
        height, width = cfg.INPUT.CROP.SIZE
        small = [r for r in dicts if r["height"] < height or r["width"] < width]
        if small:
            smallest = min(small, key=lambda record: record["height"] * record["width"])
            _say(
                f"INPUT.CROP.SIZE is [{height}, {width}], but {len(small)} of {len(dicts)} training images are smaller "
                f"(one of {smallest['height']}x{smallest['width']}): their crops are as large as the image"
            )


def _check_images(name: str) -> None:
    images = [
        {**{key: record[key] for key in ("file_name", "height", "width")}, "id": record["image_id"]}
        for record in DatasetCatalog.get(name)
    ]
    faults = list(image_faults(images, Path()))
    if faults:
        headline = f"{_file(name)}: images that cannot be used ({len(faults)} of {len(images)})"
        raise InputError(list_names(headline, faults))


def _check_pipeline(cfg: CfgNode) -> None:
    """Try each transform of a pipeline of the user's; with a probability below 1 it would fail some time later."""
    pipeline = build_pipeline(cfg.INPUT.AUGMENTATION.PIPELINE, cfg.INPUT.FORMAT)
    if pipeline is None:
        return
    with numpy_seeded(0):
        image = np.random.randint(0, 256, (*cfg.INPUT.CROP.SIZE, 3), np.uint8)  # noqa: NPY002  seeded here
        for leaf in leaves(pipeline.pipeline):
            leaf.p = 1.0
            try:
                AlbumentationsAugmentation(A.Compose([leaf])).get_transform(image)
            except InputError as error:
                raise InputError(f"{type(leaf).__name__}: {error}") from error


def _can_be_evaluated(cfg: CfgNode, name: str, training: bool) -> bool:
    dicts = DatasetCatalog.get(name)
    counts = _cells_by_class(dicts)
    if not dicts or not counts:
        what = f"{_file(name)}: found no {'cells' if dicts else 'images'}"
        if not training and not dicts:
            raise InputError(f"{what}, expected images to evaluate")
        _say(f"{what}: {name} is {'not evaluated' if training else 'evaluated without ground truth'}")
        return not training
    most = max(sum(not one.get("iscrowd") for one in record["annotations"]) for record in dicts)
    if most > cfg.TEST.DETECTIONS_PER_IMAGE:
        _say(
            f"{_file(name)}: an image has {most} cells, but TEST.DETECTIONS_PER_IMAGE is "
            f"{cfg.TEST.DETECTIONS_PER_IMAGE}: the model cannot find them all; raise it (--max-detections of "
            "tools/predict.py and tools/evaluate.py)"
        )
    lacking = [one for index, one in enumerate(cfg.DATASETS.CLASS_NAMES) if not counts[index]]
    if lacking:
        _say(
            f"{_file(name)}: no {', '.join(lacking)} among the cells: no ground truth for these classes in {name}"
        )
    return True


def _cells_by_class(dicts: Sequence[dict[str, Any]]) -> Counter[int]:
    """Number of single cells by class index."""
    return Counter(
        one["category_id"] for record in dicts for one in record["annotations"] if not one.get("iscrowd")
    )


def _file(name: str) -> str:
    return str(getattr(MetadataCatalog.get(name), "json_file", name))


def _say(message: str) -> None:
    if comm.is_main_process():
        _logger.warning(message)
