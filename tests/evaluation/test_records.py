import numpy as np
import pytest

from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.records import contrast_bin, contrast_edges, contrasts, diameters, gaps
from tests.evaluation.synthetic_cells import disc, discs, rectangles


def test_gaps_count_the_background_between():
    cells = rectangles([(50, 50, 20, 20), (73, 50, 20, 20), (93, 50, 5, 5), (150, 150, 9, 9), (60, 60, 5, 5)])
    found = gaps(cells, 20.0)
    # Columns 70, 71, 72 are free; the third touches the second; the last lies in the first; the fourth is alone.
    assert found.tolist() == [0, 0, 0, np.inf, 0]
    assert gaps(cells[:2], 20.0) == pytest.approx([3, 3])
    assert gaps(cells[:2], 2.0).tolist() == [np.inf, np.inf]


def test_gaps_of_discs_are_measured_between_their_outlines():
    # Centres 60 px apart along the diagonal of a 3-4-5 triangle, radii 20: 20 px less one for the pixels themselves.
    assert gaps(discs([(60, 60, 20), (96, 108, 20)]), 30.0) == pytest.approx([19, 19], abs=1.0)


def test_crowding_and_size_names():
    options = EvaluationOptions()
    assert options.crowding_bins([0, 3, 3.5, 20, np.inf]) == ["touching", "touching", "near", "near", "apart"]
    # Discs of 39, 41, 129 and 131 px across.
    areas = np.array([np.pi / 4 * d**2 for d in (39, 41, 129, 131)]).astype(int)
    assert options.size_bins(areas) == ["small", "medium", "medium", "large"]
    assert diameters(areas) == pytest.approx([39, 41, 129, 131], abs=0.1)


def test_contrast_is_what_a_cell_is_darker_than_its_surroundings():
    green = np.full((200, 200), 200, np.uint8)
    green[disc(60, 60, 20)] = 120
    green[disc(105, 60, 20)] = 60
    cells = discs([(60, 60, 20), (105, 60, 20)])
    # The other cell, 5 px away, takes no part in the ring.
    assert contrasts(cells, green) == pytest.approx([80, 140])
    surrounded = rectangles([(50, 50, 20, 20), (30, 30, 60, 60)])
    assert contrasts(surrounded, green)[0] is None


def test_contrast_bins_are_thirds():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, None]
    edges = contrast_edges(values)
    assert [contrast_bin(v, edges) for v in values] == ["low"] * 2 + ["medium"] * 2 + ["high"] * 2 + [None]
    assert contrast_edges([None]) is None
    assert contrast_bin(3.0, None) is None
