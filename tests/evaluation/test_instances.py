import numpy as np
import pytest

from bccd_d2.evaluation.instances import (
    ImageInstances,
    OutlineAgreement,
    aggregated_jaccard,
    aggregated_jaccard_plus,
    count_agreement,
    distances,
    image_instances,
    instance_metrics,
    outline_agreement,
)
from bccd_d2.evaluation.matching import overlaps
from bccd_d2.structures.cells import Cells
from tests.evaluation.synthetic_cells import disc, discs, image, rectangles


def parts(drawn, **more):
    return image_instances(overlaps(drawn), lambda p, t: OutlineAgreement(1.0, 0.0, 0.0), 0.5, **more)


def metrics(*images, **more):
    return instance_metrics([parts(i, **more) for i in images])


A, B = (50, 50, 20, 20), (120, 50, 20, 20)


def test_perfect():
    cells = rectangles([A, B])
    found = metrics(image(cells, cells))
    assert (found.cells, found.predicted) == (2, 2)
    values = (found.f1, found.mean_f1, found.sq, found.rq, found.pq, found.aji, found.aji_plus)
    assert values == pytest.approx([1] * 7)


def test_merged():
    # Two cells of 400 px and one prediction of 860 over both.
    truth = rectangles([A, (73, 50, 20, 20)])
    found = metrics(image(truth, rectangles([(50, 50, 43, 20)])))
    assert (found.f1, found.pq, found.predicted) == (0, 0, 1)
    # AJI lets both cells take it: 800 of 2 x 860 pixels. AJI+ one: 400 of 860 and the other cell's 400.
    assert found.aji == pytest.approx(800 / 1720)
    assert found.aji_plus == pytest.approx(400 / 1260)


def test_cells_are_pooled_and_aji_is_a_mean_of_images():
    found = metrics(
        image(rectangles([A, B]), rectangles([A])),
        image(rectangles([A]), rectangles([A])),
        image(rectangles([]), rectangles([A])),
    )
    # 2 right, 1 wrong, 1 missed.
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.aji == pytest.approx((400 / 800 + 1) / 2)


def test_by_class_and_whatever_the_class():
    drawn = image(rectangles([A, B], classes=[0, 1]), rectangles([A, B], classes=[0, 0]))
    assert metrics(drawn).f1 == 1
    assert metrics(drawn, class_index=0).f1 == pytest.approx(2 / 3)
    assert metrics(drawn, class_index=1).f1 == 0


def test_aggregated_jaccard_of_hand_made_numbers():
    # Both cells like the first prediction best; the second prediction overlaps the second cell a little.
    shared = np.array([[6, 5], [0, 2]])
    predicted, true = np.array([12, 4]), np.array([8, 7])
    # Unions: 14 and 14 with the first; the second prediction is unused.
    assert aggregated_jaccard(shared, predicted, true) == pytest.approx((6 + 5) / (14 + 14 + 4))
    # IoU 6/14 + 2/9 is more than 5/14 and nothing: all areas less what the pairs share.
    assert aggregated_jaccard_plus(shared, predicted, true) == pytest.approx((6 + 2) / (12 + 4 + 8 + 7 - 8))


def test_distances_are_exact_wherever_the_mask_lies_in_memory():
    rows, columns = np.mgrid[:40, :40]
    for offset in range(4):
        memory = np.zeros(1600 + offset, bool)
        mask = memory[offset:].reshape(40, 40)
        mask[3, 5] = True
        np.testing.assert_array_equal(distances(mask), np.sqrt((rows - 3) ** 2 + (columns - 5) ** 2))


def test_a_square_moved_by_three():
    # Outlines of 76 pixels. Within 2 px of the other outline lie: of each long side the 17 pixels that both have and
    # 2 beside them; of one short side, which crosses the other square, 2 at each end; of the other side none.
    truth, moved = rectangles([(50, 50, 20, 20)]), rectangles([(53, 50, 20, 20)])
    found = outline_agreement(moved, 0, truth, 0, 2.0)
    assert found.boundary_f1 == pytest.approx((2 * (17 + 2) + 2 * 2) / 76)
    assert (found.hausdorff, found.hausdorff95) == pytest.approx((3, 3))
    assert outline_agreement(moved, 0, truth, 0, 3.0).boundary_f1 == pytest.approx(1)


def test_a_tail_counts_for_the_greatest_distance_and_not_for_the_95th_percentile():
    tail = disc(100, 100, 20)
    tail[100, 120:131] = True
    found = outline_agreement(Cells.from_masks(200, 200, [tail]), 0, discs([(100, 100, 20)]), 0, 2.0)
    assert found.hausdorff == pytest.approx(10)
    assert found.hausdorff95 < 8


def test_agreement_of_counts_by_hand():
    # True and false positives, false negatives of three images: 10, 20, 0 cells and 12, 17, 1 predictions.
    counts = [(8, 4, 2), (15, 2, 5), (0, 1, 0)]
    found = count_agreement([ImageInstances(np.array([c]), 0.0, None, None, []) for c in counts])
    assert (found.true, found.predicted) == ([10, 20, 0], [12, 17, 1])
    # Differences 2, -3, 1: mean 0, standard deviation sqrt(14 / 2).
    assert found.bias == pytest.approx(0)
    assert found.mean_absolute_error == pytest.approx(2)
    assert found.mean_relative_error == pytest.approx((2 / 10 + 3 / 20) / 2)
    assert (found.lower_limit, found.upper_limit) == pytest.approx((-1.96 * 7**0.5, 1.96 * 7**0.5))
