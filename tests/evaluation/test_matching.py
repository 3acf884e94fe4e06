import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.evaluation.matching import match_cells, match_greedy, match_optimal, overlaps
from tests.evaluation.synthetic_cells import image, rectangles


def pairs(match):
    return list(zip(match[0].tolist(), match[1].tolist()))


def test_optimal_and_greedy_differ_where_the_best_takes_what_another_needs():
    # Prediction 0 fits both cells, prediction 1 only the first.
    iou = np.array([[0.8, 0.6], [0.7, 0.0]])
    assert pairs(match_optimal(iou, 0.5)) == [(0, 1), (1, 0)]
    assert pairs(match_greedy(iou, np.array([0.9, 0.8]), 0.5)) == [(0, 0)]
    assert pairs(match_greedy(iou, np.array([0.8, 0.9]), 0.5)) == [(0, 1), (1, 0)]


def test_of_as_many_pairs_the_better_ones_are_taken():
    iou = np.array([[0.6, 0.9], [0.9, 0.6]])
    assert pairs(match_optimal(iou, 0.5)) == [(0, 1), (1, 0)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_optimal_never_finds_less_than_greedy(seed):
    generator = np.random.default_rng(seed)
    iou = generator.random((generator.integers(0, 9), generator.integers(0, 9)))
    optimal = match_optimal(iou, 0.5)
    greedy = match_greedy(iou, generator.random(len(iou)), 0.5)
    assert len(optimal[0]) >= len(greedy[0])
    for match in (optimal, greedy):
        assert (iou[match] >= 0.5).all()
        assert len(set(match[0].tolist())) == len(set(match[1].tolist())) == len(match[0])


def matched(truth, predictions, ignore=None, threshold=0.5, **more):
    found = match_cells(overlaps(image(truth, predictions, ignore)), threshold, **more)
    return (
        pairs((found.predicted, found.true)),
        found.false_positives.tolist(),
        found.false_negatives.tolist(),
    )


INSIDE, AT_BORDER, ELSEWHERE = (50, 50, 20, 20), (0, 50, 20, 20), (180, 100, 20, 20)


def test_interior_leaves_out_truth_at_the_border_and_predictions_there_that_match_nothing_inside():
    truth, predictions = rectangles([INSIDE, AT_BORDER]), rectangles([AT_BORDER, INSIDE, ELSEWHERE])
    assert matched(truth, predictions, interior=True) == ([(1, 0)], [], [])
    # A cell at the border that nobody found is not missed, one inside is.
    assert matched(truth, rectangles([]), interior=True) == ([], [], [0])
    # A prediction that reaches the border but matches a cell that does not is right.
    assert matched(rectangles([(1, 50, 20, 20)]), rectangles([AT_BORDER]), interior=True) == (
        [(0, 0)],
        [],
        [],
    )
    # One that stops short of the border but matches a cell there is neither; one that matches nothing is wrong.
    short = rectangles([(1, 50, 19, 20), (100, 100, 9, 9)])
    assert matched(truth, short, interior=True) == ([], [1], [0])


def test_ignore_regions_take_what_matches_nothing():
    region = rectangles([(40, 40, 100, 100)], classes=[1])
    truth = rectangles([INSIDE], classes=[1])
    predictions = rectangles([INSIDE, (80, 80, 20, 20), (150, 150, 9, 9)], classes=[1, 1, 1])
    assert matched(truth, predictions, region) == ([(0, 0)], [2], [])
    assert matched(truth, predictions, region, class_index=1) == ([(0, 0)], [2], [])
    # Half of its 20 columns inside is mostly, 9 are not.
    half, less = rectangles([(130, 80, 20, 20)]), rectangles([(131, 80, 20, 20)])
    assert matched(rectangles([]), half, region) == ([], [], [])
    assert matched(rectangles([]), less, region) == ([], [0], [])


def test_classes_are_matched_apart_when_asked():
    truth = rectangles([INSIDE], classes=[1])
    predictions = rectangles([INSIDE], classes=[0])
    assert matched(truth, predictions) == ([(0, 0)], [], [])
    assert matched(truth, predictions, class_index=1) == ([], [], [0])
    assert matched(truth, predictions, class_index=0) == ([], [0], [])
