import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as mask_util

from bccd_d2.evaluation.overlap import (
    PixelCounts,
    PixelOverlapEvaluator,
    box_average_precision,
    iou_and_dice,
)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (PixelCounts(50, 100, 100), (50 / 150, 0.5)),
        (PixelCounts(100, 100, 100), (1.0, 1.0)),
        (PixelCounts(0, 10, 0), (0.0, 0.0)),
        (PixelCounts(0, 0, 0), (1.0, 1.0)),
    ],
)
def test_iou_and_dice_by_hand(counts, expected):
    assert iou_and_dice(counts) == pytest.approx(expected)


TRUE = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], dtype=float)


@pytest.mark.parametrize(
    ("scores", "boxes", "expected"),
    [
        ([0.9, 0.8, 0.7], TRUE, 1.0),
        ([0.9], TRUE[:1], 1 / 3),
        # right, wrong, right: precision 1 at the first, 2/3 at the second true box, none at the third
        ([0.9, 0.8, 0.7], [TRUE[0], [60, 60, 70, 70], TRUE[1]], (1 + 2 / 3) / 3),
        # the second prediction on the first cell is a duplicate
        ([0.9, 0.8], [TRUE[0], TRUE[0]], 1 / 3),
        # wrong before right: interpolated precision 1/2 for the one box that is found
        ([0.9, 0.8], [[60, 60, 70, 70], TRUE[0]], 1 / 6),
        # IoU 5/15, below the threshold
        ([0.9], [[5, 0, 15, 10]], 0.0),
        ([], np.zeros((0, 4)), 0.0),
    ],
)
def test_box_average_precision_by_hand(scores, boxes, expected):
    result = box_average_precision(np.array(scores), np.array(boxes, dtype=float), TRUE)
    assert result == pytest.approx(expected)


def test_box_average_precision_without_truth():
    nothing = np.zeros((0, 4))
    assert box_average_precision(np.zeros(0), nothing, nothing) == 1.0
    assert box_average_precision(np.ones(1), TRUE[:1], nothing) == 0.0


def rectangle(x: int, y: int, width: int, height: int, shape=(40, 60)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def instances(masks: list[np.ndarray], scores: list[float]) -> dict[str, Instances]:
    result = Instances((40, 60))
    result.pred_masks = (
        torch.from_numpy(np.stack(masks).astype(bool)) if masks else torch.zeros(0, 40, 60).bool()
    )
    boxes = []
    for mask in masks:
        ys, xs = np.nonzero(mask)
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.scores = torch.tensor(scores)
    return {"instances": result}


@pytest.fixture
def dataset():
    def annotation(mask, **extra):
        x, y, width, height = mask_util.toBbox(mask_util.encode(np.asfortranarray(mask))).tolist()
        return {
            "bbox": [x, y, width, height],
            "bbox_mode": BoxMode.XYWH_ABS,
            "segmentation": mask_util.encode(np.asfortranarray(mask)),
            "category_id": 0,
            "iscrowd": 0,
        } | extra

    dicts = [
        {
            "image_id": 1,
            "annotations": [
                annotation(rectangle(0, 0, 10, 10)),
                annotation(rectangle(40, 20, 10, 10), iscrowd=1),
            ],
        },
        {
            "image_id": 2,
            "annotations": [
                annotation(rectangle(20, 20, 10, 20), segmentation=[[20, 20, 30, 20, 30, 40, 20, 40]])
            ],
        },
    ]
    DatasetCatalog.register("overlap_test", lambda: dicts)
    yield "overlap_test"
    DatasetCatalog.remove("overlap_test")


def image(image_id: int) -> dict:
    return {"image_id": image_id, "height": 40, "width": 60}


def test_the_evaluator_pools_pixels_and_means_images(dataset):
    evaluator = PixelOverlapEvaluator(dataset, score_threshold=0.5, distributed=False)
    # Image 1: half of the cell, and a prediction below the threshold that must not count.
    evaluator.process([image(1)], [instances([rectangle(0, 0, 5, 10), rectangle(30, 0, 9, 9)], [0.9, 0.4])])
    # Image 2: the whole cell.
    evaluator.process([image(2)], [instances([rectangle(20, 20, 10, 20)], [0.6])])
    metrics = evaluator.evaluate()["overlap"]
    assert metrics["IoU"] == pytest.approx(100 * 250 / 300)
    assert metrics["Dice"] == pytest.approx(100 * 500 / 550)
    assert metrics["IoU_mean"] == pytest.approx(100 * (0.5 + 1) / 2)
    assert metrics["Dice_mean"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert metrics["mAP50"] == pytest.approx(100)


def test_the_evaluator_takes_an_image_without_predictions(dataset):
    evaluator = PixelOverlapEvaluator(dataset, score_threshold=0.5, distributed=False)
    evaluator.process([image(2)], [instances([], [])])
    assert evaluator.evaluate()["overlap"] == {
        "IoU": 0.0,
        "Dice": 0.0,
        "IoU_mean": 0.0,
        "Dice_mean": 0.0,
        "mAP50": 0.0,
    }
