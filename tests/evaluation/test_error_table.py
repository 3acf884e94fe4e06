import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.evaluation.average_precision import scored_image
from bccd_d2.evaluation.error_bins import classify_errors
from bccd_d2.evaluation.error_table import precision_gains
from bccd_d2.evaluation.matching import overlaps
from tests.evaluation.synthetic_cells import image, random_image, rectangles

A, B = (50, 50, 20, 20), (120, 50, 20, 20)


def gains(truth, predictions, classes=1):
    drawn = image(truth, predictions)
    overlap = overlaps(drawn)
    errors = classify_errors(overlap, drawn.predictions, 0.5)
    return precision_gains([scored_image(overlap)], [errors], classes)


def only(found):
    """The bins whose fixing changes AP50."""
    return {name: gain[0] for name, gain in found.items() if gain[0] != 0}


def test_dropping_what_was_invented():
    # Wrong, right: precision 1/2 at all recalls.
    predictions = rectangles([(150, 150, 20, 20), A], scores=[0.9, 0.8])
    assert only(gains(rectangles([A]), predictions)) == {"false positive": pytest.approx(0.5)}


def test_adding_the_false_negatives():
    # One of two found: precision 1 at 51 of 101 recalls.
    assert only(gains(rectangles([A, B]), rectangles([A], scores=[0.9]))) == {
        "false negative": pytest.approx(50 / 101)
    }


def test_a_merged_pair_is_found_twice():
    pair = [A, (73, 50, 20, 20)]
    found = gains(rectangles(pair), rectangles([(50, 50, 43, 20)], scores=[0.9]))
    assert only(found) == {"under-segmented": 1.0}
    # With IoU 1 at all thresholds.
    assert found["under-segmented"] == (1.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_dropping_what_was_invented_never_costs(seed):
    drawn = random_image(np.random.default_rng(seed), cells=12, classes=1, side=120)
    overlap = overlaps(drawn)
    errors = classify_errors(overlap, drawn.predictions, 0.3)
    gain = precision_gains([scored_image(overlap)], [errors], 1)["false positive"]
    assert gain is None or min(gain) >= -1e-9
