from dataclasses import replace

import cv2
import numpy as np
import pytest

from bccd_d2.inference.classical import RULE, otsu_watershed, split_merged, without_overlaps
from bccd_d2.structures.cells import Cells


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


HEIGHT, WIDTH = 100, 200


def disc(cx, cy, radius):
    y, x = np.ogrid[0:HEIGHT, 0:WIDTH]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


def cells(masks, scores, classes=None):
    return Cells.from_masks(HEIGHT, WIDTH, masks, scores=scores, classes=classes)


def test_two_cells_that_were_taken_for_one_are_cut():
    left, right = disc(40, 50, 15), disc(66, 50, 15)
    single = [disc(120, 30, 15), disc(160, 70, 15)]
    refined = split_merged(cells([left | right, *single], [0.9, 0.8, 0.7], [2, 0, 0]))
    assert refined.scores.tolist() == [0.9, 0.9, 0.8, 0.7]
    assert refined.classes.tolist() == [2, 2, 0, 0]
    assert cells([left, right], [1, 1]).ious(refined).max(axis=1).min() > 0.95
    assert refined[:2].areas.sum() == (left | right).sum()


def test_pieces_that_the_network_has_found_itself_are_not_doubled():
    left, right = disc(40, 50, 15), disc(66, 50, 15)
    refined = split_merged(
        cells([left | right, left, disc(120, 30, 15), disc(160, 70, 15)], [0.9, 0.8, 0.7, 0.7])
    )
    assert len(refined) == 4
    assert sorted(refined.scores.tolist()) == [0.7, 0.7, 0.8, 0.9]
    assert cells([right], [1]).ious(refined[:1]).max() > 0.95


def test_round_cells_and_empty_images_are_left_alone():
    whole = cells([disc(40, 50, 15), disc(120, 50, 17)], [0.9, 0.8])
    assert split_merged(whole) is whole
    none = cells([], [])
    assert split_merged(none) is none
    assert len(without_overlaps(none)) == 0


def test_each_pixel_goes_to_the_better_cell():
    weak, strong = disc(60, 50, 20), disc(85, 50, 20)
    found = without_overlaps(cells([weak, strong], [0.6, 0.9], [1, 0]))
    assert found.areas.tolist() == [(weak & ~strong).sum(), strong.sum()]
    assert found.scores.tolist() == [0.6, 0.9]
    assert found.classes.tolist() == [1, 0]
    assert found.boxes[0].tolist() == [40, 30, *(np.array(np.nonzero(weak & ~strong))[::-1].max(axis=1) + 1)]
    assert not (found.full_masks()[0] & found.full_masks()[1]).any()


def test_a_cell_that_is_mostly_behind_another_is_dropped():
    strong, hidden, far = disc(60, 50, 20), disc(63, 52, 18), disc(150, 50, 20)
    found = without_overlaps(cells([hidden, strong, far], [0.6, 0.9, 0.5]))
    assert found.scores.tolist() == [0.9, 0.5]
