"""Measures of types that can be computed by hand."""

import numpy as np
import pytest

from bccd_d2.cell_types.metrics import choose_threshold, fit_temperature, measure_types


def test_confusion_and_f1_of_five_cells():
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 0, 1, 1, 1]]
    found = measure_types(probabilities, labels)
    assert found.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found.accuracy == pytest.approx(4 / 5)
    # F1 = 2 TP / (true + predicted): 4/5 and 4/5; the third type does not occur.
    np.testing.assert_allclose(found.f1[:2], 4 / 5)
    assert np.isnan(found.f1[2])
    assert found.macro_f1 == pytest.approx(4 / 5)


def test_a_type_that_is_never_found_counts_as_zero():
    found = measure_types(np.eye(2)[[0, 0]], np.array([0, 1]))
    assert found.f1.tolist() == [2 / 3, 0]
    assert found.macro_f1 == pytest.approx(1 / 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_logits_too_large_is_found(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from the softmax
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_the_threshold_is_the_lowest_that_reaches_the_accuracy():
    confidence = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99])
    probabilities = np.stack([confidence, np.zeros(10)], axis=1)
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])  # the two least sure are wrong
    assert (
        choose_threshold(probabilities, labels, accuracy=0.88, most_rejected=0.5) == 0.4
    )  # 8 of 9 are right
    assert choose_threshold(probabilities, labels, accuracy=1.0, most_rejected=0.5) == 0.5
    assert choose_threshold(probabilities, labels, accuracy=1.0, most_rejected=0.1) == 0.4
    assert choose_threshold(probabilities, labels, accuracy=0.8, most_rejected=0.5) == 0.0
