import pytest

from bccd_d2.evaluation.class_table import count_agreement


def test_by_hand():
    found = count_agreement([10, 20, 0], [12, 17, 1])
    # Differences 2, -3, 1: mean 0, standard deviation sqrt(14 / 2).
    assert found.bias == pytest.approx(0)
    assert found.mean_absolute_error == pytest.approx(2)
    assert found.mean_relative_error == pytest.approx((2 / 10 + 3 / 20) / 2)
    assert (found.lower_limit, found.upper_limit) == pytest.approx((-1.96 * 7**0.5, 1.96 * 7**0.5))


def test_a_single_image_has_no_spread():
    found = count_agreement([10], [12])
    assert (found.bias, found.lower_limit, found.upper_limit) == (2, 2, 2)


def test_without_ground_truth_there_are_only_words():
    found = count_agreement([0, 0], [1, 0])
    assert {found.bias, found.mean_absolute_error, found.mean_relative_error, found.upper_limit} == {
        "no ground truth"
    }
    assert found.predicted == [1, 0]
