import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from bccd_d2.modeling.suppression import MaskSuppression
from bccd_d2.structures.cells import Cells

box_lists = st.lists(
    st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(0, 12)] * 2, st.integers(0, 1), st.integers(1, 99)),
    max_size=25,
)


def arrays(rows):
    table = np.array(rows, float).reshape(-1, 6)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    # Scores that differ, so that the order is certain.
    return boxes, table[:, 5] / 100 + np.arange(len(table)) * 1e-6, table[:, 4].astype(int)


@settings(max_examples=40, deadline=None)
@given(box_lists)
def test_rectangular_masks_are_suppressed_as_boxes_are(rows):
    boxes, scores, classes = arrays([row for row in rows if row[2] and row[3]])
    cells = Cells.from_masks(
        40, 40, [np.ones((h, w), bool) for w, h in (boxes[:, 2:] - boxes[:, :2]).astype(int)],
        origins=boxes[:, :2].astype(int).tolist(), classes=classes, scores=scores,
    )  # fmt: skip
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), 0.4)
    assert MaskSuppression("iou", 0.4)(cells).tolist() == expected.tolist()


def cells_of(*masks, classes=None):
    return Cells.from_masks(30, 30, masks, classes=classes, scores=[0.9 - 0.1 * k for k in range(len(masks))])


def square(x0, y0, x1, y1):
    mask = np.zeros((30, 30), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_masks_tell_apart_what_boxes_cannot():
    # Two triangles that share a box and touch along its diagonal.
    y, x = np.mgrid[:30, :30]
    both = cells_of(x > y, x < y)
    assert MaskSuppression("iou", 0.1)(both).tolist() == [0, 1]


def test_containment_removes_a_part_of_a_cell():
    # A square of 10, its quarter of 5 inside, a square that shares 40 of its 100 pixels with the first.
    cells = cells_of(square(0, 0, 10, 10), square(2, 2, 7, 7), square(6, 0, 16, 10))
    assert MaskSuppression("iou", 0.5)(cells).tolist() == [0, 1, 2]
    assert MaskSuppression("containment", 0.5)(cells).tolist() == [0, 2]
    assert MaskSuppression("containment", 0.39)(cells).tolist() == [0]
    assert MaskSuppression("containment", 0.4)(cells).tolist() == [0, 2]  # the threshold itself is allowed
    assert MaskSuppression("iou", 40 / 160)(cells).tolist() == [0, 1, 2]  # 25 / 100 and 40 / 160


def test_masks_of_other_classes_stay():
    cells = cells_of(square(0, 0, 10, 10), square(0, 0, 10, 10), classes=[0, 1])
    assert MaskSuppression()(cells).tolist() == [0, 1]


def test_no_cells_and_empty_masks_are_no_trouble():
    assert MaskSuppression()(cells_of()).tolist() == []
    empty = np.zeros((30, 30), bool)
    assert MaskSuppression()(cells_of(empty, empty)).tolist() == [0, 1]
