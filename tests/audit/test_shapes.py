"""Sizes and shapes against answers computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.audit.shapes import instance_shapes


def drawn_disc(labels, label, x, y, radius):
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    labels[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = label


def test_square_has_box_area_and_inscribed_disc():
    labels = np.zeros((60, 80), np.int32)
    labels[10:50, 20:60] = 3
    shapes = instance_shapes(labels)
    assert shapes.labels.tolist() == [3]
    assert shapes.boxes.tolist() == [[20, 10, 40, 40]]
    assert shapes.areas.tolist() == [1600]
    assert shapes.solidities[0] == 1
    assert shapes.disc_shares[0] == pytest.approx(np.pi / 4, abs=0.04)
    assert not shapes.border[0]


def test_disc_is_filled_by_its_largest_disc():
    labels = np.zeros((101, 101), np.int32)
    drawn_disc(labels, 1, 50, 50, 40)
    shapes = instance_shapes(labels)
    assert shapes.disc_shares[0] > 0.95
    assert shapes.solidities[0] > 0.97


def test_two_discs_side_by_side_are_half_filled():
    labels = np.zeros((120, 240), np.int32)
    drawn_disc(labels, 1, 70, 60, 40)
    drawn_disc(labels, 1, 150, 60, 40)
    shapes = instance_shapes(labels)
    assert shapes.disc_shares[0] == pytest.approx(0.5, abs=0.03)
    assert shapes.solidities[0] < 0.92


def test_l_shape_has_the_solidity_of_its_triangle_completed():
    labels = np.zeros((100, 100), np.int32)
    labels[0:100, 0:50] = 1
    labels[50:100, 50:100] = 1
    # The hull is the square without the triangle beyond the line from (49, 0) to (99, 50): 10000 - 1250 or so.
    assert instance_shapes(labels).solidities[0] == pytest.approx(7500 / 8750, abs=0.01)


@pytest.mark.parametrize("row, column", [(0, 20), (59, 20), (20, 0), (20, 79)])
def test_one_pixel_at_any_border_is_at_the_border(row, column):
    labels = np.zeros((60, 80), np.int32)
    labels[30, 40], labels[row, column] = 1, 2
    shapes = instance_shapes(labels)
    assert shapes.border.tolist() == [False, True]
    assert shapes.areas.tolist() == [1, 1]
    assert (shapes.solidities == 1).all()


def test_no_instance_gives_empty_arrays_and_gaps_are_left_out():
    assert len(instance_shapes(np.zeros((5, 7), np.int32))) == 0
    labels = np.zeros((5, 7), np.int32)
    labels[1, 1], labels[3, 3] = 4, 9
    shapes = instance_shapes(labels)
    assert shapes.labels.tolist() == [4, 9]
    assert shapes.take(shapes.labels == 9).boxes.tolist() == [[3, 3, 1, 1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_areas_add_up_and_shares_stay_in_range(seed, count):
    labels = np.random.default_rng(seed).integers(0, count + 1, (12, 15)).astype(np.int32)
    shapes = instance_shapes(labels)
    assert shapes.areas.sum() == np.count_nonzero(labels)
    assert ((shapes.disc_shares > 0) & (shapes.disc_shares <= 1)).all()
    assert ((shapes.solidities > 0) & (shapes.solidities <= 1)).all()
