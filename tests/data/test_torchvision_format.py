import numpy as np
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.torchvision_format import TorchvisionCells
from tests.data.shapes import dataset_dict, disc


def cells(tmp_path, masks, **extra):
    cfg = get_bccd_cfg()
    cfg.INPUT.AUGMENTATION.PRESET, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.ROT90 = "none", "none", False
    record = dataset_dict(tmp_path / "cells.png", masks, **extra)
    return TorchvisionCells([record], BCCDDatasetMapper(cfg, True), cfg.INPUT.FORMAT)


def test_image_and_target_are_those_of_the_sample(tmp_path):
    masks = [disc(60, 80, 20, 20, 9), disc(60, 80, 50, 30, 12)]
    data = cells(tmp_path, masks)
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


def test_an_image_without_cells_is_legal(tmp_path):
    _, target = cells(tmp_path, [], size=(40, 50))[0]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 40, 50)
    assert target["area"].shape == target["labels"].shape == (0,)


def test_torchvision_s_model_takes_it(tmp_path):
    data = cells(tmp_path, [disc(60, 80, 20, 20, 9), disc(60, 80, 50, 30, 12)])
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    ).train()
    losses = model(*map(list, zip(data[0])))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert set(losses) >= {"loss_mask", "loss_box_reg", "loss_classifier"}
