"""Measuring label noise, on drawn shapes whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bccd_d2.conversion.boxes import make_boxes
from bccd_d2.evaluation.image_metrics import PixelCounts
from benchmarks.bench_box_noise import MERGED, NO_BOX, ONE_CELL, count_faults, explain_errors, find_faults
from benchmarks.bench_label_noise import (
    ANNOTATIONS,
    FIRST,
    Crop,
    Frame,
    closed_curve,
    cut_out,
    drawn_cells,
    fill,
    lone,
    make_set,
    matched_pairs,
    offset_of_outline,
    pixels_of_whole_cells,
    read_crops,
)
from tests.evaluation.synthetic_cells import discs, image, rectangles


def circle(x: float, y: float, radius: float, points: int = 16) -> np.ndarray:
    angles = np.arange(points) * 2 * math.pi / points
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def square(side: int, around: int = 30) -> np.ndarray:
    """Filled square in the middle of a mask."""
    mask = np.zeros((around, around), bool)
    start = (around - side) // 2
    mask[start : start + side, start : start + side] = True
    return mask


def test_the_curve_goes_through_its_points_and_bulges_between_them_as_a_circle_does() -> None:
    points = circle(0, 0, 40)
    curve = closed_curve(points, steps=4)
    np.testing.assert_allclose(curve[::4], points)
    # A polygon would come 0.77 px short half way between two points: 40 (1 - cos(pi / 16)).
    np.testing.assert_allclose(np.hypot(*curve.T), 40, atol=0.05)


def test_a_filled_outline_covers_the_pixels_whose_area_it_covers() -> None:
    mask = fill(circle(32, 32, 20), 64)
    assert mask.sum() == pytest.approx(math.pi * 20**2, rel=0.005)
    # Pixel 0 covers [0, 1): around the middle of 64 pixels. Half a pixel to either side would make 40 differ.
    assert (mask != mask[::-1]).sum() <= 20
    assert (mask != mask[:, ::-1]).sum() <= 20


def test_only_the_edge_of_a_crop_that_is_not_the_images_own_cuts_cells() -> None:
    crop = Crop("a", 0, 20, 40, [circle(0, 20, 10), circle(40, 20, 6)], [False, False])
    frame = Frame.of(crop, width=100, height=200)
    assert frame == Frame(-1, 20, 41, 40)
    assert drawn_cells(crop, frame).touches_border().tolist() == [False, True]
    assert drawn_cells(crop, Frame.of(crop, 100, 200, margin=0)).touches_border().all()


def test_cells_of_an_image_are_cut_at_the_crop() -> None:
    cells = rectangles([(0, 30, 10, 10), (35, 50, 20, 30), (60, 30, 10, 10), (5, 5, 4, 20)])
    crop = Crop("a", 0, 20, 40, [], [])
    found = cut_out(cells, crop, Frame.of(crop, width=200, height=200))
    # The second keeps 5 of 20 columns and 10 of 30 rows, the third lies outside, the last keeps 5 of 20 rows.
    assert found.areas.tolist() == [100, 50, 20]
    assert found.windows.tolist() == [[1, 10, 11, 20], [36, 30, 41, 40], [6, 0, 10, 5]]
    assert found.touches_border().tolist() == [False, True, True]


def test_offset_of_outlines() -> None:
    assert offset_of_outline(square(10), square(10)) == (0, 0)
    # Each pixel of the outline of the small square is two columns or rows away from the edge of the large one.
    assert offset_of_outline(square(10), square(14)) == (2, 2)
    # To the right by one: 9 of 36 pixels of the outline are a pixel too far in, 9 too far out and the corners on one
    # side lie outside already; what is gained on one side is lost on the other.
    signed, absolute = offset_of_outline(square(10), np.roll(square(10), 1, axis=1))
    assert signed == pytest.approx(0, abs=0.06)
    assert absolute == pytest.approx(20 / 36, abs=0.06)
    assert offset_of_outline(square(14), square(10))[0] < -1.9


def test_cells_that_share_no_pixel_are_lone() -> None:
    assert lone(rectangles([(0, 0, 10, 10), (9, 9, 10, 10), (30, 0, 10, 10), (40, 0, 5, 5)])).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_pixels_of_cut_cells_and_ignore_regions_do_not_count() -> None:
    truth = rectangles([(0, 0, 20, 20), (50, 50, 10, 10)])
    found = rectangles([(10, 10, 20, 20), (50, 50, 10, 20), (100, 100, 5, 5)])
    ignored = rectangles([(100, 100, 10, 10)])
    # The cut cell takes 10 x 10 px of the first prediction with it, the region the third one.
    assert pixels_of_whole_cells(image(truth, found, ignored)) == PixelCounts(100, 300 + 200, 100)


def test_matched_pairs_leave_out_cut_cells() -> None:
    truth, found = (
        rectangles([(0, 0, 20, 20), (50, 50, 10, 10)]),
        rectangles([(0, 0, 20, 20), (50, 50, 10, 8)]),
    )
    pairs = matched_pairs(make_set([truth], [found]))
    assert len(pairs) == 1
    assert pairs[0, 0] == pytest.approx(0.8)
    assert pairs[0, 1] < 0


@pytest.mark.parametrize("path", [ANNOTATIONS, FIRST])
def test_the_outlines_drawn_by_hand_are_ten_crops_with_outlines(path) -> None:
    crops = read_crops(path)
    assert len(crops) == 10
    assert len({crop.stem for crop in crops}) == 9
    for crop in crops:
        assert len(crop.outlines) == len(crop.unsure)
        assert all(len(outline) >= 3 and fill(outline, crop.size).any() for outline in crop.outlines)


def boxes(*corners: tuple[int, int, int, int]):
    return make_boxes("drawn", list(corners), ["red blood cell"] * len(corners), [False] * len(corners), None)


MERGED_CELL, ALONE, WITHOUT_BOX = (40, 40, 80, 40), (40, 120, 40, 40), (120, 120, 40, 40)
DRAWN = boxes((40, 40, 80, 80), (80, 40, 120, 80), (40, 120, 80, 160), (150, 10, 190, 50))


def test_boxes_tell_merged_and_missing_masks() -> None:
    drawn = image(rectangles([MERGED_CELL, ALONE, WITHOUT_BOX, (0, 60, 20, 20)]), rectangles([]))
    faults = find_faults(drawn, DRAWN)
    assert faults.cells.tolist() == [MERGED, ONE_CELL, NO_BOX, NO_BOX]
    assert faults.held.tolist() == [2, 1, 0, 0]
    assert faults.box_missing.tolist() == [False, False, False, True]
    counts = count_faults(drawn, faults)
    assert counts["masks"] == 4 and counts["masks inside"] == 3
    assert counts["merged"] == counts["claimed by two or more"] == 1
    assert counts["boxes in those"] == 2
    assert counts["masks without box"] == 1 == counts["boxes without mask"]


def test_errors_are_explained_by_the_faults_they_lie_on() -> None:
    truth = rectangles([MERGED_CELL, ALONE, WITHOUT_BOX])
    found = [
        (40, 40, 38, 40),  # half of the merged mask, as its box has it: IoU 0.475
        (82, 40, 38, 40),  # the other half
        ALONE,  # found
        (150, 10, 40, 40),  # a cell that has a box and no mask
        (42, 122, 20, 20),  # a piece of a cell
        (100, 10, 20, 20),  # nothing
    ]
    drawn = image(truth, rectangles(found))
    wrong, missed, matched = explain_errors(drawn, find_faults(drawn, DRAWN))
    assert wrong == {
        "on a merged mask, a box agrees": 2,
        "a box agrees, no mask there": 1,
        "no box agrees, a cell with its own mask": 1,
        "no box agrees, no mask there": 1,
    }
    assert missed == {MERGED: 1, NO_BOX: 1}
    assert matched == 1


def test_a_round_cell_drawn_again_agrees_with_itself() -> None:
    crop = Crop("a", 0, 0, 200, [circle(100.5, 100.5, 40)], [False])
    drawn = drawn_cells(crop, Frame(0, 0, 200, 200))
    pairs = matched_pairs(make_set([discs([(100, 100, 40)])], [drawn]))
    assert pairs[0, 0] > 0.98
    assert abs(pairs[0, 1]) < 0.3
