"""How good a classifier of cell types is: confusion, F1, calibration, and the two numbers that validation sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from bccd_d2.evaluation.calibration import calibration_error


@dataclass(frozen=True)
class TypeMetrics:
    """Of N cells with one of K types each."""

    confusion: NDArray[np.int64]  # (K, K) cells by true type (row) and predicted type (column)
    precision: NDArray[np.float64]  # (K,) NaN where nothing is predicted
    recall: NDArray[np.float64]  # (K,) NaN where there is no cell
    f1: NDArray[np.float64]  # (K,) 0 where neither is right; NaN where a type neither occurs nor is predicted
    accuracy: float  # share of the cells whose type is right
    macro_f1: float  # mean of f1 over types that occur
    ece: float  # see calibration_error


def measure_types(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> TypeMetrics:
    """Compare the most probable types of (N, K) ``probabilities``, N at least 1, with the true ones, (N,) in [0, K)."""
    number = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((number, number), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right, true, found = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = right / found, right / true, 2 * right / (true + found)
    return TypeMetrics(
        confusion,
        precision,
        recall,
        f1,
        float(right.sum() / len(labels)),
        float(f1[true > 0].mean()),
        calibration_error(probabilities.max(axis=1), predicted == labels),
    )


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature with the least negative log likelihood (Guo et al. 2017), in [0.05, 20]."""

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        normalizer = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((normalizer - scaled[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded").x))


def choose_threshold(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    accuracy: float = 0.97,
    most_rejected: float = 0.1,
) -> float:
    """The lowest threshold above which a share ``accuracy`` of the cells is right, in [0, 1), to three decimals.

    ``most_rejected`` is the share of the cells that may fall below it, and wins over ``accuracy``.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    for rejected in range(int(most_rejected * len(order)) + 1):
        kept = order[rejected:]
        threshold = confidence[kept[0]]
        if right[kept].mean() >= accuracy:
            break
    return 0.0 if rejected == 0 else float(np.floor(threshold * 1000) / 1000)
