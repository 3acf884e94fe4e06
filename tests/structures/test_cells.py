import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.structures.cells import Cells, concatenate

MASKS = npst.arrays(bool, st.tuples(st.just(3), st.integers(1, 9), st.integers(1, 9)))


def square(x: int, y: int, side: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


@settings(deadline=None)
@given(MASKS)
def test_windows_hold_the_same_pixels_and_the_same_rle(masks):
    cells = Cells.from_masks(*masks.shape[1:], masks)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(cells.full_masks()[index], mask)
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert cells.rles()[index] == {"size": expected["size"], "counts": expected["counts"].decode()}
    np.testing.assert_array_equal(cells.areas, masks.sum(axis=(1, 2)))
    back = Cells.from_rles(*masks.shape[1:], cells.rles())
    np.testing.assert_array_equal(back.windows, cells.windows)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_intersections_are_those_of_the_whole_masks(first, second):
    height, width = (min(a, b) for a, b in zip(first.shape[1:], second.shape[1:]))
    first, second = first[:, :height, :width], second[:, :height, :width]
    a, b = Cells.from_masks(height, width, first), Cells.from_masks(height, width, second)
    expected = (first[:, None] & second[None]).sum(axis=(2, 3))
    np.testing.assert_array_equal(a.intersections(b), expected)
    union = (first[:, None] | second[None]).sum(axis=(2, 3))
    np.testing.assert_allclose(a.ious(b), expected / np.maximum(union, 1))


def test_the_border_is_the_outermost_pixel_or_a_margin():
    cells = Cells.from_masks(20, 20, [square(0, 5, 4), square(1, 5, 4), square(8, 8, 4), square(8, 16, 4)])
    assert cells.touches_border().tolist() == [True, False, False, True]
    assert cells.touches_border(1).tolist() == [True, True, False, True]
    empty = Cells.from_masks(20, 20, [np.zeros((20, 20))])
    assert not empty.touches_border().any()


def test_label_images_and_back():
    cells = Cells.from_masks(20, 20, [square(2, 2, 6), square(6, 6, 6)], scores=[0.9, 0.4], classes=[1, 0])
    labels = cells.label_image()
    assert labels[7, 7] == 1  # the better one is on top
    assert (labels == 1).sum() == 36
    assert (labels == 2).sum() == 36 - 4
    back = Cells.from_label_image(np.where(labels == 2, 70000, labels), {1: 1, 70000: 0})
    np.testing.assert_array_equal(back.label_image(), labels)
    assert back.classes.tolist() == [1, 0]
    whole = Cells.from_label_image(np.full((3, 4), 5))
    assert whole.areas.tolist() == [12]
    assert len(Cells.from_label_image(np.zeros((3, 4), np.uint16))) == 0
    with pytest.raises(InputError, match="expected \\(height, width\\) of integers"):
        Cells.from_label_image(np.zeros((3, 4)))


def test_choosing_and_joining():
    cells = Cells.from_masks(
        20, 20, [square(k, k, 3) for k in range(5)], scores=np.arange(5) / 10, boxes=np.arange(20)
    )
    chosen = cells[cells.scores > 0.25]
    assert chosen.scores.tolist() == [0.3, 0.4]
    assert chosen.boxes[0].tolist() == [12, 13, 14, 15]
    assert cells[[4, 0]].windows[:, 0].tolist() == [4, 0]
    joined = concatenate([cells[:2], cells[2:]])
    np.testing.assert_array_equal(joined.boxes, cells.boxes)
    np.testing.assert_array_equal(joined.full_masks()[4], cells.full_masks()[4])
    with pytest.raises(ValueError, match="differ in length"):
        Cells(20, 20, cells.windows, cells.masks[:1], cells.boxes, cells.classes, cells.scores)
