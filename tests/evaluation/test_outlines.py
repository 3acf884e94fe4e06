import pytest

from bccd_d2.evaluation.instances import outline_agreement
from tests.evaluation.synthetic_cells import disc, discs, rectangles


def test_the_same_outline():
    cells = rectangles([(50, 50, 20, 20)])
    assert outline_agreement(cells, 0, cells, 0, 1.0) == pytest.approx((1, 0, 0))


def test_a_square_moved_by_three():
    # Outlines of 76 pixels. Within 2 px of the other outline lie: of each long side the 17 pixels that both have and
    # 2 beside them; of one short side, which crosses the other square, 2 at each end; of the other side none.
    truth, moved = rectangles([(50, 50, 20, 20)]), rectangles([(53, 50, 20, 20)])
    found = outline_agreement(moved, 0, truth, 0, 2.0)
    assert found.boundary_f1 == pytest.approx((2 * (17 + 2) + 2 * 2) / 76)
    assert (found.hausdorff, found.hausdorff95) == pytest.approx((3, 3))
    assert outline_agreement(moved, 0, truth, 0, 3.0).boundary_f1 == pytest.approx(1)


def test_concentric_discs_differ_by_their_radii():
    found = outline_agreement(discs([(100, 100, 15)]), 0, discs([(100, 100, 20)]), 0, 2.0)
    assert found.hausdorff == pytest.approx(5, abs=0.5)
    assert found.boundary_f1 == 0


def test_a_tail_counts_for_the_greatest_distance_and_not_for_the_95th_percentile():
    tail = disc(100, 100, 20)
    tail[100, 120:131] = True
    found = outline_agreement(
        type(discs([])).from_masks(200, 200, [tail]), 0, discs([(100, 100, 20)]), 0, 2.0
    )
    assert found.hausdorff == pytest.approx(10)
    assert found.hausdorff95 < 8


def test_outlines_end_at_the_image_border():
    # A strip of 5 columns at the border against one of 10: 5 px apart, at the border they agree.
    found = outline_agreement(rectangles([(0, 50, 5, 20)]), 0, rectangles([(0, 50, 10, 20)]), 0, 1.0)
    assert found.hausdorff == pytest.approx(5)
    assert found.boundary_f1 > 0.5
