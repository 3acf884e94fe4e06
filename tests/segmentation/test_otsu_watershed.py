from dataclasses import replace

import cv2
import numpy as np
import pytest

from bccd_d2.segmentation.otsu_watershed import RULE, otsu_watershed


def smear(*discs, size=(240, 320), noise=4):
    """Purple discs (x, y, radius) on a bright background, (height, width, 3) BGR."""
    image = np.full((*size, 3), (225, 220, 228), np.uint8)
    for x, y, radius in discs:
        cv2.circle(image, (x, y), radius, (170, 110, 180), cv2.FILLED)
    grain = np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def test_every_disc_is_a_cell_of_its_area():
    cells = otsu_watershed(smear((60, 60, 40), (240, 150, 45)))
    assert len(cells) == 2
    np.testing.assert_allclose(sorted(cells.areas), [np.pi * 40**2, np.pi * 45**2], rtol=0.05)
    assert (cells.height, cells.width) == (240, 320)
    assert (cells.scores > 0.95).all() and (cells.scores <= 1).all()


def test_touching_discs_are_cut_unless_told_otherwise():
    # The third disc says how large one cell is.
    image = smear((70, 60, 40), (142, 60, 40), (240, 170, 40), (80, 180, 40))
    assert len(otsu_watershed(image)) == 4
    together = otsu_watershed(image, replace(RULE, cut=None))
    assert len(together) == 3
    assert together.scores.min() < 0.95, "a pair has notches"


def test_specks_are_dropped_and_pale_middles_filled():
    image = smear((160, 120, 50), (20, 20, 8))
    cv2.circle(image, (160, 120), 18, (225, 220, 228), cv2.FILLED)
    (area,) = otsu_watershed(image).areas
    assert area == pytest.approx(np.pi * 50**2, rel=0.05)
