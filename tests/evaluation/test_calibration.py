"""Ranked predictions: weights of images, calibration, curves."""

import numpy as np
import pytest

from bccd_d2.evaluation.average_precision import (
    PrecisionRanking,
    precision_recall_curve,
    rank_predictions,
    scored_image,
)
from bccd_d2.evaluation.calibration import calibration_bins, calibration_error, reliability
from bccd_d2.evaluation.matching import overlaps
from tests.evaluation.synthetic_cells import image, random_image, rectangles

A, B, C, NOWHERE = (50, 50, 20, 20), (120, 50, 20, 20), (50, 120, 20, 20), (150, 150, 20, 20)


def ranked(truth, predictions, classes=1, interior=False):
    return rank_predictions([scored_image(overlaps(image(truth, predictions)), interior=interior)], classes)


def test_reliability_by_hand():
    found = ranked(rectangles([A, B]), rectangles([A, NOWHERE, B], scores=[0.95, 0.91, 0.32]))
    assert found.counted[0].all()
    curve = reliability(found.scores, found.correct[0])
    assert curve.counts == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert curve.mean_scores[9] == pytest.approx(0.93)
    assert (curve.precisions[9], curve.precisions[3], curve.precisions[0]) == (0.5, 1.0, None)
    assert curve.expected_error == pytest.approx((2 * abs(0.5 - 0.93) + abs(1 - 0.32)) / 3)


def test_precision_recall_and_the_best_threshold_by_hand():
    predictions = rectangles([A, NOWHERE, B], scores=[0.9, 0.6, 0.7])
    curve = precision_recall_curve(ranked(rectangles([A, B, C]), predictions))
    assert curve.scores == [0.9, 0.7, 0.6]
    assert curve.recall == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert curve.precision == pytest.approx([1, 1, 2 / 3])
    # F1 1/2, 4/5, 2/3.
    assert (curve.best_threshold, curve.best_f1) == pytest.approx((0.7, 0.8))


def test_a_threshold_takes_all_predictions_with_its_score():
    # Stopping between the two would be right, but no threshold can.
    predictions = rectangles([A, NOWHERE], scores=[0.7, 0.7])
    curve = precision_recall_curve(ranked(rectangles([A]), predictions))
    assert (curve.best_threshold, curve.best_f1) == pytest.approx((0.7, 2 / 3))


def test_a_weight_counts_an_image_so_many_times():
    generator = np.random.default_rng(3)
    scored = [scored_image(overlaps(random_image(generator, cells=20, image_id=i))) for i in range(1, 5)]
    weights = np.array([2, 0, 1, 3])
    repeated = [scored[i] for i in np.repeat(np.arange(4), weights)]
    weighted = PrecisionRanking(rank_predictions(scored, 3)).average_precision(weights.astype(float))
    expected = PrecisionRanking(rank_predictions(repeated, 3)).average_precision()
    assert weighted == pytest.approx(expected, abs=1e-12, nan_ok=True)
    # Of a class without ground truth there is none.
    assert np.isnan(weighted[:, 2]).all()


def test_calibration_error_of_two_bins():
    # Bin of 0.9: four cells, half right; bin of 0.6: one cell, right. (4 * 0.4 + 1 * 0.4) / 5.
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6])
    right = np.array([True, True, False, False, True])
    assert calibration_error(confidence, right, bins=10) == pytest.approx(0.4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    # 0.3 has no exact float; it is the lower end of its bin.
    assert calibration_bins(np.array([0.3, 0.6, 0.7]), np.ones(3, bool), 10)[0].nonzero()[0].tolist() == [
        3,
        6,
        7,
    ]
