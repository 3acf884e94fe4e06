import numpy as np
import pytest

from bccd_d2.evaluation.image_metrics import (
    PixelCounts,
    box_average_precision,
    image_box_precision,
    iou_and_dice,
    pixel_counts,
    pixel_overlap,
)
from bccd_d2.evaluation.matching import overlaps
from tests.evaluation.synthetic_cells import image, rectangles


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (PixelCounts(50, 100, 100), (50 / 150, 0.5)),
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


def measured(images):
    return pixel_overlap(
        [pixel_counts(i, 0.5) for i in images], [image_box_precision(i, overlaps(i), 0.5) for i in images]
    )


def test_pixels_are_pooled_and_images_averaged():
    images = [
        # Half of the cell, a prediction below the threshold that must not count, a region that is no truth.
        image(
            rectangles([(0, 0, 10, 10)], side=60),
            rectangles([(0, 0, 5, 10), (30, 0, 9, 9)], scores=[0.9, 0.4], side=60),
            rectangles([(40, 20, 10, 10)], side=60),
        ),
        # The whole cell, in two halves that overlap.
        image(
            rectangles([(20, 20, 10, 20)], side=60),
            rectangles([(20, 20, 10, 20), (20, 20, 10, 15)], scores=[0.6, 0.55], side=60),
        ),
    ]
    metrics = measured(images)
    assert pytest.approx(250 / 300) == metrics.IoU
    assert pytest.approx(500 / 550) == metrics.Dice
    assert metrics.IoU_mean == pytest.approx((0.5 + 1) / 2)
    assert metrics.Dice_mean == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.AP50_per_image == pytest.approx(1)


def test_what_lies_in_an_ignore_region_does_not_count():
    region = rectangles([(100, 100, 50, 50)])
    cell = (95, 100, 20, 20)
    # One on the cell, which reaches into the region, and one in the region alone; then one beside it.
    inside = rectangles([(125, 125, 20, 20), cell], scores=[0.9, 0.8])
    metrics = measured([image(rectangles([cell]), inside, region)])
    assert (metrics.IoU, metrics.AP50_per_image) == (1, 1)
    beside = rectangles([(155, 125, 20, 20), cell], scores=[0.9, 0.8])
    metrics = measured([image(rectangles([cell]), beside, region)])
    assert (metrics.IoU, metrics.AP50_per_image) == (0.5, 0.5)
