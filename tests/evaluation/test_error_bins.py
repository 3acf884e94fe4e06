import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.evaluation.error_bins import BINS, classify_errors
from bccd_d2.evaluation.matching import match_cells, overlaps
from tests.evaluation.synthetic_cells import image, random_image, rectangles


def classify(truth, predictions, ignore=None, threshold=0.5):
    drawn = image(truth, predictions, ignore)
    return classify_errors(overlaps(drawn), drawn.predictions, threshold)


CELL, NEIGHBOUR = (50, 50, 20, 20), (73, 50, 20, 20)


@pytest.mark.parametrize(
    ("truth", "predictions", "true_bins", "predicted_bins"),
    [
        ([CELL], [CELL], ["correct"], ["correct"]),
        ([CELL], [], ["false negative"], []),
        ([], [CELL], [], ["false positive"]),
        # 20 x 20 moved by 4: 320 of 480 pixels shared, IoU 2/3; by 10: 200 of 600, IoU 1/3; by 17: 60 of 740, 0.08.
        ([CELL], [(54, 50, 20, 20)], ["correct"], ["correct"]),
        ([CELL], [(60, 50, 20, 20)], ["poorly outlined"], ["poorly outlined"]),
        ([CELL], [(67, 50, 20, 20)], ["false negative"], ["false positive"]),
        # One prediction over both and the gap: 400 of 860 pixels, IoU 0.47 with each.
        ([CELL, NEIGHBOUR], [(50, 50, 43, 20)], ["under-segmented"] * 2, ["under-segmented"]),
        # Over a large cell that it matches (IoU 400/430) and a small one that it swallows.
        ([CELL, (71, 50, 5, 6)], [(50, 50, 26, 20)], ["correct", "under-segmented"], ["correct"]),
        # Two thirds of a cell and the last third: 0.65 and 0.35 of its area.
        ([CELL], [(50, 50, 13, 20), (63, 50, 7, 20)], ["correct"], ["correct", "over-segmented"]),
        # Three pieces of which none matches, 0.4, 0.3 and 0.3 of the area.
        (
            [CELL],
            [(50, 50, 8, 20), (58, 50, 6, 20), (64, 50, 6, 20)],
            ["over-segmented"],
            ["over-segmented"] * 3,
        ),
        # The same cell twice, and a speck within.
        ([CELL], [CELL, (51, 50, 20, 20), (60, 60, 3, 3)], ["correct"], ["correct"] + ["duplicate"] * 2),
        # Twice the same piece is no splitting: 0.4 of the area, the better one is poorly outlined.
        ([CELL], [(50, 50, 8, 20), (50, 50, 8, 20)], ["poorly outlined"], ["poorly outlined", "duplicate"]),
        # At the left border.
        ([(0, 50, 20, 20)], [], ["border"], []),
        ([], [(0, 50, 20, 20)], [], ["border"]),
        ([(0, 50, 20, 20)], [(0, 50, 20, 20)], ["correct"], ["correct"]),
        ([(0, 50, 20, 20)], [(1, 60, 20, 20)], ["border"], ["poorly outlined"]),
    ],
)
def test_each_kind_of_error_by_hand(truth, predictions, true_bins, predicted_bins):
    scores = np.linspace(0.9, 0.6, len(predictions))
    found = classify(rectangles(truth), rectangles(predictions, scores=scores))
    assert (found.true_bins, found.predicted_bins) == (true_bins, predicted_bins)


def test_a_wrong_class_is_misclassified_unless_the_right_one_is_there():
    truth = rectangles([CELL], classes=[1])
    wrong = rectangles([CELL], classes=[0])
    assert classify(truth, wrong).predicted_bins == ["misclassified"]
    assert classify(truth, wrong).true_bins == ["misclassified"]
    both = rectangles([CELL, CELL], classes=[0, 1], scores=[0.9, 0.6])
    assert classify(truth, both).predicted_bins == ["duplicate", "correct"]
    assert classify(truth, both).true_bins == ["correct"]


def test_a_prediction_in_an_ignore_region_of_its_class_is_ignored():
    region = rectangles([(40, 40, 60, 60)], classes=[1])
    assert classify(rectangles([]), rectangles([CELL], classes=[1]), region).predicted_bins == ["ignored"]
    assert classify(rectangles([]), rectangles([CELL], classes=[0]), region).predicted_bins == [
        "false positive"
    ]
    beside = rectangles([(90, 50, 25, 20)], classes=[1])
    assert classify(rectangles([]), beside, region).predicted_bins == ["false positive"]


def test_partners_say_what_a_bin_is_about():
    truth = rectangles([CELL, NEIGHBOUR, (120, 120, 20, 20)])
    predictions = rectangles([(120, 120, 20, 20), (50, 50, 43, 20), (20, 150, 9, 9)], scores=[0.9, 0.8, 0.7])
    found = classify(truth, predictions)
    assert found.true_partners == [1, 1, 0]
    assert found.predicted_partners == [2, 0, None]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.6]))
def test_every_cell_falls_in_one_bin(seed, threshold):
    drawn = random_image(np.random.default_rng(seed), cells=15, side=120)
    overlap = overlaps(drawn)
    found = classify_errors(overlap, drawn.predictions, threshold)
    counts = drawn.predictions.scores >= threshold
    assert set(found.true_bins) <= set(BINS) - {"duplicate", "false positive", "ignored"}
    assert [name is not None for name in found.predicted_bins] == counts.tolist()
    assert {name for name in found.predicted_bins if name} <= set(BINS) - {"false negative"}
    # "correct" and "misclassified" come in pairs, and the correct ones are those that F1 counts as right.
    for name in ("correct", "misclassified"):
        pairs = [(p, t) for p, t in enumerate(found.predicted_partners) if found.predicted_bins[p] == name]
        assert sorted(pairs) == sorted(
            (found.true_partners[t], t) for t, b in enumerate(found.true_bins) if b == name
        )
    by_class = [match_cells(overlap, threshold, class_index=index) for index in range(2)]
    assert found.true_bins.count("correct") == sum(len(j.predicted) for j in by_class)
    assert found.predicted_bins.count("ignored") <= overlap.in_ignored(None).sum()
