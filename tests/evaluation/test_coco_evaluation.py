import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from bccd_d2.evaluation.coco_evaluation import average_precision

SHAPE = (400, 400)


def square(index: int, size: int = 8, shift: int = 0) -> np.ndarray:
    """The ``index``-th cell of a grid of 20 columns, moved right by ``shift``."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    y, x = 20 * (index // 20), 20 * (index % 20) + shift
    mask[y : y + size, x : x + size] = 1
    return mask


def truth(masks: list[np.ndarray], classes: list[int], names: tuple[str, ...] = ("cell",)) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": SHAPE[0], "width": SHAPE[1]}],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": c,
                "iscrowd": 0,
                "area": float(mask.sum()),
                "bbox": mask_util.toBbox(mask_util.encode(np.asfortranarray(mask))).tolist(),
                "segmentation": mask_util.encode(np.asfortranarray(mask)),
            }
            for i, (mask, c) in enumerate(zip(masks, classes))
        ],
    }
    coco.createIndex()
    return coco


def results(masks: list[np.ndarray], classes: list[int], scores: list[float]) -> list[dict]:
    return [
        {
            "image_id": 1,
            "category_id": c,
            "score": score,
            "bbox": mask_util.toBbox(mask_util.encode(np.asfortranarray(mask))).tolist(),
            "segmentation": mask_util.encode(np.asfortranarray(mask)),
        }
        for mask, c, score in zip(masks, classes, scores)
    ]


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_three_hundred_perfect_cells_are_all_counted(task):
    masks = [square(i) for i in range(300)]
    predicted = results(masks, [1] * 300, [0.9] * 300)
    coco = truth(masks, [1] * 300)
    assert average_precision(coco, predicted, task, 500) == pytest.approx(
        {"AP": 100, "AP50": 100, "AP75": 100, "AR": 100}
    )
    # With COCO's own limit a third of the cells could be found.
    assert average_precision(coco, predicted, task, 100)["AR"] == pytest.approx(100 / 3, abs=0.01)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_shift_fails_above_its_iou(task):
    # 8x8 squares moved by one pixel: intersection 56, union 72, IoU 0.778: right at 0.50, ..., 0.75, 6 of 10.
    coco = truth([square(0), square(1)], [1, 1])
    predicted = results([square(0, shift=1), square(1, shift=1)], [1, 1], [0.9, 0.8])
    metrics = average_precision(coco, predicted, task, 500)
    assert metrics == pytest.approx({"AP": 60, "AP50": 100, "AP75": 100, "AR": 60})


def test_no_prediction_is_zero_not_missing():
    assert average_precision(truth([square(0)], [1]), [], "segm", 500) == {
        "AP": 0,
        "AP50": 0,
        "AP75": 0,
        "AR": 0,
    }


def test_a_class_without_ground_truth_is_named_and_in_no_mean(caplog):
    coco = truth([square(0)], [1], names=("RBC", "WBC"))
    predicted = results([square(0), square(5)], [1, 2], [0.9, 0.9])
    with caplog.at_level("INFO", logger="bccd_d2"):
        metrics = average_precision(coco, predicted, "segm", 500)
    assert metrics == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100, "AR": 100, "AP-RBC": 100})
    assert any("AP-WBC" in line and "no ground truth" in line for line in caplog.text.splitlines())


def test_no_ground_truth_at_all_gives_no_number():
    assert average_precision(truth([], []), results([square(0)], [1], [0.9]), "segm", 500) == {}
