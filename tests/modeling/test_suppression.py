import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from bccd_d2.modeling.suppression import BoxSuppression, MaskSuppression
from bccd_d2.structures.cells import Cells

# Three squares of side 10: the second moved by 2 (IoU 80 / 120), the third far away.
BOXES = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]], float)
SCORES = np.array([0.8, 0.9, 0.5])
SAME, OTHER = np.array([0, 0, 0]), np.array([0, 1, 0])


def test_hard_suppression_keeps_the_better_of_two():
    kept, scores = BoxSuppression("hard", 0.5)(BOXES, SCORES, SAME)
    assert kept.tolist() == [1, 2]
    assert scores.tolist() == [0.9, 0.5]
    assert BoxSuppression("hard", 0.7)(BOXES, SCORES, SAME)[0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("kind", ["hard", "soft_linear"])
def test_classes_suppress_each_other_only_when_they_shall(kind):
    def kept(agnostic):
        return BoxSuppression(kind, 0.5, class_agnostic=agnostic)(BOXES, SCORES, OTHER, min_score=0.3)[0]

    assert kept(False).tolist() == [1, 0, 2]
    assert kept(True).tolist() == [1, 2]  # 0.8 (1 - 2/3) is below 0.3


def test_soft_suppression_lowers_scores():
    iou = 80 / 120
    kept, scores = BoxSuppression("soft_linear", 0.5)(BOXES, SCORES, SAME)
    assert kept.tolist() == [1, 2, 0]
    assert scores == pytest.approx([0.9, 0.5, 0.8 * (1 - iou)])
    assert BoxSuppression("soft_linear", 0.7)(BOXES, SCORES, SAME)[1] == pytest.approx([0.9, 0.8, 0.5])
    kept, scores = BoxSuppression("soft_gaussian", sigma=0.5)(BOXES, SCORES, SAME)
    assert kept.tolist() == [1, 2, 0]
    assert scores == pytest.approx([0.9, 0.5, 0.8 * math.exp(-(iou**2) / 0.5)])


@pytest.mark.parametrize("kind", ["hard", "soft_linear", "soft_gaussian"])
def test_of_equal_scores_the_first_wins(kind):
    kept, scores = BoxSuppression(kind)(BOXES, np.array([0.8, 0.8, 0.8]), SAME)
    assert kept[:2].tolist() == [0, 2]
    assert scores[:2].tolist() == [0.8, 0.8]
    assert 1 not in kept[:2]


def test_only_scores_above_the_least_stay():
    for kind in ("hard", "soft_linear", "soft_gaussian"):
        assert BoxSuppression(kind)(BOXES, SCORES, SAME, min_score=0.5)[0].tolist() == [1], kind
        assert BoxSuppression(kind)(BOXES[:0], SCORES[:0], SAME[:0])[0].tolist() == [], kind


box_lists = st.lists(
    st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(0, 12)] * 2, st.integers(0, 1), st.integers(1, 99)),
    max_size=25,
)


def arrays(rows):
    table = np.array(rows, float).reshape(-1, 6)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    # Scores that differ, so that the order is certain.
    return boxes, table[:, 5] / 100 + np.arange(len(table)) * 1e-6, table[:, 4].astype(int)


def soft_by_definition(boxes, scores, classes, decay):
    """Bodla et al. 2017, figure 2, one box at a time."""
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=lambda k: left[k])
        kept.append((best, left.pop(best)))
        for k in left:
            iou = np.nan_to_num(box_iou(*(torch.from_numpy(boxes[[i]]) for i in (best, k))).item())
            if classes[k] == classes[best]:
                left[k] *= decay(iou)
    return kept


@settings(max_examples=40, deadline=None)
@given(box_lists)
def test_soft_suppression_does_what_its_definition_says(rows):
    boxes, scores, classes = arrays(rows)
    for suppression, decay in (
        (BoxSuppression("soft_linear", 0.3), lambda iou: 1 - iou if iou > 0.3 else 1),
        (BoxSuppression("soft_gaussian", sigma=0.5), lambda iou: math.exp(-iou * iou / 0.5)),
    ):
        expected = [(k, s) for k, s in soft_by_definition(boxes, scores, classes, decay) if s > 1e-4]
        kept, lowered = suppression(boxes, scores, classes, min_score=1e-4)
        assert lowered == pytest.approx([s for _, s in expected])
        assert sorted(kept.tolist()) == sorted(k for k, _ in expected)


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
    assert BoxSuppression("hard", 0.5)(both.boxes, both.scores, both.classes)[0].tolist() == [0]
    assert MaskSuppression("iou", 0.1)(both).tolist() == [0, 1]


def test_containment_removes_a_part_of_a_cell():
    # A square of 10, its quarter of 5 inside, a square that shares 40 of its 100 pixels with the first.
    cells = cells_of(square(0, 0, 10, 10), square(2, 2, 7, 7), square(6, 0, 16, 10))
    assert MaskSuppression("iou", 0.5)(cells).tolist() == [0, 1, 2]
    assert MaskSuppression("containment", 0.5)(cells).tolist() == [0, 2]
    assert MaskSuppression("containment", 0.39)(cells).tolist() == [0]
    assert MaskSuppression("containment", 0.4)(cells).tolist() == [0, 2]  # the threshold itself is allowed
    assert MaskSuppression("iou", 40 / 160)(cells).tolist() == [
        0,
        1,
        2,
    ]  # 25 / 100 and 40 / 160, neither above


def test_a_suppressed_mask_suppresses_nothing():
    # The second goes because of the first; the third overlaps the second alone.
    cells = cells_of(square(0, 0, 10, 10), square(3, 0, 13, 10), square(8, 0, 18, 10))
    assert MaskSuppression("iou", 0.3)(cells).tolist() == [0, 2]


def test_masks_of_other_classes_stay_unless_they_shall_not():
    cells = cells_of(square(0, 0, 10, 10), square(0, 0, 10, 10), classes=[0, 1])
    assert MaskSuppression()(cells).tolist() == [0, 1]
    assert MaskSuppression(class_agnostic=True)(cells).tolist() == [0]


def test_no_cells_and_empty_masks_are_no_trouble():
    assert MaskSuppression()(cells_of()).tolist() == []
    empty = np.zeros((30, 30), bool)
    assert MaskSuppression()(cells_of(empty, empty)).tolist() == [0, 1]
