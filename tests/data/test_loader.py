import itertools
import os
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from torch.utils.data import DataLoader, Dataset

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import (
    TorchvisionCells,
    build_train_loader,
    stop_opencv_threads_at_fork,
    use_one_opencv_thread_in_workers,
)
from tests.data.shapes import dataset_dict, disc

NAME = "drawn_for_the_loader"


@pytest.fixture
def cfg(tmp_path):
    dicts = []
    for k in range(5):
        masks = [disc(90, 110, x, y, 9) for x in (20 + k, 60, 95) for y in (20, 60)]
        dicts.append(dataset_dict(tmp_path / f"{k}.png", masks, image_id=k))
    DatasetCatalog.register(NAME, lambda: dicts)
    cfg = get_bccd_cfg()
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.SEED = 42
    cfg.SOLVER.IMS_PER_BATCH = 3
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [48, 48]
    cfg.INPUT.AUGMENTATION.PRESET = "strong"
    cfg.INPUT.STAIN.JITTER_STD = 0.2
    yield cfg
    DatasetCatalog.remove(NAME)


def batches(cfg, workers, count=5):
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(cfg, BCCDDatasetMapper(cfg, is_train=True))
    return list(itertools.chain(*itertools.islice(iter(loader), count)))


def same(one, other):
    return [
        a["image_id"] == b["image_id"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_masks.tensor, b["instances"].gt_masks.tensor)
        and torch.equal(a["instances"].gt_classes, b["instances"].gt_classes)
        for a, b in zip(one, other, strict=True)
    ]


class ThreadsOfWorker(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        use_one_opencv_thread_in_workers()
        blurred = cv2.GaussianBlur(np.zeros((800, 800, 3), np.uint8), (9, 9), 0)
        return cv2.getNumThreads(), blurred.shape[0]


@pytest.mark.timeout(120)  # a thread pool that a worker inherits makes it wait forever
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_workers_have_one_opencv_thread_and_the_main_process_keeps_its_own():
    stop_opencv_threads_at_fork()
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        cv2.GaussianBlur(np.zeros((800, 800, 3), np.uint8), (9, 9), 0)  # starts the pool
        loader = DataLoader(ThreadsOfWorker(), num_workers=2, multiprocessing_context="fork")
        assert [(threads.item(), size.item()) for threads, size in loader] == [(1, 800)] * 2
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


@pytest.mark.timeout(240)
def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(cfg):
    expected = batches(cfg, 0)
    assert len(expected) == 15
    for workers in (0, 1, 3):
        assert all(same(expected, batches(cfg, workers)))
    cfg.SEED = 43
    assert not any(same(expected, batches(cfg, 0)))


def test_the_same_image_is_cropped_differently_each_time(cfg):
    samples = [sample for sample in batches(cfg, 0, 10) if sample["image_id"] == 0]
    assert len({sample["image"].numpy().tobytes() for sample in samples}) == len(samples) == 6


def test_images_of_rare_classes_are_repeated_as_their_frequency_asks(cfg):
    # Class 2 in one of five images, class 1 in four, class 0 in all; Gupta et al. 2019 (LVIS): an image is repeated
    # sqrt(threshold / share of images with its rarest class) times, at least once.
    dicts = [
        {**record, "annotations": [dict(a) for a in record["annotations"]]}
        for record in DatasetCatalog.get(NAME)
    ]
    for k, record in enumerate(dicts):
        for one in record["annotations"]:
            one["category_id"] = 0
        record["annotations"][0]["category_id"] = 2 if k == 3 else 1
        # A region to ignore is of every category, and shows none.
        record["annotations"] += [dict(record["annotations"][1], category_id=c, iscrowd=1) for c in range(3)]
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: dicts)
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.8
    cfg.INPUT.AUGMENTATION.PRESET = "none"
    found = Counter(sample["image_id"] for sample in batches(cfg, 0, 40))
    # sqrt(0.8 / 0.2) = 2 against 1 of the others: a third of 120 samples.
    assert found[3] == 40
    assert {found[k] for k in (0, 1, 2, 4)} <= {19, 20, 21}


def test_image_and_target_are_those_of_the_sample(tmp_path):
    masks = [disc(60, 80, 20, 20, 9), disc(60, 80, 50, 30, 12)]
    cfg = get_bccd_cfg()
    cfg.INPUT.AUGMENTATION.PRESET, cfg.INPUT.RANDOM_FLIP = "none", "none"
    record = dataset_dict(tmp_path / "cells.png", masks)
    data = TorchvisionCells([record], BCCDDatasetMapper(cfg, True), cfg.INPUT.FORMAT)
    assert len(data) == 1
    image, target = data[0]
    assert image.dtype == torch.float32
    # Cells are drawn as BGR (150, 100, 110): red is the first channel, in [0, 1].
    inside = image[:, masks[0]].mean(1).numpy() * 255
    np.testing.assert_allclose(inside, (110, 100, 150), atol=2)
    np.testing.assert_array_equal(target["masks"].numpy(), masks)
    assert target["masks"].dtype == torch.uint8
    assert target["boxes"].tolist() == [[11, 11, 30, 30], [38, 18, 63, 43]]
    assert target["labels"].tolist() == [1, 2]
    assert target["area"].tolist() == [mask.sum() for mask in masks]
    assert target["iscrowd"].tolist() == [0, 0]
    assert target["image_id"] == 0
