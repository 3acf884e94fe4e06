"""Shapes and colours against answers computed by hand."""

import numpy as np
import pytest

from bccd_d2.audit.measure import colour_statistics, instance_shapes
from bccd_d2.audit.page import lab_to_hex
from bccd_d2.segmentation.instances import label_instances
from tests.audit.scene import BACKGROUND, CELL, blank, cells, disc, paint


def labelled(mask):
    return np.ascontiguousarray(label_instances(mask).labels)


def nothing():
    return np.zeros(blank().shape, np.int32)


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


def test_one_disc_fills_itself_and_half_of_two_discs_side_by_side():
    one = instance_shapes(disc(np.zeros((120, 240), np.uint8), 70, 60, 40).astype(np.int32))
    assert one.labels.tolist() == [255]
    assert one.disc_shares[0] > 0.95
    assert one.solidities[0] > 0.97
    two = disc(disc(np.zeros((120, 240), np.uint8), 70, 60, 40), 150, 60, 40)
    shapes = instance_shapes(two.astype(np.int32))
    assert shapes.disc_shares[0] == pytest.approx(0.5, abs=0.03)
    assert shapes.solidities[0] < 0.92


def test_means_are_the_colours_that_were_painted():
    mask = cells()
    image = np.where(mask[..., None] > 0, np.uint8(CELL), np.uint8(BACKGROUND))
    statistics = colour_statistics(image, labelled(mask), nothing())
    assert lab_to_hex(statistics.cell_mean) == "#" + bytes(CELL).hex()
    assert lab_to_hex(statistics.background_mean) == "#" + bytes(BACKGROUND).hex()
    assert np.allclose([statistics.cell_std, statistics.background_std], 0, atol=1e-3)


def test_separation_is_high_for_the_right_mask_and_low_for_another():
    mask = cells()
    assert colour_statistics(paint(mask), labelled(mask), nothing()).separation > 0.99
    moved = np.roll(mask, 35, axis=1)  # from cells to background
    assert not (mask & moved).any()
    assert colour_statistics(paint(mask), labelled(moved), nothing()).separation < 0.2


def test_an_outline_on_background_has_no_strength():
    mask = cells()
    labels = labelled(disc(mask.copy(), 95, 80))
    strengths = colour_statistics(paint(mask), labels, nothing()).strengths
    wrong = labels[80, 95]
    others = [number for number in range(1, labels.max() + 1) if number != wrong]
    assert len(others) == 12
    assert strengths[wrong] == pytest.approx(0, abs=0.05)
    assert np.allclose(strengths[others], np.mean(strengths[others]), atol=0.05)
    assert strengths[others].min() > 1
    assert np.isnan(strengths[0])


@pytest.mark.parametrize("mask", [blank(), np.full_like(blank(), 255)])
def test_only_cells_or_only_background_has_no_separation(mask):
    statistics = colour_statistics(paint(mask), (mask > 0).astype(np.int32), nothing())
    assert np.isnan(statistics.separation)
    assert np.isnan(statistics.strengths).all()
    assert np.isnan(statistics.cell_mean).all() == (not mask.any())
    assert np.isnan(statistics.background_mean).all() == mask.all()
