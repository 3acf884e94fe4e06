"""Boxes fitted to their image."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.conversion.boxes import MIN_SIDE, fit_boxes, make_boxes
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError

RECORD = ImageRecord(1, "a", "a.png", Path("a.png"), 100, 200)


def boxes(*corners, size=None):
    return make_boxes("boxes.json", list(corners), ["ring"] * len(corners), [False] * len(corners), size)


def test_boxes_are_clipped_and_slips_are_dropped():
    given_boxes = boxes((0, 0, 200, 100), (-5, 90, 20, 130), (40, 40, 41, 60), (300, 10, 340, 50))
    fitted, counts = fit_boxes(given_boxes, RECORD)
    assert fitted.corners.tolist() == [[0, 0, 200, 100], [0, 90, 20, 100]]
    assert counts["boxes"] == 4
    assert counts["boxes clipped to the image"] == 1
    assert counts["boxes under 3 pixels or outside the image, dropped"] == 2


def test_boxes_of_another_image_are_refused():
    with pytest.raises(
        InputError, match=r"boxes\.json: boxes for an image of 640x480 pixels, expected 200x100"
    ):
        fit_boxes(boxes(size=(480, 640)), RECORD)


@given(st.lists(st.tuples(*[st.integers(-300, 500)] * 4), max_size=8))
def test_what_comes_out_lies_in_the_image(corners):
    given_boxes = boxes(*[(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners])
    fitted, counts = fit_boxes(given_boxes, RECORD)
    assert (fitted.corners[:, :2] >= 0).all()
    assert (fitted.corners[:, 2:] <= [200, 100]).all()
    assert (fitted.corners[:, 2:] - fitted.corners[:, :2] >= MIN_SIDE).all()
    dropped = counts[f"boxes under {MIN_SIDE} pixels or outside the image, dropped"]
    assert len(fitted) + dropped == len(corners) == counts["boxes"]
