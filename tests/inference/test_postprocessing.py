import numpy as np

from bccd_d2.inference.postprocessing import split_merged, without_overlaps
from bccd_d2.structures.cells import Cells

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
