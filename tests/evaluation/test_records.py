import numpy as np
import pytest

from bccd_d2.evaluation.records import contrasts, gaps
from tests.evaluation.synthetic_cells import disc, discs, rectangles


def test_gaps_count_the_background_between():
    cells = rectangles([(50, 50, 20, 20), (73, 50, 20, 20), (93, 50, 5, 5), (150, 150, 9, 9), (60, 60, 5, 5)])
    found = gaps(cells, 20.0)
    # Columns 70, 71, 72 are free; the third touches the second; the last lies in the first; the fourth is alone.
    assert found.tolist() == [0, 0, 0, np.inf, 0]
    assert gaps(cells[:2], 20.0) == pytest.approx([3, 3])
    assert gaps(cells[:2], 2.0).tolist() == [np.inf, np.inf]


def test_contrast_is_what_a_cell_is_darker_than_its_surroundings():
    green = np.full((200, 200), 200, np.uint8)
    green[disc(60, 60, 20)] = 120
    green[disc(105, 60, 20)] = 60
    cells = discs([(60, 60, 20), (105, 60, 20)])
    # The other cell, 5 px away, takes no part in the ring.
    assert contrasts(cells, green) == pytest.approx([80, 140])
    surrounded = rectangles([(50, 50, 20, 20), (30, 30, 60, 60)])
    assert contrasts(surrounded, green)[0] is None
