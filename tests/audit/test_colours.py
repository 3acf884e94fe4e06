"""Colours, and whether a mask lies where the cells are."""

import numpy as np
import pytest

from bccd_d2.audit.charts import lab_to_hex
from bccd_d2.audit.colours import colour_statistics
from bccd_d2.conversion.instances import label_instances
from tests.audit.audit_scene import CELL, GLASS, blank, cells, disc, paint


def labelled(mask):
    return np.ascontiguousarray(label_instances(mask).labels)


def nothing():
    return np.zeros(blank().shape, np.int32)


def to_hex(rgb):
    return "#" + "".join(f"{value:02x}" for value in rgb)


def test_means_are_the_colours_that_were_painted():
    mask = cells()
    statistics = colour_statistics(
        np.where(mask[..., None] > 0, np.uint8(CELL), np.uint8(GLASS)), labelled(mask), nothing()
    )
    assert lab_to_hex(statistics.cell_mean) == to_hex(CELL)
    assert lab_to_hex(statistics.glass_mean) == to_hex(GLASS)
    assert np.allclose([statistics.cell_std, statistics.glass_std], 0, atol=1e-3)


def test_mask_that_follows_the_image_separates_it():
    mask = cells()
    assert colour_statistics(paint(mask), labelled(mask), nothing()).separation > 0.99


def test_mask_of_another_image_does_not():
    mask = cells()
    moved = np.roll(mask, 35, axis=1)  # from cell to glass
    assert not (mask & moved).any()
    assert colour_statistics(paint(mask), labelled(moved), nothing()).separation < 0.2


def test_outline_on_glass_is_told_from_outlines_on_cells():
    mask = cells()
    image = paint(mask)
    labels = labelled(disc(mask.copy(), 95, 80))
    strengths = colour_statistics(image, labels, nothing()).strengths
    wrong = labels[80, 95]
    others = [number for number in range(1, labels.max() + 1) if number != wrong]
    assert len(others) == 12
    assert strengths[wrong] == pytest.approx(0, abs=0.05)
    assert np.allclose(strengths[others], np.mean(strengths[others]), atol=0.05)
    assert strengths[others].min() > 1
    assert np.isnan(strengths[0])


def test_uneven_light_does_not_move_strengths():
    mask = cells()
    ramp = np.linspace(0.75, 1, mask.shape[1])[None, :, None]
    image = (paint(mask) * ramp).astype(np.uint8)
    strengths = colour_statistics(image, labelled(mask), nothing()).strengths[1:]
    assert strengths.min() > 0.8
    assert strengths.max() < 1.2


def test_unlabelled_cells_are_not_counted_as_glass():
    mask = cells()
    image = paint(disc(mask.copy(), 95, 80, 20))
    region = labelled(disc(blank(), 95, 80, 20))
    statistics = colour_statistics(image, labelled(mask), region)
    counted = colour_statistics(image, labelled(mask), nothing())
    assert statistics.glass_std.max() < 2 < counted.glass_std[0]
    assert statistics.glass_mean[0] > counted.glass_mean[0]


@pytest.mark.parametrize("mask", [blank(), np.full_like(blank(), 255)])
def test_only_cells_or_only_glass_has_no_separation(mask):
    labels = (mask > 0).astype(np.int32)
    statistics = colour_statistics(paint(mask), labels, nothing())
    assert np.isnan(statistics.separation)
    assert np.isnan(statistics.strengths).all()
    assert np.isnan(statistics.cell_mean).all() == (not mask.any())
    assert np.isnan(statistics.glass_mean).all() == mask.all()
