import pytest

from bccd_d2.evaluation.class_table import class_table, count_agreement
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from tests.evaluation.synthetic_cells import evaluation_set, image, rectangles


def test_by_hand():
    found = count_agreement([10, 20, 0], [12, 17, 1])
    # Differences 2, -3, 1: mean 0, standard deviation sqrt(14 / 2).
    assert found.bias == pytest.approx(0)
    assert found.mean_absolute_error == pytest.approx(2)
    assert found.mean_relative_error == pytest.approx((2 / 10 + 3 / 20) / 2)
    assert (found.lower_limit, found.upper_limit) == pytest.approx((-1.96 * 7**0.5, 1.96 * 7**0.5))


def test_the_table_says_what_cells_of_a_class_are_called():
    a, b, c, nowhere = (50, 50, 20, 20), (120, 50, 20, 20), (50, 120, 20, 20), (150, 150, 20, 20)
    # Of three red cells one is found, one called white, one not found; a platelet is invented.
    truth = rectangles([a, b, c], classes=[0, 0, 0])
    predictions = rectangles([a, b, nowhere], classes=[0, 1, 2], scores=[0.9, 0.8, 0.7])
    dataset = evaluation_set([image(truth, predictions)], ("RBC", "WBC", "Platelets"))
    lines = class_table(evaluate(dataset, EvaluationOptions(bootstrap_samples=0))).splitlines()
    assert lines[0] == (
        "|  | cells | predicted | AP@0.5 | F1 | bias | mean absolute error | called RBC | called WBC "
        "| called Platelets | not found |"
    )
    # AP: precision 1 up to a recall of 1/3, 34 of COCO's 101 recalls. F1 2 / (3 + 1).
    assert lines[2] == "| RBC | 3 | 1 | 0.337 | 0.500 | -2.00 | 2.00 | 1 | 1 | 0 | 1 |"
    words = "no ground truth"
    assert lines[3] == f"| WBC | 0 | 1 | {words} | {words} | {words} | {words} | 0 | 0 | 0 | 0 |"
    assert lines[5] == "| no cell |  |  |  |  |  |  | 0 | 0 | 1 |  |"
